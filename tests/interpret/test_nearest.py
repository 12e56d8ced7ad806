from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.functional import global_avg_pool
from jaxcnn.interpret.nearest import BATCH, nearest_images
from jaxcnn.models.classifier import Classifier
from jaxcnn.nn import Conv
from tests.reference import normal


class Small(Classifier):
    """One convolution, its mean, logits."""

    def __init__(self):
        super().__init__(num_classes=3, in_channels=2, dtype=None)
        self.conv = Conv(2, 4, (3, 2), rngs=nnx.Rngs(0))
        self.output = nnx.Linear(4, 3, rngs=nnx.Rngs(1))

    def stages(self):
        return [
            ("conv", lambda x: jnp.tanh(self.conv(x))),
            ("mean", global_avg_pool),
            ("logits", self.output),
        ]


def features(model, images):
    kernel, maps = np.asarray(model.conv.kernel[...], float), []
    for image in images.astype(float):
        rows, columns = image.shape[0] - 2, image.shape[1] - 1
        windows = [image[i : i + 3, j : j + 2] for i in range(rows) for j in range(columns)]
        maps.append(np.tanh([np.tensordot(window, kernel, 3) for window in windows]).mean(0))
    return np.array(maps)


# More than one batch, the last of them not full.
IMAGES = normal(0, BATCH + 9, 6, 5, 2)


@pytest.mark.parametrize("tap", ["conv", "mean"])
def test_the_nearest_are_those_of_a_loop(tap):
    model, x = Small(), normal(1, 3, 6, 5, 2)
    indices, distances = nearest_images(model, x, IMAGES, tap=tap, count=4)
    of_images = features(model, IMAGES)
    for query, found, far in zip(features(model, x), np.asarray(indices), np.asarray(distances), strict=True):
        expected = np.sqrt(((of_images - query) ** 2).sum(1))
        assert found.tolist() == np.argsort(expected)[:4].tolist()
        np.testing.assert_allclose(far, np.sort(expected)[:4], rtol=1e-4, atol=1e-7)


def test_an_image_is_nearest_to_itself_in_every_batch():
    model, chosen = Small(), [0, BATCH - 1, BATCH, BATCH + 8]
    indices, distances = nearest_images(model, IMAGES[chosen], IMAGES, tap="logits", count=1)
    assert indices[:, 0].tolist() == chosen
    np.testing.assert_allclose(distances[:, 0], 0, atol=1e-5)


def test_of_equal_images_the_first_comes_first():
    images = np.concatenate([IMAGES[:1]] * 3)
    indices, _ = nearest_images(Small(), IMAGES[5:6], images, tap="conv", count=3)
    assert indices.tolist() == [[0, 1, 2]]


def test_images_may_have_another_size_and_be_fewer_than_a_batch():
    images = normal(2, 4, 9, 7, 2)
    indices, distances = nearest_images(Small(), IMAGES[:2], images, tap="conv", count=4)
    assert sorted(np.asarray(indices)[0].tolist()) == [0, 1, 2, 3]
    expected = np.sqrt(((features(Small(), images) - features(Small(), IMAGES[:1])) ** 2).sum(1))
    np.testing.assert_allclose(distances[0], np.sort(expected), rtol=1e-4, atol=1e-6)


def test_an_empty_batch_has_no_nearest_images():
    indices, distances = nearest_images(Small(), IMAGES[:0], IMAGES, tap="mean", count=2)
    assert indices.shape == distances.shape == (0, 2)


def test_images_may_be_traced():
    model = Small()
    nearest = lambda x, images: nearest_images(model, x, images, tap="mean", count=3)  # noqa: E731
    for found, expected in zip(
        jax.jit(nearest)(IMAGES[:2], IMAGES), nearest(IMAGES[:2], IMAGES), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_refused(unchecked):
    model, name = Small(), "nearest_images"
    listed: Any = [IMAGES[0]]
    with pytest.raises(TypeError, match=f"{name}: images must be a JAX or NumPy array, got list"):
        nearest_images(model, IMAGES[:1], listed, tap="mean")
    with pytest.raises(ValueError, match=rf"{name}: unknown tap 'pool'; this model has conv, mean, logits"):
        nearest_images(model, IMAGES[:1], IMAGES, tap="pool")
    with pytest.raises(ValueError, match=rf"{name}: x must have 2 channels.*got shape \(1, 6, 5, 3\)"):
        nearest_images(model, normal(0, 1, 6, 5, 3), IMAGES, tap="mean")
    with pytest.raises(
        ValueError, match=rf"{name}: images must have shape .*, 2\).*got shape \(7, 6, 5, 1\)"
    ):
        nearest_images(model, IMAGES[:1], normal(0, 7, 6, 5, 1), tap="mean")
    with pytest.raises(ValueError, match=rf"{name}: images must have shape .* got shape \(0, 6, 5, 2\)"):
        nearest_images(model, IMAGES[:1], IMAGES[:0], tap="mean")
    with pytest.raises(TypeError, match=rf"{name}: images must have a floating dtype, got uint8"):
        nearest_images(model, IMAGES[:1], IMAGES.astype(np.uint8), tap="mean")
    with pytest.raises(ValueError, match=rf"{name}: count must be at least 1, got 0"):
        nearest_images(model, IMAGES[:1], IMAGES, tap="mean", count=0)
    with pytest.raises(ValueError, match=rf"{name}: count must be at most 73, got 74"):
        nearest_images(model, IMAGES[:1], IMAGES, tap="mean", count=74)
