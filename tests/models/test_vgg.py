"""VGG: its taps, its tables, its options, its initial values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.vgg import VGG, VGGS, vgg
from jaxcnn.nn import BatchNorm, Conv
from tests.nn.filled import filled
from tests.reference import normal


def small(**options: Any) -> VGG:
    return VGG((1, 2), (4, 5), hidden=8, num_classes=3, rngs=nnx.Rngs(0), **options)


def test_tap_shapes():
    x = jnp.zeros((2, 70, 45, 3))
    found = nnx.eval_shape(lambda: vgg("vgg13", rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "conv1_1": (70, 45, 64),
        "conv1_2": (70, 45, 64),
        "max_pool1": (35, 22, 64),
        "conv2_1": (35, 22, 128),
        "conv2_2": (35, 22, 128),
        "max_pool2": (17, 11, 128),
        "conv3_1": (17, 11, 256),
        "conv3_2": (17, 11, 256),
        "max_pool3": (8, 5, 256),
        "conv4_1": (8, 5, 512),
        "conv4_2": (8, 5, 512),
        "max_pool4": (4, 2, 512),
        "conv5_1": (4, 2, 512),
        "conv5_2": (4, 2, 512),
        "max_pool5": (2, 1, 512),
        "fc6": (4096,),
        "fc7": (4096,),
        "logits": (1000,),
    }


@pytest.mark.parametrize("name", VGGS)
def test_a_name_counts_the_layers_with_weights(name):
    model = nnx.eval_shape(lambda: vgg(name, rngs=nnx.Rngs(0)))
    modules = [module for _, module in nnx.iter_modules(model)]
    norms = sum(isinstance(module, BatchNorm) for module in modules)
    layers = sum(isinstance(module, Conv | nnx.Linear) for module in modules)
    number, _, suffix = name.removeprefix("vgg").partition("_")
    assert layers == int(number)
    assert norms == (int(number) - 3 if suffix else 0)


def test_taps_are_after_the_relu_and_batch_normalisation_is_before_it():
    model = filled(lambda: small(batch_norm=True))
    x = normal(0, 3, 18, 13, 3)
    layer = model.groups[0][0]
    scale, bias = np.asarray(layer.norm.scale[...]), np.asarray(layer.norm.bias[...])
    convolved = np.asarray(layer.conv(x))
    centred = convolved - convolved.mean(axis=(0, 1, 2))
    normalised = scale * centred / np.sqrt(convolved.var(axis=(0, 1, 2)) + 1e-5) + bias
    found = model.features(x, ("conv1_1",))["conv1_1"]
    np.testing.assert_allclose(found, np.maximum(normalised, 0), rtol=1e-4, atol=1e-4)
    assert (np.asarray(found) == 0).any()


def test_batch_normalisation_leaves_nothing_to_the_biases_before_it():
    # The loss does not see them in training; torchvision's state dicts have them all the same.
    model = filled(lambda: small(batch_norm=True, dropout=0.0))
    x = normal(0, 3, 18, 13, 3)
    expected = np.asarray(model(x))
    for layers in model.groups:
        for layer in layers:
            layer.conv.bias[...] += 1.0
    np.testing.assert_allclose(model(x), expected, rtol=1e-3, atol=1e-3)


def test_dropout_acts_after_both_fully_connected_layers_in_training_alone():
    model = filled(lambda: small(dropout=1.0))
    x = normal(0, 2, 18, 13, 3)
    found = model.features(x)
    assert found["max_pool2"].any()
    assert not found["fc3"].any()
    assert not found["fc4"].any()
    model.eval()
    found = model.features(x)
    assert found["fc3"].any()
    assert found["fc4"].any()


def test_the_default_rate_is_torchvisions_and_none_needs_no_dropout_stream():
    model = nnx.eval_shape(lambda: vgg("vgg11", rngs=nnx.Rngs(0)))
    assert [dropout.rate for dropout in model.dropouts] == [0.5, 0.5]
    without = nnx.eval_shape(lambda: vgg("vgg11", dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not jax.tree.leaves(nnx.state(without, nnx.RngState))


def test_initial_values_are_those_of_the_docstring():
    model = nnx.jit(lambda: VGG((2,), (32,), hidden=64, num_classes=200, rngs=nnx.Rngs(0)))()
    np.testing.assert_allclose(model.groups[0][1].conv.kernel[...].std(), np.sqrt(2 / (9 * 32)), rtol=0.03)
    # On the fan-out: the first convolution, of 3 channels to 32, is drawn like the second one.
    np.testing.assert_allclose(model.groups[0][0].conv.kernel[...].std(), np.sqrt(2 / (9 * 32)), rtol=0.1)
    for layer in (model.hidden1, model.hidden2, model.output):
        np.testing.assert_allclose(layer.kernel[...].std(), 0.01, rtol=0.05)
        assert layer.bias is not None and not layer.bias[...].any()


@pytest.mark.parametrize(("size", "fits"), [((32, 32), True), ((31, 40), False), ((40, 31), False)])
def test_the_smallest_images(size, fits):
    model = nnx.eval_shape(lambda: vgg("vgg11", rngs=nnx.Rngs(0)))
    run = lambda: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model)  # noqa: E731
    if fits:
        assert run().shape == (2, 1000)
    else:
        with pytest.raises(ValueError, match=r"^max_pool: window \(2, 2\) .* of spatial axis \d, "):
            run()


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match="^vgg: unknown name 'vgg12'; did you mean \"vgg1[0-9]\"\\? there are vgg11"
    ):
        vgg("vgg12", rngs=nnx.Rngs(0))
    message = r"^VGG: depths and channels must have one positive int for each group, got depths="
    for depths, channels in (((1, 2), (4,)), ((), ()), ((1, 0), (4, 8))):
        with pytest.raises(ValueError, match=message):
            VGG(depths, channels, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: small(dropout=-0.5))
