"""Marked convolutions and their gradients against NumPy in float64: drawn ones, and one for every rewrite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from jax import lax

import jaxcnn
from jaxcnn.lowering.choice import CONVOLUTIONS, KERNEL_GRADIENTS, LHS_DILATED
from jaxcnn.lowering.convolution import convolution_of
from jaxcnn.lowering.onednn.available import unavailable
from tests.lowering.oracle import Problem, errors, problems

ONE_TAP = [
    Problem((9,), (1,), group_in=3, group_out=4, stride=(2,)),
    Problem((5, 6), (1, 1), group_in=4, group_out=3, stride=(2, 3), padding=((1, 0), (2, 1))),
]
GROUPED = [
    Problem((11, 13), (3, 2), batch=3, group_in=2, group_out=3, groups=4, padding=((1, 2), (0, 1))),
    Problem((9, 38), (3, 4), group_in=3, groups=2, stride=(2, 3), dilation=(1, 2), padding=((2, 0), (4, 5))),
]
DEPTHWISE = [
    Problem((17, 6), (3, 5), batch=4, groups=5, group_out=2, padding=((1, 1), (2, 2))),
    Problem((8, 9), (2, 3), batch=3, groups=4, stride=(3, 2), dilation=(2, 1), padding=((0, 3), (1, 0))),
    Problem((23,), (4,), groups=3, stride=(2,), padding=((3, 1),)),
    Problem((5, 4, 6), (2, 3, 2), groups=3, padding=((1, 0), (1, 1), (0, 2))),
]
DENSE = [
    Problem((7, 9), (3, 2), group_in=4, group_out=5, stride=(2, 1), padding=((1, 1), (0, 1))),
    Problem((6, 5), (3, 3), group_in=3, group_out=2, dilation=(4, 3), padding=((4, 4), (3, 3))),
    Problem((14,), (5,), group_in=3, group_out=2, stride=(2,), padding=((6, 7),)),
]
VOLUMES = [
    Problem((5, 6, 4), (3, 2, 3), group_in=3, group_out=4, padding=((1, 1), (0, 1), (2, 1))),
    Problem((6, 5, 7), (2, 3, 2), group_in=2, group_out=3, stride=(2, 1, 3), dilation=(3, 1, 2)),
]
SPREAD = [
    Problem((5, 6), (4, 4), group_in=3, group_out=4, lhs_dilation=(2, 2), padding=((2, 2), (1, 3))),
    Problem(
        (6, 4),
        (3, 2),
        groups=3,
        lhs_dilation=(3, 2),
        stride=(2, 1),
        dilation=(2, 3),
        padding=((4, 1), (3, -1)),
    ),
    Problem((4, 1), (2, 3), group_in=2, group_out=2, lhs_dilation=(4, 3), padding=((0, 5), (2, 2))),
]
ALIKE = [
    Problem((5, 6), (4, 4), group_in=3, group_out=4, lhs_dilation=(2, 2), padding=((2, 2), (1, 3))),
    Problem(
        (5, 3), (7, 2), group_in=3, group_out=2, groups=2, lhs_dilation=(3, 5), padding=((4, 1), (3, -1))
    ),
    Problem((4, 2), (2, 3), groups=3, group_out=2, lhs_dilation=(4, 3), padding=((0, 5), (7, 2))),
    Problem((3, 2, 4), (3, 4, 1), group_in=2, lhs_dilation=(2, 2, 1), padding=((1, 1), (0, 3), (0, 0))),
]
# What each row of the tables can compute, chosen or not: a new one needs an entry.
FITTING = {
    "phases": SPREAD,
    "all phases at once": ALIKE,
    "one matrix product": ONE_TAP,
    "shifted products": DEPTHWISE,
    "shifted planes": GROUPED,
    "taps by phase": GROUPED,
    "group by group": GROUPED,
    "plane by plane": VOLUMES,
    "a matrix product a tap": DENSE,
    "oneDNN's convolution": [*ONE_TAP, *DENSE, *GROUPED, *DEPTHWISE[:3]],
    "XLA's own": DENSE,
}
# Large enough for the thresholds of the tables.
REAL = {
    "stem": Problem((32, 30), (7, 7), group_in=3, group_out=16, stride=(2, 2), padding=((3, 3), (3, 3))),
    "dense": Problem((14, 15), (3, 3), group_in=32, group_out=24, padding=((1, 1), (1, 1))),
    "pointwise": Problem((14, 15), (1, 1), group_in=32, group_out=64),
    "depthwise": Problem((33, 34), (3, 3), batch=8, groups=16, padding=((1, 1), (1, 1))),
    "depthwise, large window": Problem((14, 15), (7, 5), batch=5, groups=24, padding=((3, 3), (2, 2))),
    "depthwise, stride 2": Problem(
        (28, 27), (5, 5), batch=6, groups=24, stride=(2, 2), padding=((2, 2),) * 2
    ),
    "groups of 4": Problem((35, 36), (3, 3), group_in=4, group_out=4, groups=8, padding=((1, 1), (1, 1))),
    "groups of 4, stride 2": Problem(
        (65, 66), (3, 3), group_in=4, group_out=4, groups=4, stride=(2, 2), padding=((1, 1), (1, 1))
    ),
    "groups of 8": Problem((14, 15), (3, 3), group_in=8, group_out=8, groups=4, padding=((1, 1), (1, 1))),
    "groups of 32": Problem((7, 8), (3, 3), group_in=32, group_out=16, groups=3, padding=((1, 1), (1, 1))),
    "dilated by 12": Problem(
        (14, 15), (3, 3), group_in=32, group_out=32, dilation=(12, 12), padding=((12, 12),) * 2
    ),
    "transposed": Problem(
        (14, 13), (4, 4), group_in=16, group_out=16, lhs_dilation=(2, 2), padding=((2, 2),) * 2
    ),
    "line": Problem((256,), (9,), group_in=16, group_out=16, padding=((4, 4),)),
    "volume": Problem((8, 16, 15), (3, 3, 3), group_in=8, group_out=16, padding=((1, 1),) * 3),
    "512 channels": Problem((7, 7), (3, 3), group_in=512, group_out=512, padding=((1, 1), (1, 1))),
}


def check(problem: Problem) -> None:
    """The value and both gradients are no farther from the oracle than 1e-5, or than those of lax alone."""
    arrays = problem.arrays()
    expected = problem.oracle(*arrays)
    with jaxcnn.accelerate():
        found = jax.jit(problem.and_gradients)(*arrays)
    for result, oracle in zip(found, expected, strict=True):
        assert result.shape == oracle.shape and result.dtype == np.float32 and np.isfinite(result).all()
    ours = errors(found, expected)
    if max(ours) > 1e-5:
        with jaxcnn.accelerate(False):
            alone = errors(jax.jit(problem.and_gradients)(*arrays), expected)
        assert all(a <= max(1e-5, b) for a, b in zip(ours, alone, strict=True)), (ours, alone)


@given(problem=problems())
def test_any_convolution_and_its_gradients(problem):
    assume(min(problem.output) > 0)
    check(problem)


@given(problem=problems())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("without_onednn")
def test_any_convolution_and_its_gradients_without_onednn(problem):
    assume(min(problem.output) > 0)
    check(problem)


@given(problem=problems(max_rank=2))
def test_axes_spelt_as_letters(problem):
    assume(min(problem.output) > 0)
    x, kernel, _ = problem.arrays()
    # lax reads the order of the options' axes off the letters of the kernel: none of them are given here.
    with jaxcnn.accelerate():
        y = lax.conv_general_dilated(
            x,
            kernel,
            (1,) * len(problem.size),
            "SAME",
            dimension_numbers=problem.numbers,
            feature_group_count=problem.groups,
            batch_group_count=problem.batch_groups,
        )
    same = tuple(((w - 1) // 2, w // 2) for w in problem.window)
    plain = Problem(**{**vars(problem), "stride": (), "lhs_dilation": (), "dilation": (), "padding": same})
    dy = np.zeros(plain.shapes()[2], np.float32)
    assert errors([y], plain.oracle(x, kernel, dy)[:1])[0] < 1e-5


@pytest.mark.parametrize("name", REAL)
@pytest.mark.usefixtures("either")
def test_real_sizes(name):
    check(REAL[name])


def normal_form_of(problem: Problem) -> Any:
    x, kernel, y = (jax.ShapeDtypeStruct(shape, np.float32) for shape in problem.shapes())
    params = {
        "window_strides": problem.stride,
        "padding": problem.padding,
        "lhs_dilation": problem.lhs_dilation,
        "rhs_dilation": problem.dilation,
        "dimension_numbers": problem.dimension_numbers,
        "feature_group_count": problem.groups,
        "batch_group_count": problem.batch_groups,
        "precision": None,
    }
    return convolution_of(x, kernel, y, params)


def each_problem(table):
    return [
        pytest.param(row, problem, id=f"{row.name}-{place}")
        for row in table
        if "oneDNN" not in row.name or not unavailable()
        for place, problem in enumerate(FITTING[row.name])
    ]


@pytest.mark.parametrize(("row", "problem"), each_problem((*LHS_DILATED, *CONVOLUTIONS)))
def test_every_row_of_the_table_of_convolutions(row, problem):
    arrays = problem.arrays()
    y = jax.jit(row.rewrite, static_argnums=0)(normal_form_of(problem), *arrays[:2])
    assert errors([y], problem.oracle(*arrays)[:1])[0] < 1e-5


@pytest.mark.parametrize(("row", "problem"), each_problem(KERNEL_GRADIENTS))
def test_every_row_of_the_table_of_kernel_gradients(row, problem):
    x, kernel, dy = problem.arrays()
    gradient = jax.jit(row.rewrite, static_argnums=0)(normal_form_of(problem), x, dy)
    assert errors([gradient], problem.oracle(x, kernel, dy)[2:])[0] < 1e-5


@pytest.mark.parametrize(
    "padding", [((-3, 5), (0, 0)), ((4, -4), (1, 1)), ((-3, -1), (-1, 0)), ((-8, 12), (0, 0))]
)
@pytest.mark.parametrize("groups", [1, 3])
def test_padding_that_crops_even_all_there_is(padding, groups):
    check(Problem((7, 5), (2, 3), group_in=2, groups=groups, padding=padding))


def test_no_spatial_axes():
    x, kernel = jnp.ones((2, 3)), jnp.full((3, 4), 2.0)
    numbers = lax.ConvDimensionNumbers((0, 1), (1, 0), (0, 1))
    with jaxcnn.accelerate():
        y = lax.conv_general_dilated(x, kernel, (), (), dimension_numbers=numbers)
    np.testing.assert_array_equal(y, np.full((2, 4), 6))


@pytest.mark.parametrize("axis", ["batch", "image", "channels_in", "channels_out"])
def test_what_is_empty_stays_empty(axis):
    x = jnp.zeros(
        (0 if axis == "batch" else 2, 6, 0 if axis == "image" else 5, 0 if axis == "channels_in" else 3)
    )
    kernel = jnp.ones((3, 3, x.shape[-1], 0 if axis == "channels_out" else 4))

    def total(x, kernel):
        y = lax.conv_general_dilated(
            x, kernel, (1, 1), ((1, 1),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.sum(), y

    with jaxcnn.accelerate():
        (gradients, y) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(x, kernel)
    assert [g.shape for g in gradients] == [x.shape, kernel.shape]
    assert not y.any() and not gradients[1].any()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("depthwise", np.nan),
        ("groups of 4", np.inf),
        ("groups of 32", np.nan),
        ("dense", np.inf),
        ("transposed", np.inf),
    ],
)
@pytest.mark.usefixtures("either")
def test_what_is_not_finite_stays_in_its_image_and_its_group(name, number):
    problem = REAL[name]
    x, kernel, dy = problem.arrays()
    x[1, ..., 0][(2,) * len(problem.size)] = number  # one element of the first group of the second image
    with jaxcnn.accelerate():
        y, dx, dkernel = jax.jit(problem.and_gradients)(x, kernel, dy)
    with jaxcnn.accelerate(False):
        expected = jax.jit(problem.and_gradients)(x, kernel, dy)
    bad = ~np.isfinite(y)
    assert 0 < bad.sum() < bad.size
    assert not bad[0].any() and not bad[..., problem.group_out :].any()
    np.testing.assert_array_equal(bad, ~np.isfinite(expected[0]))
    np.testing.assert_array_equal(np.isfinite(dkernel), np.isfinite(expected[2]))
    assert np.isfinite(dkernel[..., problem.group_out :]).all()
    assert np.isfinite(dx).all()


# One element is infinite: outputs that do not read it stay finite, whatever zeros a rewrite puts in between.
STRIDED = {
    "few channels, stride 2": (Problem((17, 17), (3, 3), group_in=3, group_out=16, stride=(2, 2)), "dy"),
    "a stem": (
        Problem((32, 32), (7, 7), group_in=3, group_out=64, stride=(2, 2), padding=((3, 3), (3, 3))),
        "dy",
    ),
    "stride 4": (Problem((35, 35), (11, 11), group_in=3, group_out=16, stride=(4, 4)), "dy"),
    "transposed": (Problem((8, 8), (3, 3), group_in=16, group_out=3, lhs_dilation=(2, 2)), "x"),
    "windows apart": (Problem((9, 9), (3, 3), group_in=2, group_out=16, lhs_dilation=(4, 4)), "x"),
    "patches": (Problem((20, 20), (4, 4), group_in=3, group_out=8, stride=(4, 4)), "dy"),
}


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.usefixtures("either")
def test_what_is_not_finite_is_read_by_its_own_outputs_only(name):
    problem, place = STRIDED[name]
    arrays: dict[str, np.ndarray] = dict(zip(("x", "kernel", "dy"), problem.arrays(), strict=True))
    arrays[place][0, 1, 2, 1] = np.inf
    found = {}
    for enabled in (True, False):
        with jaxcnn.accelerate(enabled):
            found[enabled] = jax.jit(problem.and_gradients)(*arrays.values())
    for ours, plain in zip(found[True], found[False], strict=True):
        assert not (np.isfinite(plain) & ~np.isfinite(ours)).any()  # plain: padding times inf is nan


@pytest.mark.parametrize("groups", [2, 4])
def test_products_with_groups(groups):
    x, kernel = np.ones((3, 8), np.float32), np.ones((8 // groups, 8), np.float32)
    numbers = lax.ConvDimensionNumbers((0, 1), (1, 0), (0, 1))

    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (), (), dimension_numbers=numbers, feature_group_count=groups
        )

    with jaxcnn.accelerate():
        y, pull = jax.vjp(conv, x, kernel)
        dx, dkernel = pull(y)
    np.testing.assert_array_equal(y, np.full((3, 8), 8 // groups))
    assert dx.shape == x.shape and dkernel.shape == kernel.shape
