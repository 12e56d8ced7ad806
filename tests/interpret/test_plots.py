import numpy as np
import pytest
from matplotlib.patches import Rectangle

from jaxcnn.interpret import plots
from tests.reference import normal

PHOTOGRAPHS = np.random.default_rng(0).integers(0, 256, (2, 12, 9, 3), dtype=np.uint8)
OVER = np.abs(normal(1, 2, 12, 9))  # one value for each pixel
IN_COLOUR = normal(2, 2, 12, 9, 3)


def drawn(figure, path):
    """The arrays of every axes of a figure that can be written."""
    figure.savefig(path / "figure.png")
    assert (path / "figure.png").stat().st_size > 1000
    return [[np.asarray(image.get_array()) for image in axes.images] for axes in figure.axes]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_feature_maps_are_the_first_channels_of_the_first_image(tmp_path):
    maps = {"c1": normal(0, 2, 7, 5, 3), "s2": normal(1, 2, 3, 2, 6)}
    figure = plots.feature_maps(maps, channels=4)
    arrays = drawn(figure, tmp_path)
    assert len(arrays) == 3 + 4
    for channel in range(3):
        np.testing.assert_allclose(arrays[channel][0], maps["c1"][0, :, :, channel])
    np.testing.assert_allclose(arrays[6][0], maps["s2"][0, :, :, 3])
    assert figure.axes[0].get_ylabel() == "c1\n7×5×3"


def test_filters_of_three_channels_are_in_colour_with_zero_grey(tmp_path):
    filters = normal(0, 3, 2, 3, 5)
    filters[..., 1] = 0
    ((picture,),) = drawn(plots.first_filters(filters), tmp_path)
    assert picture.shape == (2 * 3 + 1, 3 * 2 + 2, 3)  # two rows of three tiles, a blank pixel between two
    np.testing.assert_allclose(picture[:3, 3:5], 0.5)
    last = filters[..., 4] / np.abs(filters[..., 4]).max()
    np.testing.assert_allclose(picture[4:, 3:5], 0.5 + last / 2, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_other_filters_are_drawn_with_zero_in_the_middle_of_the_colours(tmp_path, channels):
    filters = normal(0, 3, 2, channels, 4)
    figure = plots.first_filters(filters)
    ((picture,),) = drawn(figure, tmp_path)
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
    scaled = filters / np.abs(filters).max((0, 1, 2))
    # One channel: a square of tiles. More: a row for each channel, a column for each filter.
    tile = picture[4:7, 3:5] if channels == 1 else picture[4:7, 9:11]
    np.testing.assert_allclose(tile, scaled[:, :, channels - 1, 3], atol=1e-6)


def test_maximized_images_keep_their_order_and_titles(tmp_path):
    images = np.random.default_rng(0).uniform(size=(7, 4, 4, 1))
    figure = plots.maximize_activation(images, list("abcdefg"))
    arrays = drawn(figure, tmp_path)
    assert titles(figure) == list("abcdefg")
    for (shown,), image in zip(arrays, images, strict=True):
        np.testing.assert_allclose(shown, np.repeat(image, 3, -1))


@pytest.mark.parametrize("name", ["saliency", "smooth_grad"])
def test_a_strength_is_scaled_to_its_99th_percentile(tmp_path, name):
    figure = getattr(plots, name)(PHOTOGRAPHS, OVER, ("cat", "dog"))
    arrays = drawn(figure, tmp_path)
    assert len(arrays) == 6 and titles(figure)[::3] == ["cat", "dog"]
    np.testing.assert_allclose(arrays[3][0], PHOTOGRAPHS[1] / 255)
    share = np.minimum(OVER[1] / np.percentile(OVER[1], 99), 1)
    np.testing.assert_allclose(arrays[4][0], share, atol=1e-6)
    veil = arrays[5][1][..., 3]
    assert veil[share == 1].max() == 0 and veil[share.argmin() // 9, share.argmin() % 9] > 0.8


def test_integrated_gradients_are_summed_over_channels_on_a_symmetric_scale(tmp_path):
    figure = plots.integrated_gradients(PHOTOGRAPHS, IN_COLOUR)
    arrays = drawn(figure, tmp_path)
    np.testing.assert_allclose(arrays[1][0], IN_COLOUR[0].sum(-1), rtol=1e-5, atol=1e-6)
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high and high == pytest.approx(np.percentile(np.abs(IN_COLOUR[0].sum(-1)), 99), rel=1e-5)


def test_an_occlusion_is_drawn_around_the_centres_of_its_windows(tmp_path):
    values = normal(
        3, 2, 4, 3
    )  # (12 - 4) // 2 + 1 would be 5: the images may be larger than what was covered
    figure = plots.occlusion(PHOTOGRAPHS, values, window=(4, 3), stride=(2, 3))
    arrays = drawn(figure, tmp_path)
    np.testing.assert_allclose(arrays[1][0], values[0])
    left, right, bottom, top = figure.axes[1].images[0].get_extent()
    # The first window covers rows 0 to 3 and columns 0 to 2, and so lies around (1.5, 1).
    assert (left + 3 / 2, top + 2 / 2) == (1, 1.5)
    assert (right - 3 / 2, bottom - 2 / 2) == (1 + 2 * 3, 1.5 + 3 * 2)
    assert figure.axes[1].get_xlim() == (-0.5, 8.5)


def test_grad_cam_is_stretched_over_the_image(tmp_path):
    values = np.abs(normal(3, 2, 3, 2))
    figure = plots.grad_cam(PHOTOGRAPHS, values)
    arrays = drawn(figure, tmp_path)
    np.testing.assert_allclose(arrays[5][1], values[1])
    assert figure.axes[5].images[1].get_extent() == [-0.5, 8.5, 11.5, -0.5]


@pytest.mark.parametrize("name", ["guided_backpropagation", "deconvnet"])
def test_what_came_back_to_the_pixels_lies_around_grey(tmp_path, name):
    values = IN_COLOUR.copy()
    values[0, 3, 4] = 0
    arrays = drawn(getattr(plots, name)(PHOTOGRAPHS, values), tmp_path)
    np.testing.assert_allclose(arrays[1][0][3, 4], 0.5)
    expected = np.clip(0.5 + values[1] / (2 * np.percentile(np.abs(values[1]), 99)), 0, 1)
    np.testing.assert_allclose(arrays[3][0], expected, atol=1e-6)


def test_a_field_is_drawn_with_the_box_around_its_centre_of_mass(tmp_path):
    field = np.zeros((10, 14))
    field[3, 5], field[5, 9] = 0.5, 0.5
    figure = plots.effective_receptive_field(field, theoretical=(4, 6))
    assert drawn(figure, tmp_path)[0][0].shape == (10, 14)
    (box,) = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((7 - 3, 4 - 2), 6, 4)
    x, y = (np.asarray(line.get_ydata()) for line in figure.axes[1].lines)
    np.testing.assert_allclose(x, field.sum(0))
    np.testing.assert_allclose(y, field.sum(1))
    assert not plots.effective_receptive_field(field).axes[0].patches


def test_nearest_images_stand_beside_the_one_that_was_asked_about(tmp_path):
    images = np.random.default_rng(0).uniform(size=(5, 4, 6, 3))
    indices, distances = np.array([[4, 0], [2, 3]]), np.array([[0.125, 1.5], [2.0, 3.0]])
    figure = plots.nearest_images(PHOTOGRAPHS, images, indices, distances)
    arrays = drawn(figure, tmp_path)
    np.testing.assert_allclose(arrays[3][0], PHOTOGRAPHS[1] / 255)
    np.testing.assert_allclose(arrays[1][0], images[4])
    np.testing.assert_allclose(arrays[5][0], images[3])
    assert titles(figure) == ["x", "#4  0.125", "#0  1.5", "", "#2  2", "#3  3"]


def test_equal_values_and_jax_arrays_are_drawn(tmp_path):
    import jax.numpy as jnp

    zeros = jnp.zeros((1, 4, 5))
    images = jnp.full((1, 4, 5, 1), 0.5)
    for figure in (
        plots.saliency(images, zeros),
        plots.grad_cam(images, zeros),
        plots.occlusion(images, zeros, window=1, stride=1),
        plots.integrated_gradients(images, zeros[..., None]),
        plots.deconvnet(images, zeros[..., None]),
        plots.first_filters(jnp.zeros((3, 3, 3, 4))),
    ):
        drawn(figure, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.feature_maps({}), r"feature_maps: maps must hold at least one stage"),
        (
            lambda: plots.feature_maps({"logits": np.zeros((1, 10))}),
            r"feature_maps: maps\['logits'\] must have shape \(batch, height, .* got shape \(1, 10\)",
        ),
        (
            lambda: plots.feature_maps({"c1": np.zeros((1, 2, 2, 3))}, channels=0),
            r"feature_maps: channels must be at least 1, got 0",
        ),
        (lambda: plots.first_filters(np.zeros((3, 3, 3))), r"first_filters: filters must have shape"),
        (
            lambda: plots.saliency(PHOTOGRAPHS * 1.0, OVER),
            r"saliency: images must be images as they are displayed.*got float64 from 0.0 to 255.0; undo",
        ),
        (
            lambda: plots.saliency(PHOTOGRAPHS.astype(int), OVER),
            r"saliency: images must be images as they are displayed, uint8 or floats in \[0, 1\], got int64",
        ),
        (
            lambda: plots.maximize_activation(normal(0, 2, 4, 4, 3)),
            r"maximize_activation: images must be images as they are displayed",
        ),
        (lambda: plots.smooth_grad(PHOTOGRAPHS, OVER[:1]), r"smooth_grad: values must be those of 2 images"),
        (lambda: plots.saliency(PHOTOGRAPHS, IN_COLOUR), r"saliency: values must have shape \(batch, height"),
        (
            lambda: plots.integrated_gradients(PHOTOGRAPHS, OVER),
            r"integrated_gradients: values must have shape",
        ),
        (
            lambda: plots.grad_cam(PHOTOGRAPHS, OVER, ("cat",)),
            r"grad_cam: titles must be 2, one for each image, or none, got \('cat',\)",
        ),
        (lambda: plots.deconvnet(PHOTOGRAPHS, IN_COLOUR, "ab"), r"deconvnet: titles must be 2"),
        (
            lambda: plots.occlusion(PHOTOGRAPHS, OVER, window=0, stride=1),
            r"occlusion: window must be at least 1, got 0",
        ),
        (
            lambda: plots.occlusion(PHOTOGRAPHS, IN_COLOUR, window=1, stride=1),
            r"occlusion: values must have shape \(batch, height, width\)",
        ),
        (
            lambda: plots.effective_receptive_field(np.zeros((4, 5))),
            r"effective_receptive_field: field must not be negative and hold something positive, got values",
        ),
        (
            lambda: plots.effective_receptive_field(np.ones((4, 5)), theoretical=0),
            r"effective_receptive_field: theoretical must be at least 1, got 0",
        ),
        (
            lambda: plots.nearest_images(PHOTOGRAPHS, PHOTOGRAPHS, np.array([[0]]), np.array([[0.0]])),
            r"nearest_images: indices and distances must have shape \(2, count\), .* got \(1, 1\) and",
        ),
        (
            lambda: plots.nearest_images(PHOTOGRAPHS, PHOTOGRAPHS, np.array([[0], [2]]), np.zeros((2, 1))),
            r"nearest_images: indices must be in \[0, 2\), got 0 to 2",
        ),
    ],
)
def test_what_is_refused(unchecked, call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()
