"""How much a convolution and its gradients are written out: compiling must not take minutes."""

import jax
import pytest

import jaxcnn
from tests.fuzz.corpus import CORPUS
from tests.lowering.oracle import Problem

MOST = 300  # for one convolution or one gradient
KINDS = {
    "dense": {"group_in": 3, "group_out": 8},
    "grouped": {"group_in": 2, "group_out": 2, "groups": 3},
    "depthwise": {"groups": 4},
}


def operations(problem):
    """Of y, of dx and of dkernel."""
    x, kernel, dy = (jax.ShapeDtypeStruct(shape, "float32") for shape in problem.shapes())
    forms = {
        "y": lambda x, kernel, dy: problem.conv(x, kernel),
        "dx": lambda x, kernel, dy: jax.linear_transpose(lambda x: problem.conv(x, kernel), x)(dy),
        "dkernel": lambda x, kernel, dy: jax.linear_transpose(lambda k: problem.conv(x, k), kernel)(dy),
    }
    return {
        name: jax.jit(form).lower(x, kernel, dy).as_text().count(" stablehlo.")
        for name, form in forms.items()
    }


def check(problem, onednn):
    with jaxcnn.accelerate(onednn=onednn):
        found = operations(problem)
    assert all(number <= MOST for number in found.values()), found


@pytest.mark.parametrize("onednn", [True, False], ids=["with oneDNN", "without"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_windows_of_any_length(stride, kind, onednn):
    for window in (2, 3, 5, 8, 16, 32, 64):
        n = max(4 * stride, window + 2 * stride)
        options = {**KINDS[kind], "padding": ((window // 2,) * 2,) * 2}
        check(Problem((n, n - 1), (window, window), stride=(stride, stride), **options), onednn)
        check(Problem((6, 5), (window, window), lhs_dilation=(stride, stride), **options), onednn)


@pytest.mark.parametrize("onednn", [True, False], ids=["with oneDNN", "without"])
@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_shapes_that_were_written_out_at_length(entry, onednn):
    check(entry.case.problem, onednn)


@pytest.mark.parametrize(
    "problem",
    [
        Problem((12, 6, 53), (1, 1, 3), batch=1, group_in=3, group_out=8, batch_groups=3, stride=(2, 2, 3),
                lhs_dilation=(3, 1, 1), dilation=(16, 1, 2)),
        Problem((16, 7037), (1, 127), batch=1, group_out=24, stride=(1, 126), dilation=(15, 28)),
        Problem((4, 5), (128, 1), group_in=8, group_out=2, batch_groups=2, stride=(1, 2),
                padding=((191, 191), (-1, 2)), lhs_dilation=(1, 2), dilation=(3, 1)),
        Problem((20000,), (4000,), batch=1, groups=3),
        Problem((9, 9, 9), (5, 5, 5), groups=3, stride=(2, 2, 2), padding=((2, 2),) * 3),
        Problem((12, 14, 14), (5, 3, 3), group_in=16, group_out=4, padding=((2, 1),) * 3),
        Problem((40, 41), (9, 9), group_in=64, group_out=3, lhs_dilation=(3, 3), dilation=(2, 2)),
    ],
    ids=[
        "loops in phases",
        "phases without taps",
        "planes in phases",
        "a long depthwise line",
        "a depthwise volume",
        "few channels out of a volume",
        "phases of few channels",
    ],
)  # fmt: skip
def test_odd_ones(problem):
    check(problem, True)
    check(problem, False)
