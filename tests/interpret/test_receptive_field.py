import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.functional import global_avg_pool
from jaxcnn.interpret.receptive_field import effective_receptive_field
from jaxcnn.models.classifier import Classifier
from jaxcnn.nn import Conv
from tests.reference import normal


class Chain(Classifier):
    """Convolutions, linear or with relus, then the mean and the logits."""

    def __init__(self, *convolutions, activation=lambda x: x):
        super().__init__(num_classes=2, in_channels=convolutions[0].kernel.shape[2], dtype=None)
        self.convolutions = nnx.List(convolutions)
        self.output = nnx.Linear(convolutions[-1].kernel.shape[3], 2, rngs=nnx.Rngs(0))
        self.activation = activation

    def stages(self):
        convolutions = [
            (f"conv{i}", lambda x, layer=layer: self.activation(layer(x)))
            for i, layer in enumerate(self.convolutions, 1)
        ]
        return [*convolutions, ("mean", global_avg_pool), ("logits", self.output)]


def field_of(model, tap, images=3, shape=(13, 10)):
    return np.asarray(effective_receptive_field(jax.random.key(0), model, tap, shape=shape, images=images))


def test_of_one_convolution_it_is_the_kernel():
    """The gradient of the sum over the filters is the sum of the kernels, wherever and whatever the image."""
    layer = Conv(2, 4, (3, 5), stride=2, padding=(1, 2), rngs=nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...])
    expected = np.zeros((13, 10))
    # The map is 7 x 5; its central unit (3, 2) reads from row 3 * 2 - 1 and column 2 * 2 - 2.
    expected[5:8, 2:7] = np.abs(kernel.sum(-1)).sum(-1)
    np.testing.assert_allclose(
        field_of(Chain(layer), "conv1"), expected / expected.sum(), rtol=1e-5, atol=1e-8
    )


def test_of_two_linear_convolutions_it_is_their_convolution():
    rngs = nnx.Rngs(0)
    first, second = Conv(1, 3, (3, 2), rngs=rngs), Conv(3, 2, (2, 3), rngs=rngs)
    inner, outer = np.asarray(first.kernel[...]), np.asarray(second.kernel[...]).sum(-1)
    expected = np.zeros((13, 10))
    # Maps of 11 x 9 and 10 x 7, so that the unit is (5, 3).
    for i, j, k in np.ndindex(outer.shape):
        expected[5 + i : 8 + i, 3 + j : 5 + j] += inner[:, :, 0, k] * outer[i, j, k]
    expected = np.abs(expected)
    found = field_of(Chain(first, second), "conv2")
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-4, atol=1e-7)


def test_with_relus_it_is_the_mean_over_the_images():
    rngs = nnx.Rngs(1)
    first, second = Conv(2, 3, 3, padding=1, rngs=rngs), Conv(3, 2, 3, padding=1, rngs=rngs)
    model = Chain(first, second, activation=jax.nn.relu)
    expected = np.zeros((7, 6))
    for key in jax.random.split(jax.random.key(0), 3):
        x = np.asarray(jax.random.normal(key, (1, 7, 6, 2)))[0]
        expected += np.abs(gradient_of_the_centre(first, second, x)).sum(-1)
    found = field_of(model, "conv2", images=3, shape=(7, 6))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-4, atol=1e-6)


def gradient_of_the_centre(first, second, x):
    """Backward through relu, convolution, relu, convolution of padding 1, by hand, from the unit (3, 3)."""
    inner, outer = (np.asarray(layer.kernel[...], float) for layer in (first, second))
    padded = np.pad(x.astype(float), ((1, 1), (1, 1), (0, 0)))
    hidden = np.stack(
        [
            [np.tensordot(padded[i : i + 3, j : j + 3], inner, 3) for j in range(x.shape[1])]
            for i in range(x.shape[0])
        ]
    )
    active = np.pad(np.maximum(hidden, 0), ((1, 1), (1, 1), (0, 0)))
    on = np.tensordot(active[3:6, 3:6], outer, 3) > 0
    backward = outer @ on.astype(float)  # to the hidden units [2:5, 2:5]
    gradient = np.zeros_like(padded)
    for i, j in np.ndindex(3, 3):
        passed = backward[i, j] * (hidden[2 + i, 2 + j] > 0)
        gradient[2 + i : 5 + i, 2 + j : 5 + j] += inner @ passed
    return gradient[1:-1, 1:-1]


def test_a_unit_that_is_never_active_sees_nothing():
    layer = Conv(1, 2, 3, rngs=nnx.Rngs(0))
    layer.bias = nnx.Param(jnp.full(2, -1e6))
    assert not field_of(Chain(layer, activation=jax.nn.relu), "conv1").any()


def test_it_lies_in_the_middle_of_the_theoretical_one():
    """Luo et al., section 2.2: equal kernels in a deep chain give a binomial, which is nearly Gaussian."""
    layers = [Conv(1, 1, 3, padding=1, rngs=nnx.Rngs(0)) for _ in range(6)]
    for layer in layers:
        layer.kernel.set_value(jnp.full((3, 3, 1, 1), 1 / 9))
    found = field_of(Chain(*layers), "conv6", images=1, shape=(13, 15))
    binomial = np.array([1.0])
    for _ in layers:
        binomial = np.convolve(binomial, np.ones(3) / 3)
    np.testing.assert_allclose(found[:, 1:14], np.outer(binomial, binomial), rtol=1e-4, atol=1e-8)


def test_the_model_stays_in_training():
    model = Chain(Conv(1, 2, 3, rngs=nnx.Rngs(0)))
    kernel = np.asarray(model.convolutions[0].kernel[...])
    field_of(model, "conv1")
    np.testing.assert_array_equal(model.convolutions[0].kernel[...], kernel)


def test_only_what_the_tap_needs_has_to_take_the_images():
    layers = [Conv(1, 2, 3, rngs=nnx.Rngs(0)), Conv(2, 2, 9, rngs=nnx.Rngs(0))]
    found = field_of(Chain(*layers), "conv1", shape=(8, 9))  # too small for the second one
    assert (found > 0).sum() == 9


def test_what_is_refused(unchecked):
    model, key = Chain(Conv(1, 2, 3, rngs=nnx.Rngs(0))), jax.random.key(0)
    name = "effective_receptive_field"
    with pytest.raises(ValueError, match=rf"{name}: unknown tap 'conv9'; this model has conv1, mean, logits"):
        effective_receptive_field(key, model, "conv9", shape=(8, 9))
    with pytest.raises(ValueError, match=rf"{name}: tap must be a stage with spatial axes, got 'mean'"):
        effective_receptive_field(key, model, "mean", shape=(8, 9))
    with pytest.raises(ValueError, match=rf"{name}: shape must be at least 1, got \(8, 0\)"):
        effective_receptive_field(key, model, "conv1", shape=(8, 0))
    with pytest.raises(ValueError, match=rf"{name}: images must be at least 1, got 0"):
        effective_receptive_field(key, model, "conv1", shape=(8, 9), images=0)
    with pytest.raises(TypeError, match=rf"{name}: key must come from jax.random.key, got int"):
        effective_receptive_field(0, model, "conv1", shape=(8, 9))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=rf"{name}: key must have shape \(\) \(one key\), got \(2,\)"):
        effective_receptive_field(jax.random.split(key), model, "conv1", shape=(8, 9))
    with pytest.raises(TypeError, match=rf"{name}: model must be a jaxcnn classifier"):
        effective_receptive_field(key, normal, "conv1", shape=(8, 9))  # pyright: ignore[reportArgumentType]
