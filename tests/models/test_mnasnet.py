"""MNASNet: its taps, its options, its initial values."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.mnasnet import MNASNet, mnasnet
from jaxcnn.nn import BatchNorm
from tests.nn.filled import filled
from tests.reference import normal


def test_tap_shapes():
    x = jnp.zeros((2, 95, 62, 3))
    found = nnx.eval_shape(lambda: mnasnet("mnasnet1_0", rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "stem": (48, 31, 32),
        "stage1": (48, 31, 16),
        "stage2": (24, 16, 24),
        "stage3": (12, 8, 40),
        "stage4": (6, 4, 80),
        "stage5": (6, 4, 96),
        "stage6": (3, 2, 192),
        "stage7": (3, 2, 320),
        "conv": (3, 2, 1280),
        "avg_pool": (1280,),
        "logits": (1000,),
    }


def test_running_statistics_move_as_slowly_as_torchvisions():
    model = nnx.eval_shape(lambda: mnasnet("mnasnet0_5", rngs=nnx.Rngs(0)))
    found = [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]
    assert len(found) == 52
    assert {(norm.eps, norm.momentum) for norm in found} == {(1e-5, 0.9997)}


def test_the_separable_convolution_has_no_shortcut_even_where_the_channels_agree():
    model = filled(lambda: MNASNet(0.25, table=(), num_classes=3, rngs=nnx.Rngs(0)))
    assert model.stem.conv.kernel.shape[-1] == model.separable[1].conv.kernel.shape[-1] == 8
    norm = model.separable[1].norm
    norm.scale[...], norm.bias[...] = jnp.zeros(8), jnp.zeros(8)
    assert (model.features(normal(0, 2, 9, 6, 3), ("stage1",))["stage1"] == 0).all()


def test_dropout_is_torchvisions_or_none():
    default: Any = nnx.eval_shape(lambda: mnasnet("mnasnet0_5", rngs=nnx.Rngs(0)))
    assert default.dropout.rate == 0.2
    assert nnx.eval_shape(lambda: mnasnet("mnasnet0_5", dropout=0.0, rngs=nnx.Rngs(params=0))).dropout is None


def test_initial_values_are_those_of_the_docstring():
    model = MNASNet(0.25, table=(), num_classes=12, rngs=nnx.Rngs(0))
    kernel = np.asarray(model.output.kernel[...])
    np.testing.assert_allclose(kernel.std(), np.sqrt(1 / 12), rtol=0.03)
    np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(3 / 12), rtol=0.01)
    np.testing.assert_allclose(model.conv.conv.kernel[...].std(), np.sqrt(2 / 1280), rtol=0.03)


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError,
        match="^mnasnet: unknown name 'mnasnet1_4'; did you mean .*there are mnasnet0_5, mnasnet0_75, ",
    ):
        mnasnet("mnasnet1_4", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^round_channels: channels must be a positive number, got 0.0$"):
        MNASNet(0.0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: MNASNet(0.25, table=(), dropout=2.0, rngs=nnx.Rngs(0)))
