"""The MLP against NumPy, its dropout, its messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import MLP
from jaxcnn.nn import set_random_keys
from tests.nn.filled import filled
from tests.reference import normal


def test_logits_are_the_matrix_products_of_the_flattened_pixels():
    model = filled(
        lambda: MLP(hidden=(12, 8), input_size=(5, 4), num_classes=3, in_channels=2, rngs=nnx.Rngs(0))
    )
    x = normal(0, 6, 5, 4, 2)
    value = x.reshape(6, 40)
    for layer in model.hidden:
        value = np.maximum(value @ np.array(layer.kernel[...]) + np.array(layer.bias[...]), 0)
    value = value @ np.array(model.output.kernel[...]) + np.array(model.output.bias[...])
    np.testing.assert_allclose(model(x), value, rtol=1e-5, atol=1e-5)


def test_no_hidden_layer_is_the_linear_classifier():
    model = filled(lambda: MLP(hidden=(), input_size=(5, 4), rngs=nnx.Rngs(0)))
    assert model.taps == ("flatten", "logits")
    a, b = normal(0, 2, 5, 4, 1), normal(1, 2, 5, 4, 1)
    zero = model(np.zeros_like(a))
    np.testing.assert_allclose(model(a + b) - zero, model(a) + model(b) - 2 * zero, rtol=1e-4, atol=1e-5)


def test_dropout_acts_after_each_hidden_layer_in_training_alone():
    model = filled(lambda: MLP(hidden=(64, 32), dropout=0.5, input_size=(5, 4), rngs=nnx.Rngs(0)))
    x = normal(0, 6, 5, 4, 1)
    model.eval()
    expected = jax.tree.map(np.asarray, model.features(x))
    model.train()
    keys = jax.random.split(jax.random.key(0), 6)
    set_random_keys(model, keys)
    found = jax.tree.map(np.asarray, model.features(x))
    kept = found["hidden1"] != 0
    np.testing.assert_allclose(found["hidden1"][kept], 2 * expected["hidden1"][kept], rtol=1e-5)
    alive = expected["hidden1"] > 0
    assert 0.4 < kept.sum() / alive.sum() < 0.6
    assert (found["hidden2"] == 0).mean() > (expected["hidden2"] == 0).mean()
    set_random_keys(model, keys[2:4])
    np.testing.assert_allclose(model(x[2:4]), found["logits"][2:4], rtol=1e-5, atol=1e-6)


def test_without_dropout_no_dropout_stream_is_needed():
    model = nnx.eval_shape(lambda: MLP(hidden=(4,), input_size=(2, 2), rngs=nnx.Rngs(params=0)))
    assert not jax.tree.leaves(nnx.state(model, nnx.RngState))


def test_hidden_layers_start_by_hes_rule_on_the_fan_in():
    kernel = MLP(hidden=(256,), input_size=(16, 16), rngs=nnx.Rngs(0)).hidden[0].kernel[...]
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / 256), rtol=0.03)


def test_errors_name_the_argument(unchecked):
    with pytest.raises(ValueError, match="^MLP: hidden must be at least 1, got 0"):
        MLP(hidden=(8, 0), rngs=nnx.Rngs(0))
    bad: Any = (28, 28, 1)
    with pytest.raises(ValueError, match=r"^MLP: input_size must be an int or a tuple of 2 ints"):
        MLP(input_size=bad, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        MLP(dropout=1.5, rngs=nnx.Rngs(0))
    model = nnx.eval_shape(lambda: MLP(rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="^MLP: x must have height and width 28 x 28, got 32 x 32"):
        model(normal(0, 2, 32, 32, 1))
