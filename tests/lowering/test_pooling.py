"""Pooling compiled by the rewrites: what XLA gives for the same program, and what a NumPy loop gives."""

import functools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn
import jaxcnn.functional as F
from jaxcnn.lowering import pooling

OPERATIONS: dict[str, Any] = {"max": (lax.max, -np.inf), "sum": (lax.add, 0)}
# Plain values, ties, and all that is not finite.
FINITE, ALL = [0.0, 1.0, 2.0, -1.5], [0.0, 1.0, 2.0, np.nan, np.inf, -np.inf]


def pool(x, kind, window, stride, padding=None, dilation=None):
    op, start = OPERATIONS[kind]
    padding = padding or ((0, 0),) * len(window)
    return lax.reduce_window(
        x, np.array(start, x.dtype), op, window, stride, padding, window_dilation=dilation
    )


def value_and_gradient(x, dy, **options):
    y, pull = jax.vjp(functools.partial(pool, **options), x)
    return y, pull(dy)[0]


def compiled(function, *arrays, marked=True):
    with jaxcnn.accelerate(marked):
        return jax.jit(lambda *arrays: function(*arrays))(*arrays)


def reads_shifted_slices(function, *arrays):
    """Whether nothing of XLA's own pooling is in the program."""
    with jaxcnn.accelerate():
        program = jax.jit(lambda *arrays: function(*arrays)).lower(*arrays).as_text()
    return "reduce_window" not in program and "select_and_scatter" not in program


def by_hand(x, dy, kind, window, stride, padding, dilation):
    """y and dx in float64, one window after the other."""
    start = OPERATIONS[kind][1]
    padded = np.pad(x.astype(np.float64), padding, constant_values=start)
    y, dx = np.zeros(dy.shape), np.zeros(padded.shape)
    for j in np.ndindex(*dy.shape):
        places = [
            tuple(a * s + t * d for a, s, t, d in zip(j, stride, tap, dilation, strict=True))
            for tap in np.ndindex(*window)
        ]
        if kind == "sum":
            y[j] = sum(padded[place] for place in places)
            for place in places:
                dx[place] += dy[j]
        else:
            y[j] = np.max([padded[place] for place in places])
            # The tap that stays unless another one is larger; a NaN is not larger than anything.
            winner = functools.reduce(lambda a, b: a if padded[a] >= padded[b] else b, places)
            dx[winner] += dy[j]
    return y, dx[tuple(slice(low, low + n) for (low, _), n in zip(padding, x.shape, strict=True))]


@st.composite
def problems(draw, dilated=False):
    """The axes' sizes, and a window over one to three of them wherever they stand."""
    rank = draw(st.integers(2, 4))
    pooled = draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=3))

    def per_axis(low, high, otherwise):
        return tuple(draw(st.integers(low, high)) if axis in pooled else otherwise for axis in range(rank))

    window, stride = per_axis(1, 4, 1), per_axis(1, 3, 1)
    dilation = per_axis(1, 2, 1) if dilated else (1,) * rank
    padding = tuple(zip(per_axis(0, 2, 0), per_axis(0, 2, 0), strict=True))
    extra = per_axis(0, 5, 3)
    size = tuple((w - 1) * d + 1 + n for w, d, n in zip(window, dilation, extra, strict=True))
    return size, {"window": window, "stride": stride, "padding": padding, "dilation": dilation}


def arrays(size, options, values, seed=0):
    random = np.random.default_rng(seed)
    x = random.choice(np.array(values, np.float32), size=size)
    shape = jax.eval_shape(lambda x: pool(x, "max", **options), x).shape
    return x, random.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("values", [FINITE, ALL])
@given(problem=problems())
def test_maxima_and_their_gradient_are_those_of_xla(values, problem):
    size, options = problem
    x, dy = arrays(size, options, values)
    function = functools.partial(value_and_gradient, kind="max", **options)
    y, dx = compiled(function, x, dy)
    theirs = compiled(function, x, dy, marked=False)
    np.testing.assert_array_equal(y, theirs[0])
    np.testing.assert_allclose(dx, theirs[1], rtol=1e-5, atol=1e-5)
    expected = by_hand(x, dy, "max", **options)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_allclose(dx, expected[1], rtol=1e-5, atol=1e-5)


@given(problem=problems(dilated=True))
def test_sums_and_their_gradient_and_dilated_maxima_are_those_of_a_loop(problem):
    size, options = problem
    x, dy = arrays(size, options, FINITE)
    expected = by_hand(x, dy, "sum", **options)
    for y, e in zip(
        compiled(functools.partial(value_and_gradient, kind="sum", **options), x, dy), expected, strict=True
    ):
        np.testing.assert_allclose(y, e, rtol=1e-5, atol=1e-5)
    y = compiled(lambda x: pool(x, "max", **options), x)
    np.testing.assert_array_equal(y, by_hand(x, dy, "max", **options)[0])


@pytest.mark.parametrize("window", [(1, 5, 6, 1), (1, 20, 3, 1)])
def test_a_large_window_is_pooled_axis_by_axis(window):
    options = {"window": window, "stride": (1, 2, 1, 1), "padding": ((0, 0), (2, 1), (0, 2), (0, 0))}
    assert math.prod(window) > pooling.TOGETHER
    x = np.random.default_rng(0).normal(size=(2, 23, 9, 3)).astype(np.float32)
    for kind in OPERATIONS:
        function = functools.partial(pool, kind=kind, **options)
        assert reads_shifted_slices(function, x)
        theirs = compiled(function, x, marked=False)
        np.testing.assert_allclose(compiled(function, x), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_infinities_and_nans_stay_in_their_windows(kind):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    x[0, 1, 2, 0], x[0, 6, 6, 1], x[1, 3, 3, 2] = np.nan, np.inf, -np.inf
    options = {"window": (1, 3, 2, 1), "stride": (1, 2, 2, 1), "padding": ((0, 0), (1, 1), (0, 0), (0, 0))}
    function = functools.partial(pool, kind=kind, **options)
    theirs = compiled(function, x, marked=False)
    assert not np.isfinite(theirs).all()
    np.testing.assert_allclose(compiled(function, x), theirs, rtol=1e-5, atol=1e-5)
    dy = np.ones(theirs.shape, np.float32)
    dy[0, 1, 1, 0], dy[1, 2, 2, 2] = np.inf, np.nan
    gradient = functools.partial(value_and_gradient, kind=kind, **options)
    dx, expected = (compiled(gradient, x, dy, marked=marked)[1] for marked in (True, False))
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5)


POOLS = {
    "max, overlapping": lambda x: F.max_pool(x, 3, stride=2, padding=1),
    "max, side by side": lambda x: F.max_pool(x, 2),
    "max, gaps": lambda x: F.max_pool(x, 1, stride=2),
    "max, ceil_mode": lambda x: F.max_pool(x, (3, 2), stride=2, ceil_mode=True),
    "mean, overlapping": lambda x: F.avg_pool(x, 3, stride=1, padding=1),
    "mean, ceil_mode": lambda x: F.avg_pool(x, (2, 3), stride=(2, 3), padding=(0, 1), ceil_mode=True),
    "norm": lambda x: F.lp_pool(x, 2, (2, 3), stride=2),
}


def loss(function, x):
    return jnp.sin(function(x)).sum()


@pytest.fixture
def x():
    """No ties, so that the derivatives of all orders exist."""
    return jnp.asarray(
        np.random.default_rng(0).permutation(4 * 9 * 8 * 3).reshape(4, 9, 8, 3) / 100, jnp.float32
    )


@pytest.mark.parametrize("name", POOLS)
def test_the_functions_ask_for_the_rewrites_and_no_one_else_gets_them(name, x):
    gradient = jax.grad(functools.partial(loss, POOLS[name]))
    assert reads_shifted_slices(gradient, x)
    with jaxcnn.accelerate(False):
        program = jax.jit(lambda x: gradient(x)).lower(x).as_text()
    assert "reduce_window" in program


@pytest.mark.parametrize("name", POOLS)
def test_transformations_give_the_same(name, x):
    scalar = functools.partial(loss, POOLS[name])

    def product(x):  # forward over reverse, and reverse over that
        return jax.jvp(jax.grad(scalar), (x,), (jnp.cos(x),))[1]

    def scanned(x):
        return lax.scan(lambda total, image: (total + jax.grad(scalar)(image[None]), None), x[:1] * 0, x)[0]

    functions = {
        "hessian": product,
        "third": jax.grad(lambda x: product(x).sum()),
        "vmap": lambda x: jax.vmap(jax.grad(scalar), in_axes=2)(jnp.stack([x, 2 * x], 2)),
        "per example": lambda x: jax.vmap(lambda image: jax.grad(scalar)(image[None])[0])(x),
        "scan": scanned,
        "remat": jax.grad(jax.checkpoint(scalar)),
        "cond": lambda x: lax.cond(x.sum() > 0, jax.grad(scalar), lambda x: x, x),
    }
    for function in functions.values():
        theirs = compiled(function, x, marked=False)
        np.testing.assert_allclose(compiled(function, x), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["max, overlapping", "mean, overlapping"])
@pytest.mark.parametrize("way", ["shard_map", "jit", "jit over height", "pmap"])
def test_devices_share_the_batch(name, way, x, monkeypatch):
    monkeypatch.setattr(pooling, "LARGE", 0)  # small images are looped over, too
    monkeypatch.setattr(pooling, "BLOCK", 1)
    gradient = jax.grad(functools.partial(loss, POOLS[name]))
    expected = compiled(gradient, x, marked=False)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    if way == "pmap":
        y = jax.pmap(lambda x: gradient(x))(x[:, None])[:, 0]
    elif way == "shard_map":
        y = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(x)
    else:
        spec = P("data") if way == "jit" else P(None, None, "data")
        program = jax.jit(lambda x: gradient(x)).lower(jax.device_put(x, NamedSharding(mesh, spec))).compile()
        text = program.as_text()
        assert text is not None and " while(" not in text
        if way == "jit":
            assert not any(word in text for word in ("all-gather", "all-reduce", "collective-permute"))
        y = program(jax.device_put(x, NamedSharding(mesh, spec)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POOLS)
def test_a_loop_over_blocks_of_images_gives_the_same(name, x, monkeypatch):
    x = jnp.concatenate([x, x[:2] + 0.005])  # six images: blocks of 1, 2 or 3
    gradient = jax.grad(functools.partial(loss, POOLS[name]))
    expected = compiled(gradient, x)
    monkeypatch.setattr(pooling, "LARGE", 0)
    for block in (1, 2500, 10**9):
        monkeypatch.setattr(pooling, "BLOCK", block)
        y = compiled(gradient, x)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_each_dtype_is_kept_and_narrow_ones_are_summed_in_float32(kind, dtype):
    options = {"window": (1, 3, 3, 1), "stride": (1, 1, 2, 1), "padding": ((0, 0), (1, 1), (1, 0), (0, 0))}

    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 8, 3))).astype(dtype)
        dy = jnp.cos(pool(x, kind, **options))
        y, dx = compiled(functools.partial(value_and_gradient, kind=kind, **options), x, dy)
        expected = by_hand(
            np.asarray(x, np.float64), np.asarray(dy, np.float64), kind, dilation=(1,) * 4, **options
        )
    assert y.dtype == dx.dtype == dtype
    ulp = float(jnp.finfo(dtype).eps)
    for ours, exact in zip((y, dx), expected, strict=True):
        # Rounded once.
        np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=ulp, atol=8 * ulp**1.5)


def test_what_is_not_worth_it_is_handed_on():
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32)
    ones, none = (1,) * 4, ((0, 0),) * 4
    windows = {
        "sums of channels": ("sum", (1, 1, 1, 5), none),
        "one window": ("sum", (1, 6, 7, 1), none),
        "cropped": ("max", (1, 2, 2, 1), ((0, 0), (-1, 0), (0, 0), (0, 0))),
    }
    for kind, window, padding in windows.values():
        function = functools.partial(pool, kind=kind, window=window, stride=ones, padding=padding)
        assert not reads_shifted_slices(function, x)
        np.testing.assert_array_equal(compiled(function, x), compiled(function, x, marked=False))

    def smallest(x):
        return lax.reduce_window(x, np.float32(np.inf), lax.min, (1, 2, 2, 1), ones, "VALID")

    def spread(x):
        return lax.reduce_window(
            x, np.float32(0), lax.add, (1, 2, 2, 1), ones, "VALID", base_dilation=(1, 2, 2, 1)
        )

    def huge(x):
        big = jnp.pad(x, ((0, 0), (0, 20), (0, 20), (0, 0)))
        return jax.grad(lambda x: pool(x, "max", (1, 9, 9, 1), ones).sum())(big)

    for function in (smallest, jax.grad(lambda x: smallest(x).sum()), spread, huge):
        assert not reads_shifted_slices(function, x)
        np.testing.assert_array_equal(compiled(function, x), compiled(function, x, marked=False))

    whole = (x * 10).astype(np.int32)
    for kind in ("sum", "max"):
        start = np.array(0 if kind == "sum" else np.iinfo(np.int32).min, np.int32)
        function = functools.partial(
            lax.reduce_window,
            init_value=start,
            computation=OPERATIONS[kind][0],
            window_dimensions=(1, 2, 2, 1),
            window_strides=ones,
            padding="VALID",
        )
        assert not reads_shifted_slices(function, whole)
        np.testing.assert_array_equal(compiled(function, whole), compiled(function, whole, marked=False))


def test_an_empty_batch_is_handed_on():
    x = jnp.zeros((0, 6, 6, 2))
    assert jax.jit(jax.grad(functools.partial(loss, POOLS["max, overlapping"])))(x).shape == x.shape


def test_the_choice_says_why():
    size = {"size": (2, 8, 8, 3), "output": (2, 4, 4, 3), "padding": ((0, 0),) * 4}
    steps = {"window": (1, 2, 2, 1), "stride": (1, 2, 2, 1), "dilation": (1,) * 4, "base_dilation": (1,) * 4}
    problem = pooling.Pooling(kind="select_and_scatter_add", **size, **steps)
    choice = pooling.choose(problem)
    assert choice is not None and choice.name == "winning taps" and "gathers" in choice.reason
    assert pooling.choose(replace(problem, of_maximum=False)) is None
    assert pooling.choose(replace(problem, kind="reduce_window_min")) is None
