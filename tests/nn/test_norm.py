"""The normalisations against torch, NumPy, and themselves on several devices."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn import nn
from tests.reference import normal


def batches(steps, *shape):
    """Batches whose channels have different means and scales."""
    scale, shift = np.linspace(0.5, 3, shape[-1]), np.linspace(-2, 4, shape[-1])
    return [(normal(step, *shape) * scale + shift).astype(np.float32) for step in range(steps)]


def randomise(norm, channels):
    norm.scale[...] = jnp.asarray(1.5 + 0.2 * normal(7, channels))
    if hasattr(norm, "bias"):
        norm.bias[...] = jnp.asarray(normal(8, channels))


NORMS = [
    nn.BatchNorm(6),
    nn.GlobalResponseNorm(6),
    nn.GroupNorm(6, 3),
    nn.InstanceNorm(6),
    nn.LayerNorm(6),
    nn.RMSNorm(6),
]
EACH = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)


def to_torch(torch, x):
    return torch.from_numpy(np.moveaxis(np.array(x), -1, 1).copy())


def from_torch(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


@pytest.mark.parametrize(("momentum", "eps"), [(0.9, 1e-5), (0.99, 1e-3), (0.0, 1e-5)])
def test_batch_norm_is_torchs_over_several_steps_and_in_evaluation(momentum, eps):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(5, momentum=1 - momentum, eps=eps)
    ours = nn.BatchNorm(5, momentum=momentum, eps=eps)
    randomise(ours, 5)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(np.array(ours.scale[...])))
        theirs.bias.copy_(torch.from_numpy(np.array(ours.bias[...])))
    *training, last = batches(5, 3, 4, 6, 5)
    for x in training:
        np.testing.assert_allclose(ours(x), from_torch(theirs(to_torch(torch, x))), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.mean[...], theirs.running_mean.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.var[...], theirs.running_var.numpy(), rtol=1e-5, atol=1e-6)
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(last), from_torch(theirs(to_torch(torch, last))), rtol=1e-5, atol=1e-5)


def test_batch_norm_follows_its_equations_in_numpy():
    norm = nn.BatchNorm(3, momentum=0.7)
    randomise(norm, 3)
    scale, bias = np.array(norm.scale[...]), np.array(norm.bias[...])
    mean, var = np.zeros(3), np.ones(3)
    for x in batches(3, 2, 5, 4, 3):
        wide = x.astype(np.float64)
        m, v = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        np.testing.assert_allclose(
            norm(x), (wide - m) / np.sqrt(v + 1e-5) * scale + bias, rtol=1e-5, atol=1e-5
        )
        mean, var = 0.7 * mean + 0.3 * m, 0.7 * var + 0.3 * wide.var((0, 1, 2), ddof=1)
        np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.var[...], var, rtol=1e-5)


def test_batch_norm_in_evaluation_changes_nothing():
    norm = nn.BatchNorm(3)
    norm(batches(1, 2, 5, 4, 3)[0])
    norm.eval()
    before = nnx.to_pure_dict(nnx.state(norm))
    x = batches(2, 2, 5, 4, 3)[1]
    chex.assert_trees_all_close(norm(x[:1]), norm(x)[:1], rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(norm)), before)
    norm.train()
    norm(x)
    assert jnp.abs(norm.mean[...] - before["mean"]).min() > 0


def test_running_statistics_come_out_of_a_plain_jit():
    graphdef, params, stats = nnx.split(nn.BatchNorm(3), nnx.Param, nnx.BatchStat)

    @jax.jit
    def step(params, stats, x):
        norm = nnx.merge(graphdef, params, stats)
        y = norm(x)
        return y, nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

    eager = nn.BatchNorm(3)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    for x in batches(3, 2, 5, 4, 3):
        y, stats = step(params, stats, x)
        chex.assert_trees_all_close(y, eager(x), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
        stats, nnx.to_pure_dict(nnx.state(eager, nnx.BatchStat)), rtol=1e-5, atol=1e-6
    )


def test_batch_norm_on_four_devices_is_batch_norm_on_one():
    if jax.device_count() < 4:
        pytest.skip("needs 4 devices")
    norm = nn.BatchNorm(3, momentum=0.8)
    randomise(norm, 3)
    x = batches(1, 8, 5, 4, 3)[0]
    x[:2] += 5.0  # devices whose means differ: their own variances would be too small
    weight = normal(3, *x.shape)

    def loss(params, stats, graphdef, x, weight):
        module = nnx.merge(graphdef, params, stats)
        y = module(x)
        return (y * weight).sum(), (y, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))

    def split(axis_name):
        norm.set_attributes(axis_name=axis_name, raise_if_not_found=False)
        graphdef, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)
        return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    graphdef, params, stats = split(None)
    grads, (y, new_stats) = jax.grad(loss, has_aux=True)(params, stats, graphdef, x, weight)

    graphdef, params, stats = split("data")

    def device_step(x, weight):
        grads, (y, new_stats) = jax.grad(loss, has_aux=True)(params, stats, graphdef, x, weight)
        return jax.lax.psum(grads, "data"), y, new_stats

    shards = (x.reshape(4, 2, *x.shape[1:]), weight.reshape(4, 2, *x.shape[1:]))
    device_grads, device_y, device_stats = jax.pmap(device_step, axis_name="data", devices=jax.devices()[:4])(
        *shards
    )
    np.testing.assert_allclose(np.reshape(device_y, x.shape), y, rtol=1e-5, atol=1e-5)
    for device in range(4):
        on_device = jax.tree.map(lambda leaf, i=device: np.asarray(leaf)[i], (device_grads, device_stats))
        chex.assert_trees_all_close(on_device, (grads, new_stats), rtol=1e-4, atol=1e-4)


def test_gradient_flows_through_the_batch_statistics():
    torch = pytest.importorskip("torch")
    x, weight = batches(1, 2, 4, 3, 3)[0], normal(1, 2, 4, 3, 3)
    graphdef, state = nnx.split(nn.BatchNorm(3))
    state = nnx.to_pure_dict(state)
    grad = jax.grad(lambda x: (nnx.merge(graphdef, state)(x) * weight).sum())(jnp.asarray(x))
    leaf = to_torch(torch, x).requires_grad_()
    (torch.nn.BatchNorm2d(3)(leaf) * to_torch(torch, weight)).sum().backward()
    np.testing.assert_allclose(grad, from_torch(leaf.grad), rtol=1e-4, atol=1e-5)


@EACH
def test_bfloat16_images_give_bfloat16_and_keep_float32_variables(norm):
    x = batches(1, 2, 5, 4, 6)[0]
    full = norm(x)
    half = norm(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.05)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(norm)))


@pytest.mark.parametrize("name", ["GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm", "LocalResponseNorm"])
def test_norms_of_one_example_are_torchs(name):
    torch = pytest.importorskip("torch")
    x = batches(1, 2, 5, 4, 6)[0]
    ours, theirs = {
        "GroupNorm": lambda: (nn.GroupNorm(6, 3, eps=1e-3), torch.nn.GroupNorm(3, 6, eps=1e-3)),
        "InstanceNorm": lambda: (
            nn.InstanceNorm(6, eps=1e-3),
            torch.nn.InstanceNorm2d(6, eps=1e-3, affine=True),
        ),
        "LayerNorm": lambda: (nn.LayerNorm(6, eps=1e-3), torch.nn.LayerNorm(6, eps=1e-3)),
        "RMSNorm": lambda: (nn.RMSNorm(6, eps=1e-3), torch.nn.RMSNorm(6, eps=1e-3)),
        "LocalResponseNorm": lambda: (
            nn.LocalResponseNorm(4, alpha=0.3, beta=0.6, k=2),
            torch.nn.LocalResponseNorm(4, 0.3, 0.6, 2),
        ),
    }[name]()
    if hasattr(ours, "scale"):
        randomise(ours, 6)
    with torch.no_grad():
        for parameter, value in [("weight", "scale"), ("bias", "bias")]:
            if hasattr(ours, value):
                getattr(theirs, parameter).copy_(torch.from_numpy(np.array(getattr(ours, value)[...])))
    if name in ("LayerNorm", "RMSNorm"):
        expected = theirs(torch.from_numpy(x)).detach().numpy()
    else:
        expected = from_torch(theirs(to_torch(torch, x)))
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_a_new_global_response_norm_is_the_identity_and_then_its_function():
    norm, x = nn.GlobalResponseNorm(6, eps=0.1), batches(1, 2, 5, 4, 6)[0]
    chex.assert_trees_all_equal(norm(x), jnp.asarray(x))
    randomise(norm, 6)
    expected = F.global_response_norm(x, norm.scale[...], norm.bias[...], eps=0.1)
    chex.assert_trees_all_equal(norm(x), expected)
    assert (norm(x) != F.global_response_norm(x, norm.scale[...], norm.bias[...])).any()


@EACH
def test_every_norm_works_in_a_plain_jit(norm):
    x = batches(1, 2, 5, 4, 6)[0]
    graphdef, state = nnx.split(norm)
    apply = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    chex.assert_trees_all_close(apply(nnx.to_pure_dict(state), x), norm(x), rtol=1e-5, atol=1e-5)


def test_constructor_errors_name_module_and_argument(unchecked):
    with pytest.raises(ValueError, match="^BatchNorm: channels must be at least 1, got 0"):
        nn.BatchNorm(0)
    with pytest.raises(ValueError, match=r"^BatchNorm: momentum must be .* in \[0, 1\], got 1.1"):
        nn.BatchNorm(3, momentum=1.1)
    with pytest.raises(ValueError, match="^BatchNorm: eps must be a positive number.*got 0"):
        nn.BatchNorm(3, eps=0.0)
    with pytest.raises(ValueError, match="^GroupNorm: groups must divide channels, got groups=4, channels=6"):
        nn.GroupNorm(6, 4)
    with pytest.raises(ValueError, match="^GroupNorm: groups must be at least 1, got 0"):
        nn.GroupNorm(6, 0)
    with pytest.raises(ValueError, match="^GroupNorm: eps must be a positive number"):
        nn.GroupNorm(6, 2, eps=-1e-5)
    half: Any = 1.5
    with pytest.raises(TypeError, match="^LayerNorm: channels must be an int, got 1.5"):
        nn.LayerNorm(half)
    for make in (nn.LayerNorm, nn.InstanceNorm, nn.RMSNorm, nn.GlobalResponseNorm):
        with pytest.raises(ValueError, match=f"^{make.__name__}: eps must be a positive number"):
            make(3, eps=0.0)
        with pytest.raises(ValueError, match=f"^{make.__name__}: channels must be at least 1, got 0"):
            make(0)
    with pytest.raises(ValueError, match="^LocalResponseNorm: size must be at least 1, got 0"):
        nn.LocalResponseNorm(0)
    with pytest.raises(ValueError, match="^LocalResponseNorm: k must be positive .*got 0"):
        nn.LocalResponseNorm(5, k=0)


@EACH
def test_call_errors(norm, unchecked):
    name = type(norm).__name__
    with pytest.raises(ValueError, match=rf"^{name}: x must have 6 channels .* got shape \(2, 5, 4, 3\)"):
        norm(normal(0, 2, 5, 4, 3))
    with pytest.raises(TypeError, match=f"^{name}: x must have a floating dtype, got uint8"):
        norm(np.zeros((2, 5, 4, 6), np.uint8))


def test_batch_norm_refuses_a_single_value_and_keeps_its_statistics():
    norm = nn.BatchNorm(3)
    with pytest.raises(ValueError, match=r"more than one value per channel, got shape \(1, 1, 1, 3\)"):
        norm(normal(0, 1, 1, 1, 3))
    chex.assert_trees_all_equal(norm.var[...], jnp.ones(3))
    norm.eval()
    chex.assert_tree_all_finite(norm(normal(0, 1, 1, 1, 3)))
