"""Normalisation against its formulas, pooled statistics and the data that breaks E[x^2] - E[x]^2."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import jaxcnn.functional as F
from tests import reference

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def affine(channels, dtype: Any = np.float32):
    """A scale away from 1 and 0, and a bias."""
    return 1.5 + 0.2 * reference.normal(7, channels, dtype=dtype), reference.normal(8, channels, dtype=dtype)


# batch_stats and batch_norm


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), channels=st.integers(1, 3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_batch_stats_are_mean_biased_variance_and_count(shape, channels):
    shape = (shape[0] + 1, *shape[1:], channels)
    x = 3 + reference.normal(0, *shape)
    mean, var, count = jax.jit(F.batch_stats)(x)
    axes = tuple(range(len(shape) - 1))
    close(mean, x.astype(np.float64).mean(axes))
    close(var, x.astype(np.float64).var(axes))
    assert int(count) == np.prod(shape[:-1])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "shape, jit",
    [
        ((10, 10, 1, 2), True),
        ((4, 50, 50, 2), True),
        ((16, 250, 250, 1), True),
        ((16, 250, 250, 1), False),
        ((1_000_000, 1), True),
    ],
)
def test_batch_stats_hold_for_a_mean_far_above_the_deviation(shape, masked, jit):
    x = (1e4 + 0.01 * reference.normal(0, *shape, dtype=np.float64)).astype(np.float32)
    mask = np.random.default_rng(1).random(shape[:-1]) < 0.7 if masked else np.ones(shape[:-1], bool)

    def normalized(x, mask):
        mean, var, _ = F.batch_stats(x, mask=mask)
        return F.batch_norm(x, mean, var), mean, var

    apply = jax.jit(normalized) if jit else normalized
    y, mean, var = apply(jnp.asarray(x), jnp.asarray(mask) if masked else None)
    values = x[mask].astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(0), atol=5e-4)  # half an ulp of 1e4
    np.testing.assert_allclose(var, values.var(0), rtol=2e-5)
    y = np.asarray(y, np.float64)[mask]
    np.testing.assert_allclose(y.std(0), reference.normalize(values, (0,)).std(0), rtol=0.01)
    assert np.abs(y.mean(0)).max() < 0.06  # half an ulp of the mean is 0.05 deviations


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def masked_gradient(x, mask):
    mean, var, count = F.batch_stats(x, mask=mask)
    return jnp.sum(mean**3) + jnp.sum(jnp.sqrt(var)), (mean, var, count)


@pytest.mark.parametrize("garbage", [0.0, 1e30, np.inf, -np.inf, np.nan])
def test_masked_values_do_not_count_whatever_they_are(garbage):
    x = reference.normal(0, 5, 4, 3, 2) + 2
    mask = np.random.default_rng(1).random((5, 4, 3)) < 0.6
    expected = x[mask].astype(np.float64)
    x[~mask] = garbage

    gradient, (mean, var, count) = masked_gradient(x, mask)
    close(mean, expected.mean(0))
    close(var, expected.var(0))
    assert int(count) == mask.sum()
    gradient = np.asarray(gradient)
    assert np.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all() and (gradient[mask] != 0).any()


@pytest.mark.parametrize("true", [0, 1])
def test_a_mask_with_no_or_one_value_stays_finite(true):
    mask = jnp.arange(12).reshape(3, 2, 2) < true
    x = jnp.where(mask[..., None], reference.normal(0, 3, 2, 2, 2), jnp.float32(jnp.nan))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_statistics(x):
        mean, var, count = F.batch_stats(x, mask=mask)
        return jnp.sum(mean**3 + jnp.sin(var)), (mean, var, count)

    gradient, statistics = gradient_and_statistics(x)
    chex.assert_tree_all_finite((statistics, gradient))
    assert int(statistics[2]) == true
    np.testing.assert_array_equal(statistics[1], np.zeros(2, np.float32))


def pooled(x, mask):
    """Statistics over every device's values at once."""
    values = x[mask].astype(np.float64)
    return values.mean(0), values.var(0), mask.sum()


@functools.partial(jax.pmap, axis_name="data")
def statistics_of_all_devices(x, mask):
    return F.batch_stats(x, mask=mask, axis_name="data")


@pytest.mark.parametrize("counts", [(60, 60, 60, 60), (60, 7, 1, 23), (60, 60, 5, 0)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_axis_name_gives_pooled_statistics_with_unequal_counts(counts, offset):
    shape = (4, 3, 5, 4, 2)
    scale = 0.01 if offset else 1.0
    x = offset + scale * (reference.normal(0, *shape) + np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1, 1))
    x = x.astype(np.float32)
    mask = np.stack([np.arange(60).reshape(3, 5, 4) < count for count in counts])
    expected = pooled(x, mask)
    x[~mask] = np.nan
    statistics = statistics_of_all_devices(x, mask)
    for device in range(4):
        mean, var, count = (np.asarray(a[device], np.float64) for a in statistics)
        np.testing.assert_allclose(mean, expected[0], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(var, expected[1], rtol=2e-5)
        assert count == expected[2]


def test_axis_name_without_a_mask_counts_all_devices():
    x = reference.normal(0, 4, 3, 5, 2) + np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    mean, var, count = jax.pmap(lambda x: F.batch_stats(x, axis_name="data"), axis_name="data")(x)
    expected = pooled(x, np.ones(x.shape[:-1], bool))
    for device in range(4):
        close(mean[device], expected[0])
        close(var[device], expected[1])
        assert int(count[device]) == 60


def test_one_value_on_each_device_is_enough():
    x = reference.normal(0, 4, 1, 1, 2)
    mean, var, count = jax.pmap(lambda x: F.batch_stats(x, axis_name="data"), axis_name="data")(x)
    close(mean[0], x.mean((0, 1, 2)))
    close(var[0], x.var((0, 1, 2)))
    assert int(count[0]) == 4


def normalized_sum(x, weight, mask=None, axis_name=None):
    mean, var, _ = F.batch_stats(x, mask=mask, axis_name=axis_name)
    return jnp.sum(weight * jnp.sin(F.batch_norm(x, mean, var)))


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_through_axis_name_is_the_one_device_gradient(masked):
    x, weight = (jnp.asarray(reference.normal(seed, 8, 5, 3, 2)) for seed in range(2))
    mask = jnp.asarray(np.random.default_rng(2).random((8, 5, 3)) < 0.7) if masked else None
    expected = jax.jit(jax.grad(normalized_sum))(x, weight, mask)

    def parts(a):
        return None if a is None else a.reshape(4, 2, *a.shape[1:])

    gradient = jax.pmap(
        jax.grad(functools.partial(normalized_sum, axis_name="data")),
        axis_name="data",
        in_axes=(0, 0, 0 if masked else None),
    )(parts(x), parts(weight), parts(mask))
    close(gradient.reshape(x.shape), expected)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put((x, weight, mask), NamedSharding(mesh, PartitionSpec("data")))
    close(jax.jit(jax.grad(normalized_sum))(*sharded), expected)


def test_vmap_gives_axis_name_too():
    x = jnp.asarray(reference.normal(0, 4, 3, 5, 2))
    mean, var, count = jax.vmap(lambda x: F.batch_stats(x, axis_name="data"), axis_name="data")(x)
    expected = pooled(np.asarray(x), np.ones((4, 3, 5), bool))
    close(mean, np.tile(expected[0], (4, 1)))
    close(var, np.tile(expected[1], (4, 1)))
    np.testing.assert_array_equal(count, [60] * 4)


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)])
def test_batch_norm_is_its_formula(given):
    x, mean, var = reference.normal(0, 3, 4, 5, 2), reference.normal(1, 2), reference.normal(2, 2) ** 2 + 0.1
    scale, bias = (a if use else None for a, use in zip(affine(2), given, strict=True))
    scaled, shifted = (None if a is None else jnp.asarray(a) for a in (scale, bias))
    y = F.batch_norm(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(var), scaled, shifted, eps=0.1)
    expected = (x - mean) / np.sqrt(var + 0.1) * (1 if scale is None else scale) + (
        0 if bias is None else bias
    )
    close(y, expected)


# The norms of one example


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("axes", [-1, "spatial and channels", "channels from the front"])
def test_layer_norm_is_its_formula(rank, axes):
    shape = (2, *(3, 4, 5)[:rank], 6)
    every = tuple(range(1, len(shape)))
    axes = {-1: -1, "spatial and channels": every, "channels from the front": len(shape) - 1}[axes]
    x = 3 + reference.normal(0, *shape)
    over = axes if isinstance(axes, tuple) else (axes,)
    scale, bias = (reference.normal(seed, *(shape[axis] for axis in over)) for seed in (1, 2))
    plain = reference.normalize(x, over, 1e-3)
    close(F.layer_norm(jnp.asarray(x), axes=axes, eps=1e-3), plain)
    y = F.layer_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias), axes=axes, eps=1e-3)
    close(y, plain * scale + bias)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_rms_norm_is_its_formula(rank):
    x = 3 + reference.normal(0, 2, *(3, 4, 5)[:rank], 6)
    for axes in {(-1,), tuple(range(1, rank + 2)), (1, -1) if rank else (-1,)}:
        scale = reference.normal(1, *(x.shape[axis] for axis in axes))
        plain = x / np.sqrt((x.astype(np.float64) ** 2).mean(axes, keepdims=True) + 1e-3)
        others = tuple(axis for axis in range(x.ndim) if axis not in axes and axis - x.ndim not in axes)
        close(F.rms_norm(jnp.asarray(x), axes=axes, eps=1e-3), plain)
        y = F.rms_norm(jnp.asarray(x), jnp.asarray(scale), axes=axes, eps=1e-3)
        close(y, plain * np.expand_dims(scale, others))


def test_rms_norm_of_zeros_is_zero_and_half_precision_does_not_overflow():
    value, gradient = jax.value_and_grad(lambda x: F.rms_norm(x).sum())(jnp.zeros((2, 4)))
    assert value == 0 and np.isfinite(gradient).all()
    x = jnp.asarray(1000 * reference.normal(0, 3, 8)).astype(jnp.float16)  # x^2 is above float16's range
    wide = np.asarray(x, np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True))
    np.testing.assert_allclose(F.rms_norm(x), expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(5, 2), (3, 2, 4), (2, 3, 2, 4)])
def test_standardize_kernel_gives_each_filter_mean_0_and_variance_1(shape):
    kernel = (40 + np.arange(6) * reference.normal(0, *shape, 6)).astype(np.float32)  # the first is constant
    axes = tuple(range(len(shape)))
    y = np.asarray(F.standardize_kernel(jnp.asarray(kernel), eps=1e-3), np.float64)
    np.testing.assert_allclose(y, reference.normalize(kernel, axes, 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y.std(axes)[1:], 1, atol=0.01)
    assert (y[..., 0] == 0).all()


def test_a_constant_filter_has_a_finite_gradient():
    gradient = jax.grad(lambda k: (F.standardize_kernel(k) ** 2).sum())(jnp.full((3, 2, 4, 5), 0.3))
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_is_its_formula(rank, groups):
    if rank == 0 and groups == 6:
        pytest.skip("one value per group: refused, see the bad-input table")
    x = 3 + reference.normal(0, 2, *(3, 4, 5)[:rank], 6)
    scale, bias = affine(6)
    y = F.group_norm(jnp.asarray(x), groups, jnp.asarray(scale), jnp.asarray(bias), eps=1e-3)
    close(y, reference.group_norm(x, groups, 1e-3) * scale + bias)
    close(F.group_norm(jnp.asarray(x), groups), reference.group_norm(x, groups))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_norm_is_its_formula(rank):
    x = 3 + reference.normal(0, 2, *(3, 4, 5)[:rank], 6)
    scale, bias = affine(6)
    expected = reference.normalize(x, tuple(range(1, rank + 1)), 1e-3)
    y = F.instance_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias), eps=1e-3)
    close(y, expected * scale + bias)
    close(F.instance_norm(jnp.asarray(x), eps=1e-3), expected)


def batch_normalized(x, scale, bias, eps=1e-5):
    mean, var, _ = F.batch_stats(x)
    return F.batch_norm(x, mean, var, scale, bias, eps=eps)


NORMS = {
    "batch": batch_normalized,
    "layer": F.layer_norm,
    "group": lambda x, scale, bias, **eps: F.group_norm(x, 2, scale, bias, **eps),
    "instance": F.instance_norm,
}
OVER = {"batch": (0, 1, 2), "layer": (3,), "instance": (1, 2)}


def pull_back(norm, cotangent, *arguments):
    y, vjp = jax.vjp(norm, *arguments)
    return y, vjp(cotangent)


@pytest.mark.parametrize("name", ["layer", "group", "instance"])
def test_norms_hold_for_a_mean_far_above_the_deviation(name):
    x = (1e4 + 0.1 * reference.normal(0, 2, 32, 24, 64, dtype=np.float64)).astype(np.float32)
    y = NORMS[name](jnp.asarray(x), None, None)
    if name == "group":
        expected = reference.group_norm(x, 2)
    else:
        expected = reference.normalize(x, OVER[name])
    y = np.asarray(y, np.float64)
    np.testing.assert_allclose(y.std(), expected.std(), rtol=0.01)
    np.testing.assert_allclose(y, expected, atol=0.01)


def test_masked_batch_stats_derivatives():
    with jax.enable_x64(True):
        x = jnp.asarray(reference.normal(0, 3, 2, 2, dtype=np.float64))
        mask = jnp.asarray([[True, False], [True, True], [False, True]])
        check_grads(jax.jit(lambda x: F.batch_stats(x, mask=mask)[:2]), (x,), order=2, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_the_gradient_of_a_constant_input_is_finite(name):
    x = jnp.full((2, 3, 4, 4), 0.3, jnp.float32)
    scale, bias = map(jnp.asarray, affine(4))
    squared = jax.grad(lambda *a: jnp.sum(NORMS[name](*a) ** 2), argnums=(0, 1, 2))
    gradients = jax.jit(squared)(x, scale, bias)
    chex.assert_tree_all_finite(gradients)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_y_has_xs_dtype_beside_a_wider_scale(name, dtype):
    with jax.enable_x64(True):
        x = (20 + jnp.asarray(reference.normal(0, 3, 5, 4, 6))).astype(dtype)
        scale, bias = affine(6)
        exact = jax.jit(NORMS[name])(*(jnp.asarray(a).astype(jnp.float64) for a in (x, scale, bias)))
    with jax.enable_x64(dtype == jnp.float64):
        arguments = x, jnp.asarray(scale), jnp.asarray(bias)
        y, gradients = jax.jit(functools.partial(pull_back, NORMS[name]))(jnp.ones_like(x), *arguments)
        assert [a.dtype for a in (y, *gradients)] == [dtype, dtype, jnp.float32, jnp.float32]
    # y is rounded once; a float32 mean of 20 and float32 scales add a little
    atol = 1e-12 if dtype == jnp.float64 else 2e-5
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=float(jnp.finfo(dtype).eps), atol=atol)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_batch_stats_of_half_precision_are_float32(dtype):
    x = (300 + jnp.asarray(reference.normal(0, 64, 64, 2))).astype(dtype)  # x^2 is above float16's range
    mean, var, _ = F.batch_stats(x)
    assert mean.dtype == var.dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    close(mean, exact.mean((0, 1)))
    close(var, exact.var((0, 1)), rtol=1e-4)
