from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.functional import global_avg_pool
from jaxcnn.interpret.feature_maps import feature_maps
from jaxcnn.interpret.maximize import maximize_activation
from jaxcnn.models.classifier import Classifier
from jaxcnn.nn import Conv, Dropout
from tests.reference import normal

KEY = jax.random.key(0)
BARE: dict[str, Any] = dict(jitter=0, blur=0, total_variation=0)  # no regulariser


class Small(Classifier):
    """Two convolutions with a dropout in between, their mean, logits."""

    def __init__(self):
        super().__init__(num_classes=3, in_channels=2, dtype=None)
        rngs = nnx.Rngs(0)
        self.first, self.second = Conv(2, 6, 3, rngs=rngs), Conv(6, 5, 3, rngs=rngs)
        self.dropout = Dropout(0.5, rngs=nnx.Rngs(dropout=1))
        self.output = nnx.Linear(5, 3, rngs=rngs)

    def stages(self):
        return [
            ("first", lambda x: jax.nn.relu(self.first(x))),
            ("second", lambda x: jax.nn.relu(self.second(self.dropout(x)))),
            ("mean", global_avg_pool),
            ("logits", self.output),
        ]


class Template(Classifier):
    """Linear: the logits are the products of x with fixed images of the same size."""

    def __init__(self, templates):
        super().__init__(num_classes=templates.shape[-1], in_channels=templates.shape[-2], dtype=None)
        size, channels = templates.shape[:2], templates.shape[2:]
        self.output = Conv(channels[0], channels[1], size, rngs=nnx.Rngs(0))
        self.output.kernel.set_value(jnp.asarray(templates))

    def stages(self):
        return [("logits", lambda x: self.output(x)[:, 0, 0])]


def maximum(model, tap, channel, **options):
    arguments: dict[str, Any] = dict(shape=(12, 9), key=KEY, steps=30) | options
    return np.asarray(maximize_activation(arguments.pop("key"), model, tap, channel, **arguments))


def activation(model, image, tap, channel):
    value = np.asarray(feature_maps(model, image[None], (tap,))[tap])
    return value[..., channel].mean()


def variation(image):
    return np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum()


@pytest.mark.parametrize(("tap", "channel"), [("second", 1), ("logits", 2)])
def test_the_activation_rises_above_that_of_noise_in_the_whole_range(tap, channel):
    model = Small()
    image = maximum(model, tap, channel, **BARE)
    assert image.shape == (12, 9, 2) and image.dtype == np.float32
    assert np.abs(image).max() <= 2
    noise = np.random.default_rng(0).uniform(-2, 2, (200, 12, 9, 2)).astype(np.float32)
    of_noise = np.asarray(feature_maps(model, noise, (tap,))[tap])[..., channel].reshape(200, -1).mean(1)
    assert activation(model, image, tap, channel) > 1.5 * of_noise.max() > 0


def drawn(templates, **options):
    """For the first template, with no regulariser but those that are given; of one shape, compiled once."""
    assert templates.shape == (9, 11, 2, 1)
    return maximum(Template(templates), "logits", 0, shape=(9, 11), **(BARE | options))


def test_of_a_linear_unit_it_is_the_corner_that_its_weights_point_to():
    templates = normal(0, 9, 11, 2, 1)
    low, high = np.array([-1.0, -0.5]), np.array([0.25, 2.0])
    expected = np.where(templates[..., 0] > 0, high, low)
    np.testing.assert_allclose(drawn(templates, low=low, high=high, steps=60), expected, rtol=0, atol=1e-6)


def test_blur_and_total_variation_make_an_image_smoother():
    templates = normal(0, 9, 11, 2, 1)
    bare = variation(drawn(templates))
    assert variation(drawn(templates, blur=3)) < 0.8 * bare
    assert variation(drawn(templates, total_variation=0.5)) < 0.6 * bare


def test_a_high_price_on_total_variation_leaves_one_colour():
    templates = normal(0, 9, 11, 2, 1)
    start = drawn(templates, steps=1, learning_rate=0)
    even = drawn(templates, steps=200, learning_rate=0.1, total_variation=50)
    assert variation(even) < 0.1 * variation(start)


def test_blur_is_a_gaussian_mean_of_what_lies_in_the_image():
    """One step that moves nothing and blurs once, against a loop."""
    templates = normal(0, 9, 11, 2, 1)
    noise, found = (drawn(templates, steps=1, learning_rate=0, blur=width) for width in (0, 1.3))
    expected = np.zeros_like(noise)
    for i, j in np.ndindex(9, 11):
        rows, columns = np.ogrid[:9, :11]
        weights = np.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * 1.3**2))
        expected[i, j] = np.tensordot(weights / weights.sum(), noise, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_jitter_spreads_what_one_place_asks_for():
    """A unit that looks at the central pixel alone: jitter moves every pixel around it under its eye."""
    templates = np.zeros((9, 11, 2, 1), np.float32)
    templates[4, 5, 0] = 1
    start = drawn(templates, learning_rate=0)
    moved = drawn(templates, jitter=2, steps=300) > start + 1e-3
    expected = np.zeros((9, 11, 2), bool)
    expected[2:7, 3:8, 0] = True
    np.testing.assert_array_equal(moved, expected)


def test_the_key_decides_and_the_model_stays_as_it_is():
    model = Small()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    first, same = (maximum(model, "second", 0, steps=3) for _ in range(2))
    other = maximum(model, "second", 0, steps=3, key=jax.random.key(1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Param)), before)
    assert not model.dropout.deterministic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": "third"}, r"unknown tap 'third'; this model has first, second, mean, logits"),
        ({"channel": 5}, r"channel must be at most 4, got 5"),
        ({"channel": -1}, r"channel must be at least 0, got -1"),
        ({"channel": 1.0}, r"channel must be an int, got 1.0"),
        ({"shape": (12, 9, 2)}, r"shape must be an int or a tuple of 2 ints"),
        ({"steps": 0}, r"steps must be at least 1, got 0"),
        ({"jitter": -1}, r"jitter must be at least 0, got -1"),
        ({"blur": -0.5}, r"blur must be a Python number of at least 0, got -0.5"),
        ({"learning_rate": "fast"}, r"learning_rate must be a Python number of at least 0, got 'fast'"),
        (
            {"total_variation": float("inf")},
            r"total_variation must be a Python number of at least 0, got inf",
        ),
        ({"low": 3.0}, r"low must be less than high, got low=3.0 and high=2.0"),
        ({"high": (1.0, 2.0, 3.0)}, r"high must be one finite number or one for each of the 2 channels"),
        ({"low": float("nan")}, r"low must be one finite number or one for each of the 2 channels, got nan"),
        ({"key": jax.random.split(KEY)}, r"key must have shape \(\) \(one key\), got \(2,\)"),
        ({"key": 0}, r"key must come from jax.random.key, got int"),
    ],
)
def test_what_is_refused(unchecked, options, message):
    arguments: dict[str, Any] = dict(tap="second", channel=0, shape=(12, 9), key=KEY) | options
    with pytest.raises((ValueError, TypeError), match="^maximize_activation: " + message):
        maximize_activation(arguments.pop("key"), Small(), **arguments)
