"""Shapes that were once wrong, ended a process, waited for ever or compiled for minutes.

`old` says with which oneDNN a case failed ("3.7.3" is JAX 0.10's, "3.12.3" JAX 0.12's, all AVX-512 code).
"""

from typing import NamedTuple

from tests.fuzz.draw import Case
from tests.lowering.oracle import Problem

BOTH = ("3.7.3", "3.12.3")


class Entry(NamedTuple):
    """A case with its name and the section it belongs to."""

    name: str
    section: str  # a: an axis of one position; b: stride > window; c: code of last resort; e: compile time
    case: Case
    old: tuple[str, ...]


def _entry(
    name: str, section: str, problem: Problem, *forms: str, old: tuple[str, ...] = ("3.7.3",)
) -> Entry:
    return Entry(name, section, Case(problem, name, forms or ("y", "dx", "dkernel")), old)


def _line(n, window, low, high=None, **options):
    wanted = {name: (options.pop(name, 1),) for name in ("stride", "dilation")}
    return Problem((n,), (window,), padding=((low, low if high is None else high),), **wanted, **options)


def _patch(size: int, patch: int, **options) -> Problem:
    return Problem((size,) * 2, (patch,) * 2, stride=(patch,) * 2, **options)


CORPUS = (
    _entry(
        "EEGNet",
        "a",
        Problem((22, 1125), (1, 64), 16, group_out=8, padding=((0, 0), (31, 32))),
    ),
    _entry(
        "EEGNet, smaller",
        "a",
        Problem((22, 256), (1, 64), 2, group_out=8, padding=((0, 0), (31, 32))),
    ),
    _entry("a volume of width 1", "a", Problem((9, 97, 1), (9, 91, 1), 1, 22, 3)),
    _entry("the same with 8 rows", "a", Problem((8, 97, 1), (8, 91, 1), 1, 22, 3)),
    _entry("the same as an image", "a", Problem((9, 97), (9, 91), 1, 22, 3)),
    _entry("a line as an image of width 1", "a", Problem((500, 1), (91, 1), 1, 130, 64)),
    _entry(
        "a line as an image of width 1, stride 2", "a", Problem((500, 1), (91, 1), 1, 130, 64, stride=(2, 1))
    ),
    _entry("a line", "a", Problem((500,), (91,), 1, 130, 64)),
    _entry(
        "a volume of width 1, stride 4", "a", Problem((8, 200, 1), (8, 1, 1), 1, 64, 16, stride=(1, 4, 1))
    ),
    _entry(
        "WaveNet, dilation 256",
        "b",
        Problem((1, 4000), (1, 9), 1, 1, 8, padding=((0, 0), (2048, 0)), dilation=(1, 256)),
        old=BOTH,
    ),
    _entry("WaveNet, dilation 512", "b", Problem((1, 4143), (1, 9), 2, 1, 16, dilation=(1, 512)), old=BOTH),
    _entry(
        "stride over window",
        "b",
        Problem((4000, 100), (1, 5), 1, 1, 25, stride=(8, 2)),
        "y",
        "dkernel",
        old=BOTH,
    ),
    _entry(
        "stride over window, a volume",
        "b",
        Problem((47, 30, 138), (47, 3, 3), 1, 1, 16, stride=(2, 8, 1)),
        "y",
        old=BOTH,
    ),
    _entry("QuartzNet", "c", _line(500, 87, 86, batch=2, groups=512, dilation=2), old=BOTH),
    _entry(
        "a grouped line", "c", _line(37, 5, 6, batch=1, groups=2, group_out=4, stride=2, dilation=3), old=BOTH
    ),
    _entry("17 groups", "c", _line(1000, 127, 126, batch=1, groups=17, dilation=2), old=BOTH),
    _entry("24 groups", "c", _line(1000, 25, 0, batch=1, groups=24, stride=5, dilation=2), old=BOTH),
    _entry("3 groups", "c", _line(4000, 25, 12, batch=1, groups=3, dilation=64), old=BOTH),
    _entry(
        "depthwise 7x7",
        "c",
        Problem((23, 13), (7, 7), groups=32, stride=(4, 4), padding=((5, 6),) * 2, dilation=(2, 2)),
        old=BOTH,
    ),
    _entry("tall window", "e", Problem((200, 5), (31, 3), 2, 3, 1, stride=(3, 1), dilation=(2, 1)), old=BOTH),
    _entry("patches of 16", "e", _patch(224, 16, group_in=3, group_out=192), old=BOTH),
    _entry("patches of 32, stride 16", "e", Problem((64, 64), (32, 32), 2, 3, 16, stride=(16, 16)), old=BOTH),
    _entry("patches of 64", "e", _patch(128, 64, group_in=3, group_out=16), old=BOTH),
    _entry(
        "FCN-32s",
        "e",
        Problem((7, 7), (64, 64), 1, 21, 21, padding=((63, 63),) * 2, lhs_dilation=(32, 32)),
        old=BOTH,
    ),
    # Known in oneDNN or XLA, and not seen here so far.
    _entry(
        "a block of outputs wholly in padding",
        "d",
        Problem((3, 3), (3, 3), 1, 16, 16, padding=((40, 40),) * 2),
    ),
    _entry(
        "negative padding from 17 channels", "d", Problem((9, 9), (3, 3), 1, 17, 17, padding=((-2, -1),) * 2)
    ),
)
