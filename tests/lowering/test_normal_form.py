"""What is left of a convolution in normal form, and that it computes the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given

from jaxcnn.lowering.normal_form import normal_form
from tests.lowering.oracle import Problem, errors, problems
from tests.lowering.test_convolutions import normal_form_of


@given(problem=problems())
def test_it_computes_the_same(problem):
    assume(min(problem.output) > 0 and max(problem.lhs_dilation) == 1 and problem.batch_groups == 1)
    plain = Problem(**{**vars(problem), "numbers": ("", "", "")})
    x, kernel, dy = map(jnp.asarray, plain.arrays())
    expected = plain.oracle(x, kernel, dy)
    form = normal_form(normal_form_of(plain))
    if form is None:
        assert not expected[0].any()
        return
    y, pull = jax.vjp(
        lambda x, kernel: form.y(form.conv.unchanged(form.x(x), form.kernel(kernel))), x, kernel
    )
    assert max(errors((y, *pull(dy)), expected)) < 1e-5
    # The gradient of the kernel by the same steps.
    exact = normal_form(normal_form_of(plain), of_gradient=True)
    assert exact is not None
    _, pull = jax.vjp(lambda kernel: exact.conv.unchanged(exact.x(x), kernel), exact.kernel(kernel))
    assert errors([exact.kernel_gradient(pull(exact.dy(dy))[0])], expected[2:])[0] < 1e-5


def left_of(problem):
    form = normal_form(normal_form_of(problem))
    assert form is not None
    conv = form.conv
    return conv.batch, conv.size, conv.channels_in, conv.window, conv.output


@pytest.mark.parametrize(
    ("problem", "batch", "size", "channels", "window", "output"),
    [
        (Problem((22, 100), (1, 64), batch=3, padding=((0, 0), (31, 32))), 66, (100,), 1, (64,), (100,)),
        (Problem((50, 1), (9, 1), group_in=5), 2, (50,), 5, (9,), (42,)),
        (Problem((40, 30), (5, 30)), 2, (40,), 30, (5,), (36,)),
        (Problem((32, 48), (16, 16), group_in=3, stride=(16, 16)), 2, (32, 3), 48, (16, 1), (2, 3)),
        (Problem((8, 9), (2, 3), group_in=5, stride=(2, 3)), 2, (8, 3), 15, (2, 1), (4, 3)),
        (Problem((40, 1), (3, 8), group_in=5, padding=((1, 1), (7, 7))), 2, (40,), 5, (3,), (40,)),
        (Problem((7, 6), (7, 6), group_in=3), 2, (), 126, (), ()),
        (Problem((7, 6), (1, 1), group_in=3), 84, (), 3, (), ()),
        (Problem((40, 100), (1, 5), stride=(8, 2)), 10, (100,), 1, (5,), (48,)),
        (Problem((9, 8), (3, 3), dilation=(9, 8), padding=((9, 9), (8, 8))), 144, (), 1, (), ()),
        (Problem((9, 8), (1, 3), groups=5), 2, (9, 8), 5, (1, 3), (9, 6)),
        (Problem((1, 1), (1, 1), groups=5), 2, (1,), 5, (1,), (1,)),
        (Problem((30, 8), (3, 2), stride=(9, 1)), 2, (12, 8), 1, (3, 2), (4, 7)),
        (Problem((12, 9), (3, 3), padding=((5, 7), (1, 1))), 2, (12, 9), 1, (3, 3), (14, 9)),
    ],
    ids=[
        "a window of one row: lines are images",
        "images of width 1",
        "a window as wide as the image",
        "a patch embedding",
        "windows side by side",
        "one tap for each position",
        "a window as large as the image",
        "one tap",
        "one tap and a stride",
        "all taps but one in padding",
        "with groups lines stay",
        "one element with groups keeps an axis",
        "windows less than a stride long",
        "windows that lie in padding",
    ],
)
def test_what_is_left(problem, batch, size, channels, window, output):
    assert left_of(problem) == (batch, size, channels, window, output)


def test_nothing_is_left():
    assert normal_form(normal_form_of(Problem((3, 4), (2, 2), padding=((5, -4), (0, 0))))) is None


def test_no_axis_of_a_divided_array_is_merged():
    conv = replace(normal_form_of(Problem((22, 100), (1, 64))), partitioned=True)
    form = normal_form(conv)
    assert form is not None and (form.conv.batch, form.conv.size) == (2, (22, 100))


def test_what_is_not_read_is_not_multiplied():
    problem = Problem((30, 8), (3, 2), stride=(9, 1))
    x, kernel, _ = map(jnp.asarray, problem.arrays())
    x = x.at[:, 5].set(np.nan)  # between two windows
    form = normal_form(normal_form_of(problem))
    assert form is not None
    assert np.isfinite(form.y(form.conv.unchanged(form.x(x), form.kernel(kernel)))).all()
