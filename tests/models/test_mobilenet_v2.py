"""MobileNetV2: its taps, its options, its initial values, timm's names."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.mobilenet_v2 import MobileNetV2
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names import mobilenet_v2 as names
from tests.models.torchvision_oracle import torchvision_models
from tests.nn.filled import filled
from tests.reference import normal

tiny = partial(MobileNetV2, table=((1, 8, 1, 1), (2, 16, 2, 2)), width=0.25, num_classes=7)


def test_tap_shapes():
    x = jnp.zeros((2, 95, 62, 3))
    found = nnx.eval_shape(lambda: MobileNetV2(rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "stem": (48, 31, 32),
        "stage1": (48, 31, 16),
        "stage2": (24, 16, 24),
        "stage3": (12, 8, 32),
        "stage4": (6, 4, 64),
        "stage5": (6, 4, 96),
        "stage6": (3, 2, 160),
        "stage7": (3, 2, 320),
        "conv": (3, 2, 1280),
        "avg_pool": (1280,),
        "logits": (1000,),
    }


@pytest.mark.parametrize("width", [0.35, 0.75, 1.4])
def test_channels_of_other_widths_are_torchvisions(width):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        arrays = torchvision_models().mobilenet_v2(width_mult=width).state_dict()
    ours = nnx.eval_shape(lambda: MobileNetV2(width=width, rngs=nnx.Rngs(0)))
    found = {entry.key: entry.shape for entry in entries(names.torchvision(ours))}
    assert found == {key: tuple(a.shape) for key, a in arrays.items() if "num_batches" not in key}


def test_timms_names():
    model = nnx.eval_shape(lambda: tiny(dropout=0.0, rngs=nnx.Rngs(params=0)))
    convs = {
        *("conv_stem", "conv_head", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw"),
        *(f"blocks.1.{i}.{conv}" for i in (0, 1) for conv in ("conv_pw", "conv_dw", "conv_pwl")),
    }
    norms = {"bn1", "bn2", "blocks.0.0.bn1", "blocks.0.0.bn2"}
    norms |= {f"blocks.1.{i}.bn{k}" for i in (0, 1) for k in (1, 2, 3)}
    found = {entry.key: entry.shape for entry in entries(names.timm(model))}
    assert set(found) == {
        *(f"{conv}.weight" for conv in convs),
        *(f"{norm}.{key}" for norm in norms for key in ("weight", "bias", "running_mean", "running_var")),
        *("classifier.weight", "classifier.bias"),
    }
    assert found["blocks.0.0.conv_dw.weight"] == (8, 1, 3, 3)
    assert found["blocks.1.1.conv_pwl.weight"] == (8, 16, 1, 1)


def test_dropout_acts_in_training_only():
    model, x = filled(lambda: tiny(dropout=0.5, rngs=nnx.Rngs(0))), normal(0, 3, 9, 14, 3)
    forward = nnx.jit(lambda model, x: model(x))
    assert (forward(model, x) != forward(model, x)).any()
    model.eval()
    np.testing.assert_array_equal(forward(model, x), forward(model, x))
    default: Any = nnx.eval_shape(lambda: tiny(rngs=nnx.Rngs(0)))
    assert default.dropout.rate == 0.2
    assert nnx.eval_shape(lambda: tiny(dropout=0.0, rngs=nnx.Rngs(params=0))).dropout is None


def test_initial_values_are_those_of_the_docstring():
    model: Any = MobileNetV2(table=((1, 8, 1, 1),), num_classes=7, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(model.output.kernel[...].std(), 0.01, rtol=0.03)
    np.testing.assert_allclose(model.conv.conv.kernel[...].std(), np.sqrt(2 / 1280), rtol=0.03)
    assert (model.output.bias[...] == 0).all()


def test_errors_name_the_argument(unchecked):
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="^round_channels: channels must be a positive number, got "):
            MobileNetV2(width=width, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: tiny(dropout=1.5, rngs=nnx.Rngs(0)))
