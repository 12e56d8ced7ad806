"""SqueezeExcitation and InvertedResidual against NumPy and torch, round_channels against known values."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn import nn
from tests.models.torchvision_oracle import torchvision_models
from tests.nn.filled import filled
from tests.reference import normal

EXCITE = partial(nn.SqueezeExcitation, squeezed=3)


def numpy_gates(block, x):
    """The gates of a SqueezeExcitation (relu, sigmoid) in float64."""
    reduce, expand = (
        np.asarray(layer.kernel[...], np.float64)[0, 0] for layer in (block.reduce, block.expand)
    )
    squeezed = np.maximum(x.mean(axis=(1, 2)) @ reduce + np.asarray(block.reduce.bias[...]), 0)
    return 1 / (1 + np.exp(-(squeezed @ expand + np.asarray(block.expand.bias[...]))))


def test_squeeze_excitation_weighs_every_channel_by_its_gate():
    block = filled(lambda: nn.SqueezeExcitation(6, 3, rngs=nnx.Rngs(0)))
    x = normal(0, 4, 5, 7, 6)
    np.testing.assert_allclose(block(x), x * numpy_gates(block, x)[:, None, None], rtol=1e-5, atol=1e-6)


def test_squeeze_excitation_takes_its_activation_and_gate():
    block = filled(lambda: nn.SqueezeExcitation(6, 3, activation=jnp.tanh, gate=jnp.cos, rngs=nnx.Rngs(0)))
    x = normal(0, 4, 5, 7, 6)
    squeezed = jnp.tanh(block.reduce(x.mean(axis=(1, 2), keepdims=True)))
    np.testing.assert_allclose(block(x), x * jnp.cos(block.expand(squeezed)), rtol=1e-5, atol=1e-6)


def torch_conv_norm(torch, layer, x, *, training):
    """A ConvNormAct without its activation, by torch's functions."""

    def tensor(variable):
        return torch.from_numpy(np.array(variable[...]))

    kernel = tensor(layer.conv.kernel)
    y = torch.nn.functional.conv2d(
        x,
        kernel.permute(3, 2, 0, 1),
        stride=layer.conv.stride,
        padding=kernel.shape[0] // 2,
        groups=layer.conv.groups,
    )
    mean, var, scale, bias = map(tensor, (layer.norm.mean, layer.norm.var, layer.norm.scale, layer.norm.bias))
    return torch.nn.functional.batch_norm(y, mean, var, scale, bias, training=training)


CASES: dict[str, dict[str, Any]] = {
    "residual": {"channels_out": 4, "expanded": 12},
    "wider": {"channels_out": 6, "expanded": 12},
    "stride": {"channels_out": 4, "expanded": 12, "stride": 2},
    "no expansion": {"channels_out": 4, "expanded": 4},
    "narrower inside": {"channels_out": 4, "expanded": 2},
    "window and excitation": {"channels_out": 6, "expanded": 8, "stride": 2, "window": 5, "excite": EXCITE},
    "no expansion and excitation": {"channels_out": 4, "expanded": 4, "excite": EXCITE},
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_inverted_residual_is_torchs(options, training):
    torch = pytest.importorskip("torch")
    block = filled(lambda: nn.InvertedResidual(4, **options, activation=nnx.relu6, rngs=nnx.Rngs(0)))
    block.set_attributes(use_running_average=not training)
    assert (block.expand is None) == (options["expanded"] == 4)
    x = normal(0, 3, 7, 10, 4)
    conv_norm = partial(torch_conv_norm, torch, training=training)
    tx = y = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    if options["expanded"] != 4:
        y = torch.nn.functional.relu6(conv_norm(block.expand, y))
    y = torch.nn.functional.relu6(conv_norm(block.depthwise, y))
    if "excite" in options:
        gates = numpy_gates(block.excite, y.permute(0, 2, 3, 1).numpy())
        y = y * torch.from_numpy(gates.astype(np.float32))[:, :, None, None]
    y = conv_norm(block.project, y)
    if options.get("stride", 1) == 1 and options["channels_out"] == 4:
        y = tx + y
    np.testing.assert_allclose(block(x), y.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def test_inverted_residual_hands_its_options_to_all_three_convolutions():
    block: Any = nn.InvertedResidual(
        3,
        5,
        expanded=6,
        window=5,
        norm=partial(nn.BatchNorm, eps=1e-3, momentum=0.5),
        kernel_init=nnx.initializers.constant(0.25),
        rngs=nnx.Rngs(0),
    )
    parts = (block.expand, block.depthwise, block.project)
    assert [part.conv.kernel.shape for part in parts] == [(1, 1, 3, 6), (5, 5, 1, 6), (1, 1, 6, 5)]
    for part in parts:
        assert (part.norm.eps, part.norm.momentum) == (1e-3, 0.5)
        assert (part.conv.kernel[...] == 0.25).all()


def test_drop_path_drops_the_branch_of_whole_examples_in_training():
    block = filled(lambda: nn.InvertedResidual(4, 4, expanded=8, drop_path=0.5, rngs=nnx.Rngs(0)))
    certain = filled(lambda: nn.InvertedResidual(4, 4, expanded=8, rngs=nnx.Rngs(0)))
    x = normal(0, 16, 5, 6, 4)
    branch = certain(x) - x
    y = block(x)
    kept = np.asarray(jnp.abs(y - x).max(axis=(1, 2, 3)) > 0)
    assert 0 < kept.sum() < 16
    expected = x + np.where(kept[:, None, None, None], 2 * branch, 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_there_is_no_drop_path_without_a_rate_or_without_a_shortcut():
    for options in (
        {"channels_out": 4},
        {"channels_out": 6, "drop_path": 0.5},
        {"channels_out": 4, "stride": 2, "drop_path": 0.5},
    ):
        block = nnx.eval_shape(lambda o=options: nn.InvertedResidual(4, expanded=8, **o, rngs=nnx.Rngs(0)))
        assert block.drop_path is None


@pytest.mark.parametrize("excite", [None, EXCITE])
def test_every_parameter_has_a_gradient_and_the_dtype_of_x_is_kept(excite):
    def build():
        return nn.InvertedResidual(4, 4, expanded=8, excite=excite, rngs=nnx.Rngs(0))

    graphdef, params, rest = nnx.split(filled(build), nnx.Param, ...)
    rest, weight = nnx.to_pure_dict(rest), normal(1, 2, 8, 6, 4)

    @jax.jit
    def grads_of(params, x):
        return jax.grad(lambda p: (nnx.merge(graphdef, p, rest)(x) * weight).sum())(params)

    for path, grad in jax.tree_util.tree_leaves_with_path(
        grads_of(nnx.to_pure_dict(params), normal(0, 2, 8, 6, 4))
    ):
        assert jnp.abs(grad).max() > 0, path
    x = jnp.zeros((2, 8, 6, 4), jnp.bfloat16)
    chex.assert_shape(nnx.eval_shape(lambda: build()(x)), (2, 8, 6, 4))
    assert nnx.eval_shape(lambda: build()(x)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("channels", "multiple", "expected"),
    [
        (32 * 1.4, 8, 48),  # 44.8: to the nearest
        (96 * 0.35, 8, 32),  # 33.6: downwards, 95% of it
        (24 * 0.75, 8, 24),  # 18: 16 would be less than 90% of it
        (11, 8, 16),
        (12, 8, 16),  # halves upwards
        (16 * 0.35, 8, 8),  # 5.6: never less than the multiple
        (1280.0, 8, 1280),
        (10, 4, 12),
        (40, 16, 48),
        (7, 1, 7),
    ],
)
def test_round_channels_known_values(channels, multiple, expected):
    rounded = nn.round_channels(channels, multiple=multiple)
    assert rounded == expected and isinstance(rounded, int)


def test_round_channels_is_torchvisions():
    make_divisible = torchvision_models()._utils._make_divisible
    for i in range(1, 4000):
        assert nn.round_channels(0.37 * i) == make_divisible(0.37 * i, 8)


def test_errors_name_the_argument(unchecked):
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="^SqueezeExcitation: squeezed must be at least 1, got 0$"):
        nn.SqueezeExcitation(8, 0, rngs=rngs)
    with pytest.raises(ValueError, match="^SqueezeExcitation: channels must be at least 1, got -2$"):
        nn.SqueezeExcitation(-2, 1, rngs=rngs)
    with pytest.raises(ValueError, match="^InvertedResidual: expanded must be at least 1, got 0$"):
        nn.InvertedResidual(8, 8, expanded=0, rngs=rngs)
    for channels_out in (8, 16):  # with and without a shortcut
        with pytest.raises(
            ValueError, match=r"^InvertedResidual: drop_path must be .* in \[0, 1\], got 1.5$"
        ):
            nn.InvertedResidual(8, channels_out, expanded=8, drop_path=1.5, rngs=rngs)
    for bad in (0.0, -3, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match=f"^round_channels: channels must be a positive number, got {bad}$"
        ):
            nn.round_channels(bad)
    with pytest.raises(ValueError, match="^round_channels: multiple must be at least 1, got 0$"):
        nn.round_channels(8, multiple=0)
