"""Every dtype is computed right, or handed on."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests.lowering.oracle import Problem, errors

PROBLEMS = {
    "depthwise": Problem((9, 8), (3, 2), batch=3, groups=6, padding=((1, 1), (0, 1))),
    "grouped": Problem((9, 8), (3, 2), group_in=3, group_out=2, groups=2, stride=(2, 1)),
    "transposed": Problem(
        (5, 4), (3, 2), group_in=3, group_out=4, lhs_dilation=(2, 2), padding=((1, 2), (1, 1))
    ),
    "pointwise": Problem((5, 4), (1, 1), group_in=9, group_out=4),
}


def text(function, *arrays):
    """The StableHLO of a function, without the marks."""
    lowered = jax.jit(lambda *a: function(*a)).lower(*arrays).as_text()
    return re.sub(r'(mhlo\.frontend_attributes = )?\{jaxcnn\w* = "\w+"\},? ?|( \{\})', "", lowered)


def plain_and_marked(function, *arrays):
    found = []
    for enabled in (False, True):
        with jaxcnn.accelerate(enabled):
            found.append(text(function, *arrays))
    return found


def test_marks_are_all_that_text_leaves_out():
    x, kernel, _ = PROBLEMS["depthwise"].arrays()
    plain, marked = plain_and_marked(PROBLEMS["depthwise"].conv, x, kernel)
    assert plain != marked
    assert text(PROBLEMS["depthwise"].conv, x, kernel) == plain


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_is_summed_in_float32(dtype, kind):
    problem = PROBLEMS[kind]
    arrays = [array.astype(dtype) for array in problem.arrays()]
    with jaxcnn.accelerate():
        found = jax.jit(problem.and_gradients)(*arrays)
    for result, exact in zip(found, problem.oracle(*arrays), strict=True):
        assert result.dtype == dtype
        rounding = float(jnp.finfo(dtype).eps) / 2 * np.abs(exact)
        assert (np.abs(np.asarray(result, np.float64) - exact) <= rounding + 1e-5).all()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_wider_result_of_narrow_operands(kind):
    problem = PROBLEMS[kind]
    x, kernel, dy = problem.arrays()
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    with jaxcnn.accelerate():
        y = jax.jit(lambda x, kernel: problem.conv(x, kernel, preferred_element_type=jnp.float32))(x, kernel)
    assert y.dtype == jnp.float32
    assert errors([y], problem.oracle(x, kernel, dy)[:1])[0] < 1e-6


@pytest.mark.parametrize("kind", PROBLEMS)
def test_float64_keeps_its_digits(kind):
    problem = PROBLEMS[kind]
    arrays = problem.arrays(dtype=np.float64)
    with jax.enable_x64(True), jaxcnn.accelerate():
        found = jax.jit(problem.and_gradients)(*arrays)
        assert all(result.dtype == np.float64 for result in found)
    assert max(errors(found, problem.oracle(*arrays))) < 1e-14


def test_float64_results_of_float32_operands():
    problem = PROBLEMS["depthwise"]
    x, kernel, dy = problem.arrays()
    with jax.enable_x64(True), jaxcnn.accelerate():
        y = jax.jit(lambda x, kernel: problem.conv(x, kernel, preferred_element_type=np.float64))(x, kernel)
    assert y.dtype == np.float64
    assert errors([y], problem.oracle(x, kernel, dy)[:1])[0] < 1e-14


@pytest.mark.parametrize("wider", [None, np.int32])
@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_integers_are_handed_on(dtype, wider):
    problem = PROBLEMS["depthwise"]
    x, kernel = (np.round(3 * array).astype(dtype) for array in problem.arrays()[:2])

    def conv(x, kernel):
        return problem.conv(x, kernel, preferred_element_type=wider)

    plain, marked = plain_and_marked(conv, x, kernel)
    assert plain == marked
    with jaxcnn.accelerate():
        y = conv(x, kernel)
        assert (
            jaxcnn.explain(conv, x, kernel)[0].reason
            == f"{np.dtype(dtype)}: the rewrites are for real floating dtypes"
        )
    assert y.dtype == wider or dtype
    np.testing.assert_array_equal(y, problem.oracle(x, kernel, np.zeros(y.shape))[0])


@pytest.mark.parametrize("kind", PROBLEMS)
def test_complex_numbers(kind):
    problem = PROBLEMS[kind]
    x, kernel, _ = problem.arrays()
    _, imaginary, _ = problem.arrays(seed=1)
    turned = x[::-1] + 1j * x
    weights = kernel + 1j * imaginary
    with jaxcnn.accelerate():
        y = jax.jit(problem.conv)(turned, weights)
    assert y.dtype == np.complex64

    def real(x, kernel):
        return problem.oracle(x, kernel, np.zeros(y.shape))[0]

    expected = (
        real(x[::-1], kernel) - real(x, imaginary),
        real(x[::-1], imaginary) + real(x, kernel),
    )
    assert max(errors((y.real, y.imag), expected)) < 1e-5
