"""MobileNetV3: its taps, its options, its initial values, timm's names."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.mobilenet_v3 import MOBILENETS_V3, SMALL, MobileNetV3, mobilenet_v3
from jaxcnn.nn import BatchNorm
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names import mobilenet_v3 as names
from tests.models.torchvision_oracle import torchvision_models

tiny = partial(MobileNetV3, SMALL[:3], 16, num_classes=7)

SHAPES = {
    "mobilenet_v3_large": {
        "stem": (48, 31, 16),
        "stage1": (48, 31, 16),
        "stage2": (24, 16, 24),
        "stage3": (12, 8, 40),
        "stage4": (6, 4, 80),
        "stage5": (6, 4, 112),
        "stage6": (3, 2, 160),
        "conv": (3, 2, 960),
        "avg_pool": (960,),
        "hidden": (1280,),
        "logits": (1000,),
    },
    "mobilenet_v3_small": {
        "stem": (48, 31, 16),
        "stage1": (24, 16, 16),
        "stage2": (12, 8, 24),
        "stage3": (6, 4, 40),
        "stage4": (6, 4, 48),
        "stage5": (3, 2, 96),
        "conv": (3, 2, 576),
        "avg_pool": (576,),
        "hidden": (1024,),
        "logits": (1000,),
    },
}


@pytest.mark.parametrize("name", MOBILENETS_V3)
def test_tap_shapes(name):
    x = jnp.zeros((2, 95, 62, 3))
    found = nnx.eval_shape(lambda: mobilenet_v3(name, rngs=nnx.Rngs(0)).features(x))
    assert {tap: value.shape[1:] for tap, value in found.items()} == SHAPES[name]


@pytest.mark.parametrize("name", MOBILENETS_V3)
@pytest.mark.parametrize("width", [0.5, 1.25])
def test_channels_of_other_widths_are_torchvisions(name, width):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        library = torchvision_models().mobilenetv3
        setting, last = library._mobilenet_v3_conf(name, width_mult=width)
        arrays = library.MobileNetV3(setting, last).state_dict()
    ours = nnx.eval_shape(lambda: mobilenet_v3(name, width=width, rngs=nnx.Rngs(0)))
    found = {entry.key: entry.shape for entry in entries(names.torchvision(ours))}
    assert found == {key: tuple(a.shape) for key, a in arrays.items() if "num_batches" not in key}


def test_timms_names():
    model = nnx.eval_shape(lambda: tiny(rngs=nnx.Rngs(0)))  # an excited block, then two plain ones
    convs = {
        *("conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw", "blocks.2.0.conv"),
        *(f"blocks.1.{i}.{conv}" for i in (0, 1) for conv in ("conv_pw", "conv_dw", "conv_pwl")),
    }
    norms = {"bn1", "blocks.0.0.bn1", "blocks.0.0.bn2", "blocks.2.0.bn1"}
    norms |= {f"blocks.1.{i}.bn{k}" for i in (0, 1) for k in (1, 2, 3)}
    biased = {"blocks.0.0.se.conv_reduce", "blocks.0.0.se.conv_expand", "conv_head", "classifier"}
    found = {entry.key: entry for entry in entries(names.timm(model))}
    assert set(found) == {
        *(f"{conv}.weight" for conv in convs),
        *(f"{norm}.{key}" for norm in norms for key in ("weight", "bias", "running_mean", "running_var")),
        *(f"{layer}.{key}" for layer in biased for key in ("weight", "bias")),
    }
    assert found["conv_head.weight"].fits((16, 144, 1, 1))  # timm's hidden layer is a 1x1 convolution


def norms_of(model):
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]


def test_normalisations_are_torchvisions_or_another():
    found = norms_of(nnx.eval_shape(lambda: mobilenet_v3("mobilenet_v3_small", rngs=nnx.Rngs(0))))
    assert len(found) == 34
    assert {(norm.eps, norm.momentum) for norm in found} == {(1e-3, 0.99)}
    build = partial(mobilenet_v3, "mobilenet_v3_small", norm=partial(BatchNorm, eps=1e-4))
    assert {norm.eps for norm in norms_of(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))} == {1e-4}


def test_dropout_is_torchvisions_or_none():
    default: Any = nnx.eval_shape(lambda: tiny(rngs=nnx.Rngs(0)))
    assert default.dropout.rate == 0.2
    assert nnx.eval_shape(lambda: tiny(dropout=0.0, rngs=nnx.Rngs(params=0))).dropout is None


def test_initial_values_are_those_of_the_docstring():
    model: Any = MobileNetV3(SMALL[:2], 512, num_classes=40, rngs=nnx.Rngs(0))
    for layer in (model.hidden, model.output):
        np.testing.assert_allclose(layer.kernel[...].std(), 0.01, rtol=0.03)
        assert (layer.bias[...] == 0).all()
    np.testing.assert_allclose(model.conv.conv.kernel[...].std(), np.sqrt(2 / 144), rtol=0.05)


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError,
        match="^mobilenet_v3: unknown name 'mobilenet_v3_smal'; did you mean \"mobilenet_v3_small\"",
    ):
        mobilenet_v3("mobilenet_v3_smal", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^MobileNetV3: rows must have at least one block, got none$"):
        MobileNetV3((), 16, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^round_channels: channels must be a positive number, got -8.0$"):
        mobilenet_v3("mobilenet_v3_small", width=-0.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: tiny(dropout=-0.5, rngs=nnx.Rngs(0)))
