"""Each augmentation against its definition, in loops of NumPy, and the uniformity of what it draws."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import cutmix, cutout, mixup, random_crop, random_flip

BATCH, HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 5, 7, 3, 4


def jit(augment):
    """Compiled, the options static; eager calls are compared in a test of their own."""
    options = [name for name in inspect.signature(augment).parameters if name in ("pad", "size", "alpha")]
    return jax.jit(augment, static_argnames=options)


def random_images(seed=0, batch=BATCH, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), (batch, HEIGHT, WIDTH, CHANNELS), dtype) + 10  # no zeros


def random_targets(seed=1, batch=BATCH):
    return jax.nn.softmax(jax.random.normal(jax.random.key(seed), (batch, CLASSES)))


AUGMENTATIONS = {
    "random_crop": functools.partial(random_crop, pad=2),
    "random_flip": random_flip,
    "cutout": functools.partial(cutout, size=3),
    "mixup": lambda key, images: mixup(key, images, random_targets(), 0.4),
    "cutmix": lambda key, images: cutmix(key, images, random_targets(), 1.0),
}
COMPILED = {name: jax.jit(augment) for name, augment in AUGMENTATIONS.items()}
each_augmentation = pytest.mark.parametrize("name", list(AUGMENTATIONS))
per_example = pytest.mark.parametrize("name", ["random_crop", "random_flip", "cutout"])


def crop_offset(image, crop, pad):
    """The one offset whose window of the padded image is the crop."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    found = [
        (dy, dx)
        for dy in range(2 * pad + 1)
        for dx in range(2 * pad + 1)
        if np.array_equal(padded[dy : dy + image.shape[0], dx : dx + image.shape[1]], crop)
    ]
    assert len(found) == 1, found
    return found[0]


def assert_uniform(counts, total):
    """No count further than five standard deviations from its expectation."""
    p = 1 / len(counts)
    deviation = np.abs(np.array(counts) - total * p)
    assert np.all(deviation < 5 * np.sqrt(total * p * (1 - p))), counts


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_a_crop_is_a_window_of_the_padded_image(pad):
    images = random_images()
    crops = np.asarray(jit(random_crop)(jax.random.key(3), images, pad))
    offsets = {crop_offset(np.asarray(image), crop, pad) for image, crop in zip(images, crops, strict=True)}
    assert len(offsets) > 1 or pad == 0  # drawn for each example


def test_crop_offsets_are_uniform_and_independent():
    pad, total = 1, 1800
    image = random_images(batch=1)
    crops = np.asarray(jit(random_crop)(jax.random.key(4), jnp.tile(image, (total, 1, 1, 1)), pad))
    counts = np.zeros((3, 3), int)
    for crop in crops:
        counts[crop_offset(np.asarray(image[0]), crop, pad)] += 1
    assert_uniform(counts.ravel(), total)


def test_a_flip_mirrors_the_width_of_half_of_the_images():
    total = 2000
    image = np.asarray(random_images(batch=1))
    flipped = np.asarray(jit(random_flip)(jax.random.key(5), jnp.tile(image, (total, 1, 1, 1))))
    mirrored = np.all(flipped == image[:, :, ::-1], axis=(1, 2, 3))
    same = np.all(flipped == image, axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert_uniform([mirrored.sum(), same.sum()], total)


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_cutout_zeroes_one_clipped_square_around_a_uniform_centre(size):
    total = 1400
    images = random_images(batch=total)
    result = np.asarray(jit(cutout)(jax.random.key(6), images, size))
    holes = {}
    for y in range(HEIGHT):
        for x in range(WIDTH):
            hole = np.zeros((HEIGHT, WIDTH), bool)
            for i in range(y - size // 2, y - size // 2 + size):
                for j in range(x - size // 2, x - size // 2 + size):
                    if 0 <= i < HEIGHT and 0 <= j < WIDTH:
                        hole[i, j] = True
            holes[y, x] = hole
    counts = dict.fromkeys((hole.tobytes() for hole in holes.values()), 0)
    for image, cut in zip(np.asarray(images), result, strict=True):
        hole = np.all(cut == 0, axis=-1)
        counts[hole.tobytes()] += 1  # a KeyError where the hole is no such square
        np.testing.assert_array_equal(cut[~hole], image[~hole])
    if size <= 3:  # each centre gives a hole of its own
        assert len(counts) == HEIGHT * WIDTH
        assert_uniform(list(counts.values()), total)


def mixed_pairs(images, mixed):
    """For each example the partner that explains its image as a blend, and the weight of the example."""
    for n, image in enumerate(images):
        errors = []
        for partner in images:
            difference = (image - partner).ravel()
            square = difference @ difference
            weight = 1.0 if square == 0 else (mixed[n] - partner).ravel() @ difference / square
            errors.append((np.abs(weight * image + (1 - weight) * partner - mixed[n]).max(), weight))
        partner = int(np.argmin([error for error, _ in errors]))
        yield n, partner, *errors[partner]


def test_mixup_blends_images_and_targets_with_one_weight_for_each_example():
    images, targets = random_images(batch=8), random_targets(batch=8)
    mixed, soft = map(np.asarray, jit(mixup)(jax.random.key(7), images, targets, 1.0))
    images, targets = np.asarray(images, np.float64), np.asarray(targets, np.float64)
    partners, weights = set(), []
    for n, partner, error, weight in mixed_pairs(images, mixed):
        assert error < 2e-5
        if partner != n:
            assert -1e-5 <= weight <= 1 + 1e-5
            np.testing.assert_allclose(
                soft[n], weight * targets[n] + (1 - weight) * targets[partner], atol=1e-5
            )
            weights.append(weight)
        else:
            np.testing.assert_allclose(soft[n], targets[n], atol=1e-5)
        partners.add(partner)
    assert partners == set(range(8))  # a permutation
    assert np.std(weights) > 0.05  # not one weight for the batch


@pytest.mark.parametrize("alpha", [0.1, 4.0])
def test_mixup_weights_follow_the_beta_distribution(alpha):
    total = 2000
    images = jnp.zeros((total, 1, 1, 1))
    _, soft = jit(mixup)(jax.random.key(8), images, jnp.eye(total), alpha)
    weights = np.diag(np.asarray(soft, np.float64))  # one hot: the weight of the example itself
    assert np.all((weights >= 0) & (weights <= 1))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 5 * np.sqrt(variance / total)
    assert abs(weights.var() - variance) < 0.1 * variance


def test_cutmix_pastes_a_rectangle_and_blends_targets_by_its_area():
    batch = 64
    images, targets = random_images(batch=batch), jnp.eye(batch)
    mixed, soft = map(np.asarray, jit(cutmix)(jax.random.key(9), images, targets, 1.0))
    images = np.asarray(images)
    areas = []
    for n in range(batch):
        pasted = np.any(mixed[n] != images[n], axis=-1)
        area = pasted.mean()
        areas.append(area)
        if area == 0:
            np.testing.assert_allclose(soft[n, n], 1.0, atol=1e-6)
            continue
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert pasted.sum() == len(rows) * len(columns)
        (partner,) = [k for k in range(batch) if np.array_equal(images[k][pasted], mixed[n][pasted])]
        expected = np.zeros(batch)
        expected[n], expected[partner] = 1 - area, area
        np.testing.assert_allclose(soft[n], expected, atol=1e-6)
    assert len(set(areas)) > 10
    # E[(1 - l)] = 1/2 before rounding down and cutting off at the border
    assert 0.1 < np.mean(areas) < 0.5


def test_cutmix_boxes_have_the_sides_of_the_paper():
    total, height, width = 3000, 40, 20
    images = jnp.arange(total, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, height, width, 1))
    mixed, _ = jit(cutmix)(jax.random.key(10), images, jnp.zeros((total, 1)), 1.0)
    pasted = np.any(np.asarray(mixed) != np.asarray(images), axis=-1)
    rows, columns = pasted.any(2), pasted.any(1)
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & pasted.any((1, 2))
    assert inside.sum() > 200
    ratio = rows.sum(1)[inside] / height - columns.sum(1)[inside] / width
    assert np.all(
        np.abs(ratio) <= 1 / width + 1e-6
    )  # height : width is that of the image, up to rounding down


@each_augmentation
def test_jit_equals_eager(name):
    images = random_images()
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        COMPILED[name](jax.random.key(11), images),
        AUGMENTATIONS[name](jax.random.key(11), images),
    )


@each_augmentation
def test_vmap_equals_a_loop(name):
    images = jnp.stack([random_images(seed) for seed in range(3)])
    keys = jax.random.split(jax.random.key(12), 3)
    looped = [COMPILED[name](key, x) for key, x in zip(keys, images, strict=True)]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        jax.jit(jax.vmap(AUGMENTATIONS[name]))(keys, images),
        jax.tree.map(lambda *xs: jnp.stack(xs), *looped),
    )


@each_augmentation
def test_shape_and_dtype_stay(name):
    for dtype in (jnp.float16, jnp.bfloat16):
        images = jax.ShapeDtypeStruct((BATCH, HEIGHT, WIDTH, CHANNELS), dtype)
        result = jax.tree.leaves(jax.eval_shape(AUGMENTATIONS[name], jax.random.key(13), images))[0]
        assert (result.shape, result.dtype) == (images.shape, dtype)


@each_augmentation
def test_another_key_gives_another_result(name):
    images = random_images()
    first, again, other = (
        jax.tree.leaves(COMPILED[name](jax.random.key(seed), images))[0] for seed in (14, 14, 15)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_raw_key_is_taken():
    images = random_images()
    np.testing.assert_array_equal(
        random_flip(jax.random.PRNGKey(14), images), random_flip(jax.random.key(14), images)
    )


@per_example
def test_with_a_key_for_each_example_the_rest_of_the_batch_does_not_matter(name):
    images = random_images()
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(16), jnp.arange(BATCH))
    single = [COMPILED[name](keys[i : i + 1], images[i : i + 1]) for i in range(BATCH)]
    np.testing.assert_array_equal(COMPILED[name](keys, images), jnp.concatenate(single))


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_what_cannot_be_mixed_is_refused_by_name(mix, unchecked):
    key, images, targets = jax.random.key(0), random_images(), random_targets()
    name = mix.__name__
    with pytest.raises(ValueError, match=f"{name}: alpha must be a positive number, got 0.0"):
        mix(key, images, targets, 0.0)
    with pytest.raises(
        ValueError, match=rf"{name}: targets must have shape \(batch, classes\) = \(6, classes\)"
    ):
        mix(key, images, jnp.zeros((5, CLASSES)), 1.0)
    with pytest.raises(
        ValueError, match=rf"{name}: targets .* got \(6,\); labels become targets by jax.nn.one_hot"
    ):
        mix(key, images, jnp.zeros(6, jnp.int32), 1.0)
    with pytest.raises(TypeError, match=f"{name}: targets must have a floating dtype, got int32"):
        mix(key, images, jnp.zeros((6, CLASSES), jnp.int32), 1.0)
    with pytest.raises(ValueError, match=rf"{name}: key must be one key .* got keys of shape \(6,\)"):
        mix(jax.random.split(key, 6), images, targets, 1.0)


@each_augmentation
def test_wrong_images_and_keys_are_refused_by_name(name, unchecked):
    augment, images = AUGMENTATIONS[name], random_images()
    with pytest.raises(TypeError, match="images must have a floating dtype, got uint8"):
        augment(jax.random.key(0), jnp.zeros(images.shape, jnp.uint8))
    with pytest.raises(
        ValueError, match=r"images must have shape \(batch, height, width, channels\).*images\[None\]"
    ):
        augment(jax.random.key(0), images[0])
    with pytest.raises(TypeError, match=r"key must come from jax\.random\.key, got int"):
        augment(0, images)
    with pytest.raises(TypeError, match=r"key must come from jax\.random\.key, got float32"):
        augment(jnp.zeros(2), images)


@per_example
def test_a_wrong_number_of_keys_is_refused(name, unchecked):
    with pytest.raises(ValueError, match=r"one for each of the 6 examples, got keys of shape \(4,\)"):
        AUGMENTATIONS[name](jax.random.split(jax.random.key(0), 4), random_images())


def test_wrong_sizes_are_refused(unchecked):
    key, images = jax.random.key(0), random_images()
    with pytest.raises(ValueError, match="random_crop: pad must be at least 0, got -1"):
        random_crop(key, images, -1)
    with pytest.raises(TypeError, match=r"random_crop: pad must be an int, got 1\.5"):
        random_crop(key, images, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cutout: size must be at least 1, got 0"):
        cutout(key, images, 0)
