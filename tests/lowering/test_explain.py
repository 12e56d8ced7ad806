"""The table of a program: every convolution and pooling, what it is, how often it runs and what it costs."""

import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import assume, given
from jax import lax
from jax.sharding import PartitionSpec as P

import jaxcnn
import jaxcnn.functional as F
from tests.lowering.oracle import Problem, problems
from tests.reference import normal

X, KERNEL = normal(0, 2, 9, 8, 6), normal(1, 3, 3, 1, 6)


def depthwise(x, kernel):
    return F.depthwise_conv(x, kernel, padding=1)


def kinds(function, *arrays, **options):
    return [row.kind for row in jaxcnn.explain(function, *arrays, **options)]


def gradient(function):
    return jax.grad(lambda *arrays: (function(*arrays) ** 2).sum(), (0, 1))


def test_a_convolution():
    (row,) = jaxcnn.explain(F.conv, X, normal(0, 3, 2, 2, 12), stride=(2, 1), padding=1, dilation=2, groups=3)
    assert row.kind == "convolution"
    assert (row.x, row.kernel, row.y) == (X.shape, (3, 2, 2, 12), (2, 4, 8, 12))
    assert row.options == "stride (2, 1), padding 1, dilation 2, groups 3"
    assert row.macs == 2 * 4 * 8 * 6 * 2 * 12
    assert row.times == 1
    assert row.lowering != "XLA's own" and row.reason


@pytest.mark.usefixtures("without_onednn")
def test_it_is_printed_and_returned(capsys):
    explanation = jaxcnn.explain(depthwise, X, KERNEL)
    printed = capsys.readouterr().out
    assert printed == f"{explanation}\n"
    head, row, total = printed.splitlines()
    assert head.split() == ["kind", "x", "kernel", "y", "options", "times", "MACs", "lowering", "why"]
    for name, value in (
        ("kernel", "(3, 3, 1, 6)"),
        ("options", "padding 1, groups 6"),
        ("why", "one channel"),
    ):
        assert row[head.index(name) :].startswith(value)
    assert total == "total of 1: 7,776 MACs"
    assert explanation.macs == 7776 and "7776" in repr(explanation)


def test_nothing_is_computed_and_nothing_else_is_shown():
    shapes = [
        jax.ShapeDtypeStruct((8, 224, 224, 1024), "float32"),
        jax.ShapeDtypeStruct((3, 3, 1, 1024), "float32"),
    ]
    assert len(jaxcnn.explain(depthwise, *shapes)) == 1
    assert str(jaxcnn.explain(jnp.tanh, X)) == "no convolution and no pooling"


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f, jax.checkpoint, jax.remat])
def test_a_gradients_convolutions(jit):
    rows = jaxcnn.explain(gradient(jit(depthwise)), X, KERNEL)
    backward = [row for row in rows if row.kind != "convolution"]
    assert {row.kind for row in backward} == {"kernel gradient", "input gradient"}
    assert {row.macs for row in rows} == {7776}


def test_remat_shows_what_is_computed_twice():
    twice = jax.checkpoint(lambda x, kernel: jnp.tanh(depthwise(x, kernel)))
    assert sorted(kinds(gradient(twice), X, KERNEL)) == [
        "convolution",
        "convolution",
        "input gradient",
        "kernel gradient",
    ]


def test_a_transposed_convolution_counts_no_zeros():
    kernel, macs = normal(1, 4, 4, 5, 6), X.size // 6 * 16 * 5 * 6
    rows = jaxcnn.explain(gradient(lambda x, k: F.conv_transpose(x, k, stride=2)), X, kernel)
    assert {row.macs for row in rows} == {macs}
    assert {row.kind for row in rows} == {"transposed convolution", "input gradient", "kernel gradient"}
    assert jaxcnn.explain(F.conv_transpose, X, kernel).macs == macs  # of stride 1


def test_the_gradient_of_a_gradient():
    def squared(x, kernel):
        return (gradient(depthwise)(x, kernel)[0] ** 2).sum()

    rows = jaxcnn.explain(jax.grad(squared, (0, 1)), X, KERNEL)
    assert {row.macs for row in rows} == {7776}
    assert {row.kind for row in rows} == {"convolution", "input gradient", "kernel gradient"}


@given(problem=problems())
def test_macs_are_the_same_forward_and_backward(problem):
    assume(min(problem.output) > 0)
    x, kernel, dy = problem.arrays()
    rows = jaxcnn.explain(problem.and_gradients, x, kernel, dy)
    positions = problem.size if max(problem.lhs_dilation) > 1 else problem.output
    macs = (
        math.prod(positions)
        * math.prod(problem.window)
        * problem.batch
        * problem.group_in
        * problem.channels_out
    )
    assert rows[0].macs == macs
    # Backward, a stride and a spread at once are not told apart.
    if min(max(problem.lhs_dilation), max(problem.stride)) == 1:
        assert [row.macs for row in rows] == [macs] * 3


def test_pooling():
    def pooled(x):
        return (F.max_pool(x, 3, stride=2) ** 2).sum() + (F.avg_pool(x, 2, padding=1) ** 2).sum()

    rows = jaxcnn.explain(jax.grad(pooled), X)
    assert {"max pool", "max pool gradient", "sum pool", "sum pool gradient"} <= {row.kind for row in rows}
    of_max = next(row for row in rows if row.kind == "max pool")
    assert (of_max.x, of_max.kernel, of_max.y) == (X.shape, (1, 3, 3, 1), (2, 4, 3, 6))
    assert of_max.options == "stride (1, 2, 2, 1)" and of_max.macs == 0
    assert "max pool tangent" in kinds(lambda x: jax.jvp(lambda x: F.max_pool(x, 3), (x,), (x,)), X)


def test_how_often():
    def body(x, _):
        return depthwise(x, KERNEL), None

    (row,) = nested = jaxcnn.explain(
        lambda x: lax.scan(lambda x, _: lax.scan(body, x, length=3), x, length=5)[0], X
    )
    assert row.times == 15 and nested.macs == 15 * 7776
    (row,) = forever = jaxcnn.explain(
        lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: depthwise(x, KERNEL), x), X
    )
    assert row.times is None and forever.macs == row.macs
    assert str(forever).splitlines()[1].split("  ")[-1]
    branches = [lambda x: depthwise(x, KERNEL), lambda x: F.max_pool(x, 3, stride=1, padding=1)]
    assert kinds(lambda x: lax.switch(0, branches, x), X) == ["convolution", "max pool"]


def test_inside_other_primitives():
    @jax.custom_jvp
    def function(x):
        return depthwise(x, KERNEL)

    function.defjvp(lambda x, dx: (function(*x), dx[0]))
    assert kinds(function, X) == ["convolution"]
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(depthwise, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    (row,) = jaxcnn.explain(spread, X, KERNEL)
    assert row.x == (1, *X.shape[1:])  # what one device does
    assert kinds(jax.vmap(gradient(depthwise), (None, 0)), X, KERNEL[None]).count("kernel gradient") == 1


@pytest.mark.usefixtures("without_onednn")
def test_why_not():
    def plain(x, kernel):
        return Problem((9, 8), (3, 3), groups=6).conv(x, kernel)

    assert jaxcnn.explain(plain, X, KERNEL)[0].reason == "not tagged: no accelerate() is around it"
    with jaxcnn.accelerate():
        assert jaxcnn.explain(plain, X, KERNEL)[0].lowering == "shifted products"
        assert jaxcnn.explain(plain, X.astype(int), KERNEL.astype(int))[0].reason.startswith("int")
        assert jaxcnn.explain(plain, X[:0], KERNEL)[0].reason == "nothing to compute: an axis is empty"
        with jaxcnn.accelerate(onednn=False):
            (row,) = jaxcnn.explain(plain, X, KERNEL)
        assert row.lowering == "shifted products"
        assert row.reason.endswith("no oneDNN: accelerate(onednn=False) is around it")
        with jaxcnn.accelerate(False):
            assert jaxcnn.explain(plain, X, KERNEL)[0].reason == "accelerate(False) is around it"


def test_it_tells_what_is_done():
    for function, rewritten in ((depthwise, True), (jaxcnn.accelerate(False)(depthwise), False)):
        text = jax.jit(lambda *a, f=function: f(*a)).lower(X, KERNEL).as_text()
        (row,) = jaxcnn.explain(function, X, KERNEL)
        assert (row.lowering != "XLA's own") == ("stablehlo.convolution" not in text) == rewritten


def test_arguments_are_those_of_a_call():
    def function(x, how, *, kernel, options):
        assert how == "twice" and options == {"padding": 1, "groups": 6}
        return F.conv(F.conv(x, kernel, **options), kernel, **options), "no array"

    options = {"padding": 1, "groups": 6}
    assert len(jaxcnn.explain(function, X, "twice", kernel=KERNEL, options=options)) == 2


@pytest.mark.parametrize("fn", [X, None, "conv"])
def test_what_cannot_be_called(fn, unchecked):
    with pytest.raises(TypeError, match=r"explain: fn must be callable, got \w+; .*explain\(fn, x\)"):
        jaxcnn.explain(fn, X)
