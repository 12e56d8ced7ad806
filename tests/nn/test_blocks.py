"""ConvNormAct, BasicBlock and Bottleneck against torch and their own equations."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn import nn
from tests.nn.filled import filled
from tests.reference import normal


def zero_branch(block):
    """Make the residual branch give 0, so that the shortcut alone is seen."""
    norm = block.branch[-1].norm
    norm.scale[...], norm.bias[...] = jnp.zeros_like(norm.scale[...]), jnp.zeros_like(norm.bias[...])


def torch_conv_norm(torch, layer, x, groups=1):
    """The training forward of a ConvNormAct without its activation, by torch's functions."""
    kernel = np.array(layer.conv.kernel[...])
    weight = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
    y = torch.nn.functional.conv2d(
        x, weight, stride=layer.conv.stride, padding=kernel.shape[0] // 2, groups=groups
    )
    scale, bias = (torch.from_numpy(np.array(p[...])) for p in (layer.norm.scale, layer.norm.bias))
    return torch.nn.functional.batch_norm(y, None, None, scale, bias, training=True)


def test_conv_norm_act_is_the_chain_of_its_three_parts():
    options = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
    block = filled(lambda: nn.ConvNormAct(4, 6, (3, 5), **options, activation=jnp.tanh, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 9, 12, 4)
    y = F.conv(x, block.conv.kernel[...], **options)
    mean, var, _ = F.batch_stats(y)
    expected = jnp.tanh(F.batch_norm(y, mean, var, block.norm.scale[...], block.norm.bias[...]))
    chex.assert_trees_all_close(block(x), expected, rtol=1e-5, atol=1e-5)
    assert block.conv.bias is None


@pytest.mark.parametrize(
    ("window", "dilation", "size"),
    [(3, 1, (9, 6)), (1, 1, (9, 6)), ((7, 3), (1, 2), (9, 6)), ((5,), 3, (11,)), ((3, 1, 5), 1, (4, 3, 5))],
)
def test_conv_norm_act_keeps_the_size_by_default_for_odd_windows(window, dilation, size):
    block = filled(lambda: nn.ConvNormAct(2, 3, window, dilation=dilation, rngs=nnx.Rngs(0)))
    assert block(normal(0, 2, *size, 2)).shape == (2, *size, 3)


def test_conv_norm_act_without_activation_and_with_another_norm():
    norm = partial(nn.GroupNorm, groups=3)
    block = filled(lambda: nn.ConvNormAct(2, 6, 3, norm=norm, activation=None, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 7, 5, 2)
    y = F.conv(x, block.conv.kernel[...], padding=1)
    expected = F.group_norm(y, 3, block.norm.scale[...], block.norm.bias[...])
    chex.assert_trees_all_close(block(x), expected, rtol=1e-5, atol=1e-5)
    assert (block(x) < 0).any()


def test_kernels_start_by_hes_rule_on_the_fan_out():
    kernel = nn.ConvNormAct(16, 64, 3, rngs=nnx.Rngs(0)).conv.kernel[...]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)


def test_dtype_reaches_the_convolution():
    block = filled(lambda: nn.ConvNormAct(2, 6, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert block(normal(0, 2, 7, 5, 2)).dtype == jnp.bfloat16
    assert block.norm.mean.dtype == jnp.float32


@pytest.mark.parametrize(("stride", "channels_out"), [(1, 4), (1, 6), (2, 4), (2, 6)])
def test_basic_block_with_projection_is_torchs(stride, channels_out):
    torch = pytest.importorskip("torch")
    block = filled(lambda: nn.BasicBlock(4, channels_out, stride=stride, rngs=nnx.Rngs(0)))
    x = normal(0, 3, 7, 10, 4)
    tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    y = torch.relu(torch_conv_norm(torch, block.branch[0], tx))
    y = torch_conv_norm(torch, block.branch[1], y)
    changes = (stride, channels_out) != (1, 4)
    assert (block.projection is not None) == changes
    shortcut = torch_conv_norm(torch, block.projection, tx) if changes else tx
    expected = torch.relu(y + shortcut).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-5)


def test_bottleneck_is_torchs_with_the_stride_and_groups_on_the_middle():
    torch = pytest.importorskip("torch")
    block = filled(lambda: nn.Bottleneck(6, 16, stride=2, width=0.5, groups=4, rngs=nnx.Rngs(0)))
    assert [layer.conv.kernel.shape for layer in block.branch] == [(1, 1, 6, 8), (3, 3, 2, 8), (1, 1, 8, 16)]
    x = normal(0, 3, 7, 10, 6)
    tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    y = torch.relu(torch_conv_norm(torch, block.branch[0], tx))
    y = torch.relu(torch_conv_norm(torch, block.branch[1], y, groups=4))
    y = torch_conv_norm(torch, block.branch[2], y) + torch_conv_norm(torch, block.projection, tx)
    np.testing.assert_allclose(block(x), torch.relu(y).numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_pad_shortcut_takes_every_other_element_and_appends_zero_channels():
    block = filled(lambda: nn.BasicBlock(3, 5, stride=2, shortcut="pad", rngs=nnx.Rngs(0)))
    zero_branch(block)
    x = normal(0, 2, 7, 10, 3)
    expected = np.zeros((2, 4, 5, 5), np.float32)
    for i in range(4):
        for j in range(5):
            expected[:, i, j, :3] = np.maximum(x[:, 2 * i, 2 * j], 0)
    chex.assert_trees_all_equal(np.asarray(block(x)), expected)
    assert block.projection is None


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_identity_shortcut_where_the_shapes_agree(shortcut):
    block = filled(lambda: nn.BasicBlock(3, 3, shortcut=shortcut, activation=jnp.tanh, rngs=nnx.Rngs(0)))
    zero_branch(block)
    x = normal(0, 2, 7, 10, 3)
    chex.assert_trees_all_close(block(x), jnp.tanh(x), rtol=1e-6)


@pytest.mark.parametrize("make", [nn.BasicBlock, nn.Bottleneck])
def test_drop_path_drops_the_branch_of_whole_examples_in_training(make):
    block = filled(lambda: make(4, 4, drop_path=0.5, activation=lambda y: y, rngs=nnx.Rngs(0)))
    certain = filled(lambda: make(4, 4, activation=lambda y: y, rngs=nnx.Rngs(0)))
    assert certain.drop_path is None
    x = normal(0, 16, 5, 6, 4)
    branch = certain(x) - x
    kept = np.asarray(jnp.abs(block(x) - x).max(axis=(1, 2, 3)) > 0)
    assert 0 < kept.sum() < 16
    nn.set_random_keys(block, jax.random.split(jax.random.key(1), 16))
    y = block(x)
    kept = np.asarray(jnp.abs(y - x).max(axis=(1, 2, 3)) > 0)
    expected = x + np.where(kept[:, None, None, None], 2 * branch, 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [nn.BasicBlock, nn.Bottleneck])
def test_every_parameter_has_a_gradient_and_jit_agrees(make):
    block = filled(lambda: make(4, 8, stride=2, rngs=nnx.Rngs(0)))
    x, weight = normal(0, 2, 8, 6, 4), normal(1, 2, 4, 3, 8)
    graphdef, params, rest = nnx.split(block, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)

    def loss(params):
        return (nnx.merge(graphdef, params, rest)(x) * weight).sum()

    params = nnx.to_pure_dict(params)
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, loss(params), rtol=1e-4, atol=1e-4)
    chex.assert_tree_all_finite(grads)
    assert all(jnp.abs(grad).max() > 0 for grad in jax.tree.leaves(grads))


def test_constructor_errors_name_module_and_argument(unchecked):
    with pytest.raises(ValueError, match='^BasicBlock: shortcut must be "projection" or "pad", got \'conv\''):
        nn.BasicBlock(4, 8, shortcut="conv", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match='^BasicBlock: shortcut="pad" needs channels_out >= channels_in'):
        nn.BasicBlock(8, 4, shortcut="pad", rngs=nnx.Rngs(0))
    pair: Any = (2, 1)
    with pytest.raises(TypeError, match=r"^BasicBlock: stride must be an int, got \(2, 1\)"):
        nn.BasicBlock(4, 4, stride=pair, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match="^Bottleneck: channels_out . width must be at least 1, got channels_out=3"
    ):
        nn.Bottleneck(4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^DropPath: rate"):
        nn.Bottleneck(4, 4, drop_path=2.0, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match="^Conv: groups must divide channels_out, got groups=3, channels_out=8"
    ):
        nn.ConvNormAct(3, 8, 3, groups=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^ConvNormAct: window must be an int or a tuple of 1 to 3 ints"):
        nn.ConvNormAct(3, 8, (), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^ConvNormAct: dilation must be an int or a tuple of 2 ints"):
        nn.ConvNormAct(3, 8, 3, dilation=(1, 1, 1), rngs=nnx.Rngs(0))
