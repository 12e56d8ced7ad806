"""AlexNet: its taps, its options, its initial values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.alexnet import AlexNet
from tests.nn.filled import filled
from tests.reference import normal


def small(**options: Any) -> AlexNet:
    sizes: Any = {"channels": (4, 5, 6, 7, 8), "hidden": 9, "num_classes": 3}
    return AlexNet(**{**sizes, **options}, rngs=nnx.Rngs(0))


def test_tap_shapes():
    x = jnp.zeros((2, 130, 97, 3))
    found = nnx.eval_shape(lambda: AlexNet(rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "conv1": (31, 23, 64),
        "max_pool1": (15, 11, 64),
        "conv2": (15, 11, 192),
        "max_pool2": (7, 5, 192),
        "conv3": (7, 5, 384),
        "conv4": (7, 5, 256),
        "conv5": (7, 5, 256),
        "max_pool5": (3, 2, 256),
        "fc6": (4096,),
        "fc7": (4096,),
        "logits": (1000,),
    }


def test_dropout_acts_before_both_fully_connected_layers_in_training_alone():
    model = filled(lambda: small(dropout=1.0))
    x = normal(0, 2, 64, 70, 3)
    found = model.features(x, ("fc6", "fc7"))
    for name, layer in (("fc6", model.fc6), ("fc7", model.fc7)):
        relu_of_bias = np.maximum(np.asarray(layer.bias[...]), 0)
        np.testing.assert_array_equal(found[name], np.stack([relu_of_bias, relu_of_bias]))
    model.eval()
    first, second = np.asarray(model.features(x, ("fc6",))["fc6"])
    assert np.abs(first - second).max() > 0.1


def test_the_default_rate_is_torchvisions_and_none_needs_no_dropout_stream():
    model = nnx.eval_shape(lambda: AlexNet(rngs=nnx.Rngs(0)))
    assert [dropout.rate for dropout in model.dropouts] == [0.5, 0.5]
    without = nnx.eval_shape(lambda: AlexNet(dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not jax.tree.leaves(nnx.state(without, nnx.RngState))


def test_initial_values_are_the_papers():
    model = nnx.jit(lambda: small(channels=(48, 24, 24, 24, 24), hidden=48, num_classes=100))()
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "output")
    for name in names:
        np.testing.assert_allclose(getattr(model, name).kernel[...].std(), 0.01, rtol=0.05)
    biases = {name: np.unique(np.asarray(getattr(model, name).bias[...])).tolist() for name in names}
    ones = ("conv2", "conv4", "conv5", "fc6", "fc7")
    assert biases == {name: [1.0] if name in ones else [0.0] for name in names}


@pytest.mark.parametrize(("size", "fits"), [((63, 63), True), ((62, 80), False), ((80, 62), False)])
def test_the_smallest_images(size, fits):
    model = nnx.eval_shape(small)
    run = lambda: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model)  # noqa: E731
    if fits:
        assert run().shape == (2, 3)
    else:
        with pytest.raises(ValueError, match=r"^max_pool: window \(3, 3\) .* of spatial axis \d, "):
            run()


def test_errors_name_the_argument(unchecked):
    with pytest.raises(ValueError, match=r"^AlexNet: channels must be 5 ints, got \(8, 16\)$"):
        small(channels=(8, 16))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: small(dropout=1.5))
    with pytest.raises(ValueError, match="channels_out must be at least 1, got 0"):
        nnx.eval_shape(lambda: small(hidden=0))
