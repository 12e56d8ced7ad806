"""Which shapes are drawn: half around the faces of a box of parameters, half as users have them.

The box itself is not imported: a shape inside today's may be outside tomorrow's, and both must be right. What
oneDNN is given for the gradient of a kernel has the outputs for a window and the dilation for a stride: sizes
are drawn by their outputs, and dilation is drawn against the outputs as stride is against the window.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tests.lowering.oracle import Problem

FORMS = ("y", "dx", "dkernel", "jvp", "vmap", "second")
GRADIENTS = ("y", "dx", "dkernel")
BATCH = 24  # shapes that one process computes
LARGE = 400_000  # elements of an array

CHANNELS = (1, 1, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 65)


@dataclass(frozen=True)
class Case:
    """A shape, what it is computed with, and the forms to compute."""

    problem: Problem
    origin: str
    forms: tuple[str, ...] = FORMS
    dtype: str = "float32"
    special: str = ""  # "inf" or "nan", in one place of an operand
    operand: int = 0
    mapped: str = "x"  # what vmap maps

    def __str__(self) -> str:
        notes = [self.origin, self.dtype, f"{self.special} in operand {self.operand}" if self.special else ""]
        return f"{literal(self.problem)}  # {', '.join(filter(None, notes))}"


def literal(problem: Problem) -> str:
    """The problem as one writes it, without what is the default."""
    plain = Problem(problem.size, problem.window)
    options = [field.name for field in fields(Problem)][2:]
    said = [
        f"{name}={getattr(problem, name)}"
        for name in options
        if getattr(problem, name) != getattr(plain, name)
    ]
    return f"Problem({', '.join([str(problem.size), str(problem.window), *said])})"


def mode(seed: int, number: int) -> str:
    """How the process runs that has shape `number`: shapes of one batch share it."""
    rng = np.random.default_rng((seed, number // BATCH, 1))
    return str(rng.choice(["plain", "one core", "devices", "threads"], p=[0.7, 0.1, 0.08, 0.12]))


def draw(seed: int, number: int) -> Case:
    """Shape `number` of a seed, always the same."""
    rng = np.random.default_rng((seed, number))
    few = {"devices": ("pmap",), "threads": GRADIENTS}.get(mode(seed, number))
    origin = "faces" if rng.random() < 0.5 else _one(rng, *USERS)
    problem = _fitting(rng, USERS.get(origin, _faces))
    share = rng.random()
    if few:
        return Case(problem, origin, few)
    if share < 0.02:
        return Case(_with(problem, batch=0), f"{origin}, no image", FORMS[:-1])
    if share < 0.08:
        return Case(problem, origin, GRADIENTS, special=_one(rng, "inf", "nan"), operand=_one(rng, 0, 1, 2))
    if share < 0.16:
        return Case(
            problem, origin, dtype=_one(rng, "bfloat16", "float16"), mapped=_one(rng, "x", "kernel", "both")
        )
    if share < 0.22 and problem.batch_groups == 1:
        return Case(_with(problem, numbers=("", "", "")), origin, ("flax",))
    return Case(problem, origin, mapped=_one(rng, "x", "kernel", "both"))


def _fitting(rng: np.random.Generator, family: Callable[[np.random.Generator], Problem]) -> Problem:
    """A problem of the family that the reference computes in a moment, its axes in some order."""
    work = 3e7 if rng.random() < 0.05 else 3e6
    while True:
        problem = family(rng)
        if min(problem.size) < 1 or min(problem.output) < 1:
            continue
        outputs = math.prod(problem.output) * problem.batch * problem.channels_out
        fits = outputs * math.prod(problem.window) * problem.group_in <= work
        axes = zip(problem.size, problem.lhs_dilation, problem.padding, strict=True)
        padded = math.prod((n - 1) * p + 1 + max(low, 0) + max(high, 0) for n, p, (low, high) in axes)
        padded *= problem.batch * problem.batch_groups * problem.channels_in
        if fits and max(padded, *map(math.prod, problem.shapes())) <= LARGE:
            break
    axes = "HWD"[: len(problem.size)]
    share = rng.random()
    if share < 0.2:
        return _with(problem, numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"))
    if share < 0.3:
        shuffled = ("".join(rng.permutation(list(letters))) for letters in problem.numbers)
        return _with(problem, numbers=tuple(shuffled))
    return problem


def _with(problem: Problem, **options: Any) -> Problem:
    return Problem(**{field.name: getattr(problem, field.name) for field in fields(Problem)} | options)


def _one(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def _upto(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _faces(rng: np.random.Generator) -> Problem:
    rank = _one(rng, 1, 1, 2, 2, 2, 3)
    axes = zip(*(_axis(rng, rank) for _ in range(rank)), strict=True)
    size, window, stride, padding, spread, dilation = axes
    kind = _one(rng, "dense", "dense", "dense", "depthwise", "depthwise", "multiplier", "grouped", "by batch")
    channels: dict[str, Any] = dict(group_in=_one(rng, *CHANNELS), group_out=_one(rng, *CHANNELS))
    if kind == "depthwise":
        channels = dict(groups=_one(rng, 2, 3, *CHANNELS[6:]))
    elif kind == "multiplier":
        channels = dict(groups=_one(rng, 2, 3, 8, 16, 17), group_out=_one(rng, 2, 3, 8))
    elif kind == "grouped":
        channels |= dict(groups=_one(rng, 2, 3, 4, 8))
    elif kind == "by batch":
        channels = dict(
            batch_groups=_one(rng, 2, 3, 8), group_in=_one(rng, 1, 3, 8), group_out=_one(rng, 1, 2, 8)
        )
    batch = _one(rng, 1, 1, 2, 3, 8, 16)
    return Problem(
        size,
        window,
        batch,
        stride=stride,
        padding=padding,
        lhs_dilation=spread,
        dilation=dilation,
        **channels,
    )


def _axis(rng: np.random.Generator, rank: int) -> tuple[Any, ...]:
    small = rank == 3
    window = (
        _one(rng, 1, 1, 2, 3, 4) if small else _one(rng, 1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 16, 25, 127, 128, 129)
    )
    outputs = _one(rng, 1, 1, 2, 3, 5, 7, 8, 9, 16, 17)
    if not small and rng.random() < 0.3:
        outputs = _one(rng, 28, 127, 128, 129, 255, 256, 257, 500)
    stride = max(1, _one(rng, 1, 1, 1, 2, 3, window - 1, window, window + 1))
    dilation = max(1, _one(rng, 1, 1, 1, 2, 3, window, outputs - 1, outputs, outputs + 1))
    reach = (window - 1) * dilation + 1
    paddings = (0, 0, (reach - 1) // 2, reach // 2, reach - 1, reach, window, window + 1, -1, reach + stride)
    low = _one(rng, *paddings)
    high = low if rng.random() < 0.5 else _one(rng, *paddings)
    spread = _one(rng, *(1,) * 8, 2, 3)
    span = (outputs - 1) * stride + reach - low - high + _upto(rng, 0, stride - 1)
    return (span - 1) // spread + 1, window, stride, (low, high), spread, dilation


def _same(window: tuple[int, ...], dilation: tuple[int, ...] | None = None) -> tuple[tuple[int, int], ...]:
    reach = [(w - 1) * d for w, d in zip(window, dilation or (1,) * len(window), strict=True)]
    return tuple((n // 2, n - n // 2) for n in reach)


def _eeg(rng):
    """EEGNet: in time, then over the electrodes, then in time again."""
    electrodes, times = _one(rng, 3, 16, 22, 64), _upto(rng, 100, 1125)
    filters, wide = _one(rng, 4, 8, 16), (1, _one(rng, 16, 32, 63, 64, 128))
    shapes = (
        Problem((electrodes, times), wide, _one(rng, 1, 2, 4), 1, filters, padding=_same(wide)),
        Problem((electrodes, times), (electrodes, 1), 2, 1, 2, groups=filters),
        Problem((1, times // 4), (1, 16), 2, groups=2 * filters, padding=_same((1, 16))),
    )
    return shapes[_upto(rng, 0, 2)]


def _spectrogram(rng):
    window = _one(rng, (3, 3), (5, 5), (7, 7), (20, 8), (41, 11), (4, 1), (1, 9))
    stride = _one(rng, (1, 1), (2, 2), (2, 1), (1, 4))
    size, filters = (_one(rng, 40, 64, 80, 128), _upto(rng, 50, 400)), _one(rng, 4, 8, 16, 32, 64)
    return Problem(size, window, _one(rng, 1, 2), 1, filters, stride=stride, padding=_same(window))


def _dilated_line(rng):
    """WaveNet and TCN: causal, dilation to 1024, as rank 1 or as images of height or width 1."""
    window, dilation, n = _one(rng, 2, 3, 5, 7, 9), 2 ** _upto(rng, 0, 10), _upto(rng, 100, 5000)
    before = ((window - 1) * dilation, 0)
    padding = _one(rng, before, before, (before[0] // 2, before[0] // 2), (0, 0))
    options: dict[str, Any] = dict(
        batch=_one(rng, 1, 2, 4), group_in=_one(rng, *CHANNELS), group_out=_one(rng, *CHANNELS)
    )
    return _line(rng, n, window, padding, dilation=dilation, **options)


def _line(rng, n, window, padding, *, stride=1, dilation=1, **options):
    """A line, one in three times as an image whose height or width is 1."""
    place = _one(rng, None, None, None, None, 0, 1)
    if place is None:
        return Problem((n,), (window,), stride=(stride,), padding=(padding,), dilation=(dilation,), **options)

    def two(value, other):
        return (other, value) if place == 0 else (value, other)

    options |= dict(stride=two(stride, 1), padding=two(padding, (0, 0)), dilation=two(dilation, 1))
    return Problem(two(n, 1), two(window, 1), **options)


def _quartznet(rng):
    window, dilation = _one(rng, 33, 39, 51, 63, 75, 87), _one(rng, 1, 1, 2)
    padding = ((window - 1) * dilation // 2,) * 2
    channels, n = _one(rng, 16, 64, 256, 512), _upto(rng, 100, 1000)
    return _line(rng, n, window, padding, stride=_one(rng, 1, 1, 2), dilation=dilation, groups=channels)


def _narrow_image(rng):
    """Images of width 1, and windows as wide as the image."""
    n, width, window = _upto(rng, 20, 600), _one(rng, 1, 1, 2, 9), _one(rng, 1, 3, 8, 9, 31, 91)
    stride = (_one(rng, 1, 2, 4), _one(rng, 1, 1, width))
    options: dict[str, Any] = dict(
        batch=_one(rng, 1, 2), group_in=_one(rng, *CHANNELS, 130), group_out=_one(rng, *CHANNELS)
    )
    return Problem((n, width), (window, width), stride=stride, **options)


def _textcnn(rng):
    words, width, window = _upto(rng, 20, 200), _one(rng, 16, 50, 128, 300), _one(rng, 2, 3, 4, 5)
    options: dict[str, Any] = dict(batch=_one(rng, 1, 2, 8), group_out=_one(rng, 8, 32, 100))
    if rng.random() < 0.5:
        return Problem((words,), (window,), group_in=width, **options)
    return Problem((words, width), (window, width), **options)


def _aspp(rng):
    rate, size = _one(rng, 6, 12, 18, 24, 36), _one(rng, 14, 17, 28, 33)
    groups = _one(rng, 1, 1, 1, 16)
    channels = {} if groups > 1 else dict(group_in=_one(rng, 8, 16, 32), group_out=_one(rng, 8, 16, 32))
    options: dict[str, Any] = dict(
        padding=((rate, rate),) * 2, dilation=(rate, rate), groups=groups, **channels
    )
    return Problem((size, size), (3, 3), _one(rng, 1, 2), **options)


def _patches(rng):
    rank = _one(rng, 1, 2, 2, 2, 3)
    patch = _one(rng, 2, 4, 7, 8, 14, 16, 32, 64) if rank < 3 else _one(rng, 2, 4, 8)
    window, size = (patch,) * rank, (patch * _upto(rng, 1, 14 if rank < 3 else 4),) * rank
    options: dict[str, Any] = dict(group_in=_one(rng, 1, 3), group_out=_one(rng, 8, 16, 64, 192))
    return Problem(size, window, _one(rng, 1, 2), stride=window, **options)


def _audio(rng):
    """M5, wav2vec, SincNet: long windows and strides over one channel."""
    n, (window, stride) = (
        _upto(rng, 1000, 16000),
        _one(rng, (80, 4), (10, 5), (251, 1), (400, 160), (16, 8), (25, 1)),
    )
    padding = _one(rng, (0, 0), (window // 2, window // 2))
    return _line(rng, n, window, padding, stride=stride, group_out=_one(rng, 1, 8, 32, 40, 64))


def _images(rng):
    size = (_one(rng, 7, 8, 14, 16, 28, 32),) * 2
    window, stride = _one(
        rng, ((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((7, 7), 1), ((7, 7), 2), ((1, 1), 2), ((1, 7), 1)
    )
    options: dict[str, Any] = dict(batch=_one(rng, 1, 2, 4), stride=(stride,) * 2, padding=_same(window))
    kind = _one(rng, "first", "dense", "depthwise", "grouped")
    if kind == "depthwise":
        return Problem(size, window, groups=_one(rng, 16, 24, 32, 96), **options)
    groups = _one(rng, 4, 8, 32) if kind == "grouped" else 1
    group_in = _one(rng, 1, 3) if kind == "first" else _one(rng, 4, 8, 16, 32)
    return Problem(size, window, group_in=group_in, group_out=_one(rng, 4, 8, 16), groups=groups, **options)


def _transposed(rng):
    """conv_transpose: U-Net, DCGAN, FCN's upsampling."""
    rank, times = _one(rng, 1, 2, 2, 3), _one(rng, 2, 2, 4, 8, 16)
    window, n = max(1, _one(rng, times, 2 * times, times + 1, times - 1)), _upto(rng, 1, 9)
    low = _upto(rng, 0, window - 1)
    options: dict[str, Any] = dict(
        group_in=_one(rng, 1, 3, 8, 16), group_out=_one(rng, 1, 3, 8, 16), batch=_one(rng, 1, 2)
    )
    return Problem(
        (n,) * rank,
        (window,) * rank,
        padding=((low, window - 1),) * rank,
        lhs_dilation=(times,) * rank,
        **options,
    )


def _volumes(rng):
    size, window = (
        (_upto(rng, 4, 12), *(_one(rng, 8, 12, 16),) * 2),
        _one(rng, (3, 3, 3), (1, 3, 3), (3, 1, 1), (2, 2, 2)),
    )
    options: dict[str, Any] = dict(stride=_one(rng, (1, 1, 1), (2, 2, 2), (1, 2, 2)), padding=_same(window))
    return Problem(size, window, 1, _one(rng, 1, 3, 8), _one(rng, 4, 8, 16), **options)


USERS = {
    "EEG": _eeg,
    "spectrogram": _spectrogram,
    "dilated line": _dilated_line,
    "QuartzNet": _quartznet,
    "narrow image": _narrow_image,
    "TextCNN": _textcnn,
    "ASPP": _aspp,
    "patches": _patches,
    "audio": _audio,
    "images": _images,
    "transposed": _transposed,
    "volumes": _volumes,
}
