"""Pooling against loops, at ties and edges, and on several devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcnn.functional as F
from tests import reference

drawn = functools.partial(settings, deadline=None, derandomize=True)


@st.composite
def poolings(draw):
    """Sizes and options of a pooling all of whose windows hold input."""
    rank = draw(st.integers(1, 3))

    def values(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    window, stride = values(1, 4), values(1, 5)
    dilation = values(1, 2) if draw(st.booleans()) else (1,) * rank
    low = tuple(draw(st.integers(0, k // 2)) for k in window)
    high = tuple(draw(st.integers(0, k // 2)) for k in window)
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
@drawn(max_examples=15)
def test_max_pool_its_indices_and_its_gradient_equal_the_loops(case):
    size, window, options = case
    assume(holds_input(size, window, options))
    x = np.round(reference.normal(0, 2, *size, 3)) - 5  # many ties; negative: a zero of the padding would win
    pool = functools.partial(F.max_pool, window=window, **options)

    @jax.jit
    def values_indices_gradients(x, cotangent):
        def weighted(x):
            values, indices = pool(x, return_indices=True)
            return (values * cotangent).sum(), indices

        gradient, indices = jax.grad(weighted, has_aux=True)(x)
        return pool(x), indices, gradient, jax.grad(lambda x: (pool(x) * cotangent).sum())(x)

    indices = reference.max_pool_indices(x, window, **options)
    cotangent = reference.normal(1, *indices.shape)
    y, positions, *gradients = values_indices_gradients(x, cotangent)
    np.testing.assert_array_equal(y, reference.max_pool(x, window, **options))
    np.testing.assert_array_equal(positions, indices)
    assert positions.dtype == jnp.int32
    expected = np.zeros((2, int(np.prod(size)), 3))
    batch, channel = np.ogrid[:2, :3]
    np.add.at(
        expected, (batch[:, None], indices.reshape(2, -1, 3), channel[:, None]), cotangent.reshape(2, -1, 3)
    )
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected.reshape(x.shape), rtol=1e-5, atol=1e-6)


@given(poolings(), st.booleans())
@drawn(max_examples=25)
def test_avg_pool_equals_the_loops(case, count_include_pad):
    size, window, options = case
    assume(holds_input(size, window, options))
    x = reference.normal(0, 2, *size, 3)
    pool = functools.partial(F.avg_pool, window=window, count_include_pad=count_include_pad, **options)
    expected = reference.avg_pool(x, window, count_include_pad=count_include_pad, **options)
    np.testing.assert_allclose(jax.jit(pool)(x), expected, rtol=1e-5, atol=1e-6)


@given(poolings(), st.sampled_from([1, 2, 3, 4, 1.5, 0.5, 2.0]))
@drawn(max_examples=25)
def test_lp_pool_equals_the_loops(case, p):
    size, window, options = case
    assume(holds_input(size, window, options))
    x = reference.normal(0, 2, *size, 3)
    y = jax.jit(functools.partial(F.lp_pool, p=p, window=window, **options))(x)
    np.testing.assert_allclose(y, reference.lp_pool(x, p, window, **options), rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("p", [0.3, 1, 1.5, 2, 3, 4])
def test_lp_pool_has_finite_derivatives_at_zeros(p):
    # Windows of zeros alone, of one element, and of two: the second derivative of a norm of one element is 0.
    x = jnp.array([0.0, 0.0, -2.0, 0.0, 0.75, -1.5]).reshape(1, 6, 1)

    @jax.jit
    def derivatives(x):
        def total(x):
            return F.lp_pool(x, p, (2,)).sum()

        return jax.grad(total)(x), jax.hessian(total)(x), jax.jacfwd(jax.hessian(total))(x)

    gradient, hessian, third = derivatives(x)
    a, b = 0.75, 1.5
    norm = (a**p + b**p) ** (1 / p)
    expected = [0, 0, -1, 0, (a / norm) ** (p - 1), -((b / norm) ** (p - 1))]
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-5)
    mixed = (1 - p) * (a * b) ** (p - 1) / norm ** (2 * p - 1)  # d^2 norm / da db
    hessian = hessian.reshape(6, 6)
    np.testing.assert_allclose(hessian[4, 5], -mixed, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        hessian[3, 3], 1 / 2 if p == 2 else 0, atol=1e-5
    )  # of sqrt(2^2 + x^2) at x = 0
    np.testing.assert_allclose(hessian[2], 0, atol=1e-5)
    assert np.isfinite(third).all() and not hessian[:2].any()


def test_lp_pool_grows_into_the_maximum_of_the_magnitudes():
    x = jnp.asarray(reference.normal(0, 2, 5, 6, 2))
    np.testing.assert_allclose(F.lp_pool(x, 100, 2), F.max_pool(abs(x), 2), rtol=0.02)
    np.testing.assert_allclose(F.lp_pool(x, 1, 2), 4 * F.avg_pool(abs(x), 2), rtol=1e-5)


def test_max_unpool_puts_the_maxima_back_and_zeros_elsewhere():
    for size, window, stride in [
        ((7,), (3,), (3,)),
        ((5, 6), (2, 3), (2, 3)),
        ((4, 3, 5), (2, 1, 3), (1, 2, 2)),
    ]:
        x = reference.normal(0, 2, *size, 3) - 5

        @jax.jit
        def pool_and_unpool(x, window=window, stride=stride, size=size):
            y, indices = F.max_pool(x, window, stride=stride, return_indices=True)
            return y, indices, F.max_unpool(y, indices, size)

        y, indices, back = pool_and_unpool(x)
        np.testing.assert_array_equal(back, reference.max_unpool(y, np.asarray(indices), size))
        # what came back is x at the winners, of which every window has one
        assert ((back == x) | (back == 0)).all()
        np.testing.assert_array_equal(
            F.max_pool(jnp.where(back == 0, -np.inf, back), window, stride=stride), y
        )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32])
def test_max_unpool_keeps_the_last_of_equal_indices_and_drops_those_outside(dtype):
    x = reference.normal(0, 2, 3, 5, 2)
    for size in [(2, 4), (20, 30)]:  # smaller and larger than what int8 counts to
        indices = np.random.default_rng(0).integers(0, 9, x.shape).astype(dtype)
        indices[0, 0, 0, 0], indices[0, 0, 1, 0] = (
            -1 % 2**31 if dtype == np.uint32 else np.iinfo(dtype).max,
            8,
        )
        if np.issubdtype(dtype, np.signedinteger):
            indices[1, :, 0] = -1

        def squares(x, indices=indices, size=size):
            y = F.max_unpool(x, jnp.asarray(indices), size)
            return (y**2).sum(), y

        (_, y), gradient = jax.jit(jax.value_and_grad(squares, has_aux=True))(jnp.asarray(x))
        np.testing.assert_array_equal(
            y, reference.max_unpool(x, indices.astype(np.int64), size).astype(np.float32)
        )
        stayed = np.isin(x, np.asarray(y))
        assert 0 < stayed.sum() < x.size
        np.testing.assert_allclose(gradient, np.where(stayed, 2 * x, 0), rtol=1e-6)


POOLS = {
    "max": functools.partial(F.max_pool, window=(3, 2), stride=2, padding=((1, 0), (1, 1))),
    "max_dilated": functools.partial(F.max_pool, window=(2, 2), stride=1, dilation=(2, 3), ceil_mode=True),
    "avg": functools.partial(F.avg_pool, window=(3, 2), stride=2, padding=((1, 0), (1, 1)), ceil_mode=True),
    "lp": functools.partial(F.lp_pool, p=3, window=(3, 2), stride=2, padding=((1, 0), (1, 1))),
    "unpool": lambda x: F.max_unpool(*F.max_pool(x, (2, 3), stride=2, return_indices=True), (5, 6)),
    "adaptive_avg": functools.partial(F.adaptive_avg_pool, output_size=(3, 4)),
    "adaptive_max": functools.partial(F.adaptive_max_pool, output_size=(3, 4)),
    "global_avg": F.global_avg_pool,
    "global_max": F.global_max_pool,
}


def test_a_sharded_batch_agrees_with_one_device_and_exchanges_nothing():
    x = jnp.asarray(reference.normal(0, 8, 5, 6, 2))

    def values_and_gradients(x):
        return {
            name: (pool(x), jax.grad(lambda x, pool=pool: jnp.sum(pool(x) ** 2))(x))
            for name, pool in POOLS.items()
        }

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    data = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.jit(values_and_gradients, in_shardings=data, out_shardings=data).lower(x).compile()
    program = sharded.as_text() or ""
    assert "fusion" in program
    chex.assert_trees_all_close(
        sharded(jax.device_put(x, data)), jax.jit(values_and_gradients)(x), rtol=1e-5, atol=1e-6
    )
    for exchange in ("all-gather", "all-reduce", "collective-permute", "all-to-all"):
        assert exchange not in program


@pytest.mark.parametrize("name", ["avg", "lp", "adaptive_avg", "max", "max_dilated", "adaptive_max"])
@pytest.mark.parametrize("special", [np.inf, np.nan])
def test_an_infinity_or_nan_stays_in_its_windows(name, special):
    x = reference.normal(0, 1, 5, 6, 2)
    y = POOLS[name](jnp.asarray(x))
    x[0, 2, 3, 0] = 1e3
    touched = np.asarray(POOLS[name](jnp.asarray(x)) != y)
    x[0, 2, 3, 0] = special
    z = np.asarray(POOLS[name](jnp.asarray(x)))
    assert touched.any() and not np.isfinite(z[touched]).any()
    np.testing.assert_array_equal(z[~touched], np.asarray(y)[~touched])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(
    "pool",
    [
        F.global_avg_pool,
        functools.partial(F.avg_pool, window=(128, 96)),
        functools.partial(F.adaptive_avg_pool, output_size=(1, 1)),
    ],
)
def test_sums_do_not_overflow_or_stall_in_half_precision(pool, dtype):
    x = 30 + jnp.asarray(reference.normal(0, 1, 128, 96, 2)).astype(dtype)  # the sum is above float16's range
    expected = np.asarray(x, np.float64).mean((1, 2))
    y = np.asarray(pool(x), np.float64).reshape(1, 2)
    np.testing.assert_allclose(y, expected, rtol=float(jnp.finfo(dtype).eps))


def test_lp_pool_squares_more_than_float16_holds():
    x = jnp.full((1, 2, 2, 1), 1000, jnp.float16)
    assert F.lp_pool(x, 2, 2).item() == 2000


@pytest.mark.parametrize("name", ["max", "max_dilated", "adaptive_max", "global_max"])
def test_minus_infinity_everywhere_is_the_maximum(name):
    assert np.isneginf(POOLS[name](jnp.full((1, 5, 6, 2), -np.inf))).all()


def test_indices_of_minus_infinities_and_nans_are_those_of_torch():
    x = jnp.full((1, 3, 4, 1), -jnp.inf)
    _, indices = F.max_pool(x, 2, padding=1, return_indices=True)
    np.testing.assert_array_equal(indices[0, ..., 0], [[0, 1, 3], [4, 5, 7]])  # the first inside the image
    x = jnp.array([1.0, np.nan, 2.0, np.nan, 5.0, np.inf]).reshape(1, 6, 1)
    y, indices = F.max_pool(x, (3,), stride=1, return_indices=True)
    np.testing.assert_array_equal(y.ravel(), [np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(indices.ravel(), [1, 3, 3, 3])  # the last NaN


def test_integer_images_can_be_max_pooled_or_are_refused_by_name(unchecked):
    x = jnp.arange(24, dtype=jnp.uint8).reshape(1, 4, 6, 1)
    with pytest.raises(TypeError, match=r"max_pool.*x.*uint8"):
        F.max_pool(x, 2)


def test_ceil_mode_keeps_the_only_window_where_it_is_larger_than_the_input():
    x = jnp.asarray(reference.normal(0, 2, 3, 2, 4))
    options = {"stride": (4, 3), "ceil_mode": True}
    np.testing.assert_array_equal(F.max_pool(x, (4, 3), **options), x.max((1, 2), keepdims=True))
    np.testing.assert_allclose(F.avg_pool(x, (4, 3), **options), x.mean((1, 2), keepdims=True), atol=1e-6)
    assert F.output_size((3, 2), (4, 3), **options) == (1, 1)
