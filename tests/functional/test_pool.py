"""Pooling against loops, torch and its derivatives."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import jaxcnn.functional as F
from tests import reference

drawn = functools.partial(settings, deadline=None, derandomize=True)


@st.composite
def poolings(draw, symmetric=False):
    """Sizes and options of a pooling all of whose windows hold input."""
    rank = draw(st.integers(1, 3))

    def values(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    window, stride = values(1, 4), values(1, 5)
    dilation = values(1, 2) if draw(st.booleans()) and not symmetric else (1,) * rank
    low = tuple(draw(st.integers(0, k // 2)) for k in window)
    high = low if symmetric else tuple(draw(st.integers(0, k // 2)) for k in window)
    least = [reference.reach(k, d) for k, d in zip(window, dilation, strict=True)]
    size = tuple(draw(st.integers(n, max(n, 6))) for n in least)
    pairs = tuple(zip(low, high, strict=True))
    return size, window, dict(stride=stride, padding=pairs, dilation=dilation, ceil_mode=draw(st.booleans()))


def holds_input(size, window, options):
    return all(
        any(reference.inside(place, size) for _, place in taps)
        for _, taps in reference.windows(size, window, *options.values())
    )


@given(poolings())
@drawn(max_examples=50)
def test_max_pool_equals_the_loops(case):
    size, window, options = case
    assume(holds_input(size, window, options))
    x = reference.normal(0, 2, *size, 3) - 5  # negative: a zero from the padding would win
    y = jax.jit(functools.partial(F.max_pool, window=window, **options))(x)
    np.testing.assert_array_equal(y, reference.max_pool(x, window, **options))


@given(poolings(), st.booleans())
@drawn(max_examples=50)
def test_avg_pool_equals_the_loops(case, count_include_pad):
    size, window, options = case
    assume(holds_input(size, window, options))
    x = reference.normal(0, 2, *size, 3)
    pool = functools.partial(F.avg_pool, window=window, count_include_pad=count_include_pad, **options)
    expected = reference.avg_pool(x, window, count_include_pad=count_include_pad, **options)
    np.testing.assert_allclose(jax.jit(pool)(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", "CAUSAL", 1, (1,), ((0, 1),)])
@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_specs(padding, stride, dilation):
    x = reference.normal(0, 2, 10, 3) - 5
    pads = reference.pairs(padding, (10,), (3,), (stride,), (dilation,))
    options = {"stride": (stride,), "padding": pads, "dilation": (dilation,)}
    given = {"stride": stride, "padding": padding, "dilation": dilation}
    largest, mean, mean_inside = jax.jit(
        lambda x: (
            F.max_pool(x, (3,), **given),
            F.avg_pool(x, (3,), **given),
            F.avg_pool(x, (3,), count_include_pad=False, **given),
        )
    )(x)
    np.testing.assert_array_equal(largest, reference.max_pool(x, (3,), **options))
    np.testing.assert_allclose(mean, reference.avg_pool(x, (3,), **options), rtol=1e-5, atol=1e-6)
    inside = reference.avg_pool(x, (3,), count_include_pad=False, **options)
    np.testing.assert_allclose(mean_inside, inside, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_the_stride_is_the_window_unless_given(pool):
    x = reference.normal(0, 2, 7, 9, 3)
    y = getattr(F, pool)(jnp.asarray(x), (2, 3))
    options = {"stride": (2, 3), "padding": ((0, 0),) * 2, "dilation": (1, 1)}
    np.testing.assert_allclose(y, getattr(reference, pool)(x, (2, 3), **options), rtol=1e-6)


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_an_integer_window_is_square_for_a_batch_of_images(pool):
    x = jnp.asarray(reference.normal(0, 2, 7, 9, 3))
    function = getattr(F, pool)
    chex.assert_trees_all_equal(function(x, 3, stride=2), function(x, (3, 3), stride=(2, 2)))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pools_reduce_the_spatial_axes(rank):
    x = reference.normal(0, 2, *(5, 4, 3)[:rank], 6)
    axes = tuple(range(1, rank + 1))
    for pool, expected in [(F.global_avg_pool, np.mean), (F.global_max_pool, np.max)]:
        wide = expected(x.astype(np.float64), axis=axes)
        np.testing.assert_allclose(pool(jnp.asarray(x)), wide, rtol=1e-5, atol=1e-6)
        kept = pool(jnp.asarray(x), keepdims=True)
        assert kept.shape == (2, *(1 for _ in axes), 6)
        np.testing.assert_allclose(kept.reshape(2, 6), wide, rtol=1e-5, atol=1e-6)


@given(poolings(symmetric=True), st.sampled_from(["max", "avg", "avg_no_pad"]))
@drawn(max_examples=30)
def test_pools_and_gradients_equal_torch(case, kind):
    torch = pytest.importorskip("torch")
    size, window, options = case
    rank = len(size)
    low = tuple(low for low, _ in options["padding"])
    count = {} if kind == "max" else {"count_include_pad": kind == "avg"}
    theirs = getattr(torch.nn.functional, f"{kind[:3]}_pool{rank}d")
    ours = F.max_pool if kind == "max" else F.avg_pool
    x = reference.normal(0, 2, *size, 3, dtype=np.float64)

    def pull_back(x):
        y, vjp = jax.vjp(lambda x: ours(x, window, **options, **count), x)
        cotangent = jnp.asarray(reference.normal(1, *y.shape, dtype=np.float64))
        return y, vjp(cotangent)[0], cotangent

    with jax.enable_x64(True):
        y, gradient, cotangent = jax.jit(pull_back)(jnp.asarray(x))
    first = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).requires_grad_()
    z = theirs(first, window, stride=options["stride"], padding=low, ceil_mode=options["ceil_mode"], **count)
    z.backward(torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.array(cotangent), -1, 1))))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    close(y, np.moveaxis(z.detach().numpy(), 1, -1))
    close(gradient, np.moveaxis(first.grad.numpy(), 1, -1))


def test_dilated_max_pool_equals_torch():
    torch = pytest.importorskip("torch")
    x = reference.normal(0, 2, 11, 9, 3)
    y = F.max_pool(jnp.asarray(x), (3, 2), stride=(2, 1), padding=(1, 1), dilation=(2, 3), ceil_mode=True)
    z = torch.nn.functional.max_pool2d(
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))), (3, 2), (2, 1), (1, 1), (2, 3), True
    )
    np.testing.assert_array_equal(y, np.moveaxis(z.numpy(), 1, -1))


POOLS = {
    "max": functools.partial(F.max_pool, window=(3, 2), stride=2, padding=((1, 0), (1, 1))),
    "max_dilated": functools.partial(F.max_pool, window=(2, 2), stride=1, dilation=(2, 3), ceil_mode=True),
    "avg": functools.partial(F.avg_pool, window=(3, 2), stride=2, padding=((1, 0), (1, 1)), ceil_mode=True),
    "avg_no_pad": functools.partial(
        F.avg_pool, window=(2, 2), stride=1, padding=1, dilation=(2, 1), count_include_pad=False
    ),
    "global_avg": F.global_avg_pool,
    "global_max": F.global_max_pool,
}


@pytest.mark.parametrize("name", POOLS)
def test_derivatives_of_second_order_forward_and_reverse(name):
    with jax.enable_x64(True):
        # Distinct values far apart: the maximum does not change hands under a finite difference.
        x = jnp.asarray(np.random.default_rng(0).permutation(60).reshape(1, 5, 6, 2) / 20)
        check_grads(jax.jit(lambda x: jnp.sin(POOLS[name](x))), (x,), order=2, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dilation, winner", [(1, [1.0, 0.0, 0.0, 0.0]), (2, [1.0, 0.0, 0.0, 0.0])])
def test_a_tie_gives_the_whole_gradient_to_the_first(dilation, winner):
    x = jnp.full((1, 4, 1), 2.5, jnp.float32)
    pool = functools.partial(F.max_pool, window=(2,), stride=4, dilation=dilation)
    gradient = jax.grad(lambda x: pool(x).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), winner)


@pytest.mark.parametrize("name", POOLS)
def test_vmap_pmap_and_a_sharded_batch_agree_with_one_device(name):
    pool = POOLS[name]
    x = jnp.asarray(reference.normal(0, 8, 5, 6, 2))

    def value_and_gradient(x):
        return pool(x), jax.grad(lambda x: jnp.sum(pool(x) ** 2))(x)

    expected = jax.jit(value_and_gradient)(x)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.jit(value_and_gradient)(jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
    chex.assert_trees_all_close(sharded, expected, rtol=1e-5, atol=1e-6)
    for transform in (jax.pmap, jax.vmap):
        parts = transform(value_and_gradient)(x.reshape(4, 2, *x.shape[1:]))
        parts = jax.tree.map(lambda part, whole: part.reshape(whole.shape), parts, expected)
        chex.assert_trees_all_close(parts, expected, rtol=1e-5, atol=1e-6)


class Variants(chex.TestCase):
    @chex.all_variants
    def test_every_pool_in_every_variant(self):
        x = jnp.asarray(reference.normal(0, 2, 5, 6, 2))
        for name, pool in POOLS.items():
            with self.subTest(name):
                chex.assert_trees_all_close(self.variant(pool)(x), pool(x), rtol=1e-6)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_the_result_has_the_inputs_dtype(name, dtype):
    with jax.enable_x64(True):
        x = jnp.asarray(reference.normal(0, 2, 5, 6, 2)).astype(dtype)
        exact = jax.jit(POOLS[name])(x.astype(jnp.float64))
    with jax.enable_x64(dtype == jnp.float64):
        y, gradient = jax.jit(lambda x: (POOLS[name](x), jax.grad(lambda x: jnp.sum(POOLS[name](x)))(x)))(x)
        assert y.dtype == gradient.dtype == dtype
    # one rounding of y, after sums in float32
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=eps, atol=min(eps, 1e-6))


@pytest.mark.parametrize("name", POOLS)
def test_a_zero_batch_gives_a_zero_batch(name):
    x = jnp.asarray(reference.normal(0, 2, 5, 6, 2))
    assert POOLS[name](x[:0]).shape == (0, *POOLS[name](x).shape[1:])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("pool", [F.global_avg_pool, functools.partial(F.avg_pool, window=(128, 96))])
def test_sums_do_not_overflow_or_stall_in_half_precision(pool, dtype):
    x = 30 + jnp.asarray(reference.normal(0, 1, 128, 96, 2)).astype(dtype)  # the sum is above float16's range
    expected = np.asarray(x, np.float64).mean((1, 2))
    y = np.asarray(pool(x), np.float64).reshape(1, 2)
    np.testing.assert_allclose(y, expected, rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("name", ["max", "max_dilated", "global_max"])
def test_maxima_of_infinities_and_nans(name):
    x = np.array(reference.normal(0, 1, 5, 6, 2))
    assert np.isneginf(POOLS[name](jnp.full_like(x, -np.inf))).all()
    x[0, 2, 3, 0] = np.nan
    y = np.asarray(POOLS[name](jnp.asarray(x)))
    assert np.isnan(y[..., 0]).any() and not np.isnan(y[..., 1]).any()


def test_integer_images_can_be_max_pooled_or_are_refused_by_name(unchecked):
    x = jnp.arange(24, dtype=jnp.uint8).reshape(1, 4, 6, 1)
    with pytest.raises(TypeError, match=r"max_pool.*x.*uint8"):
        F.max_pool(x, 2)
