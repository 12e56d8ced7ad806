"""Resizing, sampling at positions and pixel shuffling against loops, and what they must keep."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn.functional as F
from tests import reference

SIZES = [((7,), (4,)), ((3,), (10,)), ((5, 6), (8, 6)), ((9, 4), (2, 7)), ((4, 5, 3), (6, 2, 1))]
RESIZES = {
    "nearest": {"method": "nearest"},
    "nearest_exact": {"method": "nearest_exact"},
    "area": {"method": "area"},
    "bilinear": {"method": "bilinear"},
    "bilinear, corners": {"method": "bilinear", "align_corners": True},
    "bilinear, antialias": {"method": "bilinear", "antialias": True},
    "bilinear, antialias, corners": {"method": "bilinear", "antialias": True, "align_corners": True},
    "bicubic": {"method": "bicubic"},
    "bicubic, corners": {"method": "bicubic", "align_corners": True},
    "bicubic, antialias": {"method": "bicubic", "antialias": True},
    "bicubic, antialias, corners": {"method": "bicubic", "antialias": True, "align_corners": True},
}
METHODS = ("nearest", "bilinear", "bicubic")
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def jitted(function, **options):
    return jax.jit(functools.partial(function, **options))


# resize


@pytest.mark.parametrize("name", RESIZES)
def test_resize_equals_the_matrices_of_its_definition(name):
    for size, output in SIZES:
        x = reference.normal(0, 2, *size, 3)
        y = jitted(F.resize, size=output, **RESIZES[name])(x)
        close(y, reference.resize(x, output, **RESIZES[name]), err_msg=f"{size} to {output}")


@pytest.mark.parametrize("name", [name for name in RESIZES if name != "area" and "corners" not in name])
def test_a_scale_takes_the_place_of_the_ratio_of_the_sizes(name):
    for size, output, scale in [((7,), (5,), (0.75,)), ((5, 6), (11, 7), (2.25, 1.25))]:
        x = reference.normal(0, 2, *size, 3)
        y = jitted(F.resize, size=output, scale=scale, **RESIZES[name])(x)
        close(y, reference.resize(x, output, scale=scale, **RESIZES[name]), err_msg=f"{size} to {output}")
    one = F.resize(x, (10, 12), scale=2, **RESIZES[name])
    chex.assert_trees_all_equal(one, F.resize(x, (10, 12), **RESIZES[name]))


@pytest.mark.parametrize("name", RESIZES)
def test_resizing_to_the_same_size_is_a_copy(name):
    x = reference.normal(0, 2, 5, 6, 3)
    np.testing.assert_array_equal(F.resize(x, (5, 6), **RESIZES[name]), x)


def test_an_integer_size_is_square_for_a_batch_of_images():
    x = reference.normal(0, 2, 5, 7, 3)
    chex.assert_trees_all_equal(F.resize(x, 4), F.resize(x, (4, 4)))


@pytest.mark.parametrize("n, m", [(18, 66), (26, 46), (30, 22), (2, 49), (49, 2), (1000, 777)])
def test_nearest_is_exact_where_the_product_is_whole(n, m):
    x = jnp.arange(float(n)).reshape(1, n, 1)
    i = np.arange(m)
    np.testing.assert_array_equal(F.resize(x, (m,), method="nearest").ravel(), i * n // m)
    exact = F.resize(x, (m,), method="nearest_exact").ravel()
    np.testing.assert_array_equal(exact, np.minimum((2 * i + 1) * n // (2 * m), n - 1))


def test_a_ramp_stays_a_ramp_and_corners_stay():
    ramp = jnp.linspace(-1.0, 3.0, 6).reshape(1, 6, 1)
    close(np.ravel(F.resize(ramp, (16,), align_corners=True)), np.linspace(-1.0, 3.0, 16))
    ends = np.ravel(F.resize(ramp, (16,), method="bicubic", align_corners=True))[[0, -1]]
    close(ends, [-1.0, 3.0])
    # A cubic of slope -1/2 keeps polynomials to the second degree, away from the border.
    square = F.resize(jnp.square(ramp), (18,), method="bicubic", antialias=True).ravel()
    place = -1.0 + 0.8 * ((np.arange(18) + 0.5) / 3 - 0.5)
    close(square[5:-5], np.square(place)[5:-5])


def test_halving_with_antialias_is_the_filter_1_3_3_1():
    x = reference.normal(0, 2, 12, 3)
    y = F.resize(x, (6,), antialias=True)
    inside = [
        (x[:, 2 * i - 1] + 3 * x[:, 2 * i] + 3 * x[:, 2 * i + 1] + x[:, 2 * i + 2]) / 8 for i in range(1, 5)
    ]
    close(y[:, 1:-1], np.stack(inside, axis=1))


@pytest.mark.parametrize("method, spread", [("nearest", 2), ("bilinear", 4), ("bicubic", 8), ("area", 2)])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_inf_and_nan_reach_only_what_reads_them(method, spread, bad):
    x = reference.normal(0, 1, 9, 1)
    x[0, 4] = bad
    y = F.resize(x, (18,), method=method).ravel()
    assert (~np.isfinite(y)).sum() == spread
    clean = F.resize(np.where(np.isfinite(x), x, 0), (18,), method=method).ravel()
    np.testing.assert_array_equal(y[np.isfinite(y)], clean[np.isfinite(y)])


def test_a_tap_of_weight_0_is_not_read():
    x = reference.normal(0, 1, 9, 1)
    x[0, 4] = np.inf
    y = np.ravel(F.resize(x, (17,), align_corners=True))  # every second element is one of x
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(y)), [7, 8, 9])


# grid_sample


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", METHODS)
def test_grid_sample_equals_the_loops(method, padding_mode, align_corners):
    options = {"method": method, "padding_mode": padding_mode, "align_corners": align_corners}
    for size, output in [((5,), (7,)), ((4, 6), (3, 5)), ((3, 1, 4), (2, 3))]:
        if method == "bicubic" and len(size) == 3 and padding_mode != "border":
            continue  # 64 taps: compiled once
        x = reference.normal(0, 2, *size, 3)
        grid = np.random.default_rng(1).uniform(-3, 3, (2, *output, len(size))).astype(np.float32)
        y = jitted(F.grid_sample, **options)(x, grid)
        close(y, reference.grid_sample(x, grid, **options), err_msg=f"{size}", rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_grid_of_the_elements_reads_x_itself(method, align_corners):
    x = reference.normal(0, 2, 5, 4, 3)
    axes = [np.linspace(-1, 1, n) * (1 if align_corners else 1 - 1 / n) for n in (5, 4)]
    y, x_ = np.meshgrid(*axes, indexing="ij")
    grid = np.broadcast_to(np.stack([x_, y], axis=-1), (2, 5, 4, 2)).astype(np.float32)
    close(F.grid_sample(x, grid, method=method, align_corners=align_corners), x)


def test_a_line_of_positions_is_resize():
    x = reference.normal(0, 1, 6, 3)
    grid = np.linspace(-1, 1, 11, dtype=np.float32).reshape(1, 11, 1)
    for method in ("bilinear", "bicubic"):
        y = F.grid_sample(x, grid, method=method, padding_mode="border", align_corners=True)
        close(y, F.resize(x, (11,), method=method, align_corners=True))


def test_nearest_rounds_half_way_positions_to_the_even_element():
    x = jnp.arange(1.0, 6.0).reshape(1, 5, 1)
    grid = (jnp.array([-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]) / 2 - 1).reshape(1, 6, 1)
    y = F.grid_sample(x, grid, method="nearest", align_corners=True)
    np.testing.assert_array_equal(y.ravel(), [1, 1, 3, 3, 5, 5])


@pytest.mark.parametrize("method", METHODS)
def test_positions_far_away_infinite_or_nan(method):
    x = reference.normal(0, 1, 4, 5, 2)
    grid = np.array([[1e30, 0], [-np.inf, 0], [0, np.inf], [np.nan, 0]], np.float32)[None]
    zeros = F.grid_sample(x, grid, method=method)
    np.testing.assert_array_equal(zeros[0, :3], 0)
    assert np.isnan(zeros[0, 3]).all()
    border = F.grid_sample(x, grid, method=method, padding_mode="border")
    corners = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)[None]
    ends = F.grid_sample(x, corners, method=method, padding_mode="border", align_corners=True)
    close(border[0, :3], ends[0])
    assert np.isnan(border[0, 3]).all()


def test_an_inf_in_x_is_not_read_from_outside():
    x = reference.normal(0, 1, 4, 5, 2)
    x[:, 0, 0] = np.inf
    beyond = np.array([[-1.9, -1.9], [3.0, 3.0]], np.float32)[None]
    np.testing.assert_array_equal(F.grid_sample(x, beyond), 0)


def test_the_gradient_of_a_grid_stops_at_the_border():
    x = reference.normal(0, 1, 4, 5, 2)
    grid = jnp.array([[-1.0, 0.1], [0.2, 1.0], [1.7, 0.3]])[None]

    def gradient(**options):
        return jax.grad(lambda grid: F.grid_sample(x, grid, align_corners=True, **options).sum())(grid)[0]

    for mode in ("border", "reflection"):
        zero = gradient(padding_mode=mode) == 0
        np.testing.assert_array_equal(zero[:2], [[True, False], [False, True]])
    assert gradient(padding_mode="border")[2, 0] == 0 != gradient(padding_mode="reflection")[2, 0]
    assert (gradient(method="nearest") == 0).all()


def test_a_grid_may_be_wider_or_narrower_than_x():
    x, grid = reference.normal(0, 2, 4, 5, 2), np.random.default_rng(1).uniform(-1, 1, (2, 3, 2))
    narrow = jnp.asarray(grid, jnp.bfloat16)
    y = F.grid_sample(x, narrow)
    assert y.dtype == jnp.float32
    chex.assert_trees_all_equal(y, F.grid_sample(x, narrow.astype(jnp.float32)))
    half = F.grid_sample(jnp.asarray(x, jnp.bfloat16), grid.astype(np.float32))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), reference.grid_sample(x, grid), atol=0.03)


# pixel_shuffle


@pytest.mark.parametrize("spatial, factor", [((5,), 3), ((3, 4), 2), ((2, 3), 1), ((2, 1, 3), 2)])
def test_pixel_shuffle_is_its_formula_and_unshuffle_its_inverse(spatial, factor):
    channels = 2
    x = reference.normal(0, 2, *spatial, channels * factor ** len(spatial))
    y = F.pixel_shuffle(x, factor)
    assert y.shape == (2, *(n * factor for n in spatial), channels)
    for place in np.ndindex(*y.shape[1:-1]):
        block, within = tuple(np.floor_divide(place, factor)), np.mod(place, factor)
        for c in range(channels):
            channel = functools.reduce(lambda number, digit: number * factor + digit, within, c)
            np.testing.assert_array_equal(y[:, *place, c], x[:, *block, channel])
    np.testing.assert_array_equal(F.pixel_unshuffle(y, factor), x)


def test_nearest_copies_and_doubles_whatever_the_scale_says():
    x = jnp.asarray(reference.normal(0, 1, 4, 2))
    np.testing.assert_array_equal(F.resize(x, (4,), method="nearest", scale=1.2), x)
    np.testing.assert_array_equal(F.resize(x, (8,), method="nearest", scale=2.2), x.repeat(2, axis=1))
