"""SqueezeNet: its taps, its fire module, its options, its initial values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.squeezenet import Fire, SqueezeNet, squeezenet
from tests.nn.filled import filled
from tests.reference import normal


def small(**options: Any) -> SqueezeNet:
    return SqueezeNet(4, 3, ((1,), (2, 1)), num_classes=3, rngs=nnx.Rngs(0), **options)


def tap_shapes(name):
    x = jnp.zeros((2, 95, 70, 3))
    found = nnx.eval_shape(lambda: squeezenet(name, rngs=nnx.Rngs(0)).features(x))
    return {name: value.shape[1:] for name, value in found.items()}


def test_tap_shapes_of_the_papers_network():
    assert tap_shapes("squeezenet1_0") == {
        "conv1": (45, 32, 96),
        "max_pool1": (22, 16, 96),
        "fire2": (22, 16, 128),
        "fire3": (22, 16, 128),
        "fire4": (22, 16, 256),
        "max_pool4": (11, 8, 256),
        "fire5": (11, 8, 256),
        "fire6": (11, 8, 384),
        "fire7": (11, 8, 384),
        "fire8": (11, 8, 512),
        "max_pool8": (5, 4, 512),  # 8 is one element short of 4 windows: ceil_mode
        "fire9": (5, 4, 512),
        "conv10": (5, 4, 1000),
        "logits": (1000,),
    }


def test_the_successor_pools_earlier():
    shapes = tap_shapes("squeezenet1_1")
    assert [name for name in shapes if "pool" in name] == ["max_pool1", "max_pool3", "max_pool5"]
    assert shapes["conv1"] == (47, 34, 64)
    assert shapes["fire9"] == (5, 4, 512)


def test_a_fire_module_has_the_1x1_convolution_first_and_its_relus():
    fire = filled(lambda: Fire(5, 2, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 6, 4, 5)
    squeezed = np.maximum(x @ np.asarray(fire.squeeze.kernel[0, 0]) + np.asarray(fire.squeeze.bias[...]), 0)
    expected = squeezed @ np.asarray(fire.expand1x1.kernel[0, 0]) + np.asarray(fire.expand1x1.bias[...])
    y = np.asarray(fire(x))
    assert y.shape == (2, 6, 4, 16)
    np.testing.assert_allclose(y[..., :8], np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
    expected = np.asarray(fire.expand3x3(jnp.asarray(squeezed)))
    np.testing.assert_allclose(y[..., 8:], np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
    assert (expected < 0).any()


def test_logits_are_the_means_of_the_class_maps():
    model = filled(small)
    model.eval()
    found = model.features(normal(0, 2, 31, 22, 3))
    maps = np.asarray(found["conv5"])
    assert maps.shape[1:] == (3, 2, 3)
    assert maps.min() == 0
    np.testing.assert_allclose(found["logits"], maps.mean(axis=(1, 2)), rtol=1e-5)


def test_dropout_acts_before_the_class_maps_in_training_alone():
    model = filled(lambda: small(dropout=1.0))
    x = normal(0, 2, 31, 22, 3)
    relu_of_bias = np.maximum(np.asarray(model.output.bias[...]), 0)
    expected = np.broadcast_to(relu_of_bias, (2, 3, 2, 3))
    np.testing.assert_array_equal(model.features(x, ("conv5",))["conv5"], expected)
    model.eval()
    assert np.abs(np.asarray(model.features(x, ("conv5",))["conv5"]) - expected).max() > 0.01


def test_the_default_rate_is_torchvisions_and_none_needs_no_dropout_stream():
    dropout = nnx.eval_shape(lambda: squeezenet("squeezenet1_0", rngs=nnx.Rngs(0))).dropout
    assert dropout is not None and dropout.rate == 0.5
    without = nnx.eval_shape(lambda: squeezenet("squeezenet1_0", dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not jax.tree.leaves(nnx.state(without, nnx.RngState))


def test_initial_values_are_those_of_the_docstring():
    model = nnx.jit(lambda: SqueezeNet(64, 3, ((32,),), num_classes=50, rngs=nnx.Rngs(0)))()
    fire = model.groups[0][0]
    for layer, fan_in in ((model.stem, 27), (fire.squeeze, 64), (fire.expand1x1, 32), (fire.expand3x3, 288)):
        kernel = np.asarray(layer.kernel[...])
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.05)
        np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(6 / fan_in), rtol=0.02)
    np.testing.assert_allclose(model.output.kernel[...].std(), 0.01, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "size", "fits"),
    [
        ("squeezenet1_0", (21, 30), True),
        ("squeezenet1_0", (30, 20), False),
        ("squeezenet1_1", (17, 30), True),
        ("squeezenet1_1", (16, 30), False),
    ],
)
def test_the_smallest_images(name, size, fits):
    model = nnx.eval_shape(lambda: squeezenet(name, rngs=nnx.Rngs(0)))
    run = lambda: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model)  # noqa: E731
    if fits:
        assert run().shape == (2, 1000)
    else:
        with pytest.raises(ValueError, match=r"^max_pool: window \(3, 3\) .* of spatial axis \d, "):
            run()


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match="^squeezenet: unknown name 'squeezenet'; did you mean \"squeezenet1_"
    ):
        squeezenet("squeezenet", rngs=nnx.Rngs(0))
    for fires in ((), ((1,), ())):
        with pytest.raises(ValueError, match="^SqueezeNet: fires must be groups of one int or more, got "):
            SqueezeNet(4, 3, fires, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: small(dropout=2.0))
