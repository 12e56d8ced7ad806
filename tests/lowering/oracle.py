"""Any lax.conv_general_dilated with its two gradients, in float64 NumPy: one tap after the other."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st
from jax import lax


@dataclass(frozen=True)
class Problem:
    """A convolution as it is given to lax; axes stand where the strings say ("NHWC", "HWIO", "NHWC")."""

    size: tuple[int, ...]
    window: tuple[int, ...]
    batch: int = 2
    group_in: int = 1
    group_out: int = 1
    groups: int = 1
    batch_groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    lhs_dilation: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    numbers: tuple[str, str, str] = field(default=("", "", ""))

    def __post_init__(self):
        rank = len(self.size)
        for name, default in (("stride", 1), ("padding", (0, 0)), ("lhs_dilation", 1), ("dilation", 1)):
            object.__setattr__(self, name, tuple(getattr(self, name)) or (default,) * rank)
        axes = "HWD"[:rank]
        if not self.numbers[0]:
            object.__setattr__(self, "numbers", (f"N{axes}C", f"{axes}IO", f"N{axes}C"))

    @property
    def channels_in(self):
        return self.group_in * self.groups

    @property
    def channels_out(self):
        return self.group_out * self.groups * self.batch_groups

    @property
    def output(self):
        spans = zip(
            self.size, self.window, self.stride, self.padding, self.lhs_dilation, self.dilation, strict=True
        )
        return tuple(
            ((n - 1) * p + 1 + low + high - (w - 1) * d - 1) // s + 1 for n, w, s, (low, high), p, d in spans
        )

    @property
    def dimension_numbers(self):
        """Numbers of the axes with H, W, D in this order, where lax would take the order of the kernel's."""
        axes = "HWD"[: len(self.size)]
        wanted = (f"NC{axes}", f"OI{axes}", f"NC{axes}")
        return lax.ConvDimensionNumbers(
            *(tuple(map(mine.index, letters)) for mine, letters in zip(self.numbers, wanted, strict=True))
        )

    def shapes(self):
        """Of x, of the kernel and of y."""
        axes = "HWD"[: len(self.size)]
        x = {
            "N": self.batch * self.batch_groups,
            "C": self.channels_in,
            **dict(zip(axes, self.size, strict=True)),
        }
        kernel = {"I": self.group_in, "O": self.channels_out, **dict(zip(axes, self.window, strict=True))}
        y = {"N": self.batch, "C": self.channels_out, **dict(zip(axes, self.output, strict=True))}
        return [
            tuple(sizes[letter] for letter in letters)
            for letters, sizes in zip(self.numbers, (x, kernel, y), strict=True)
        ]

    def arrays(self, seed=0, dtype: Any = np.float32):
        """Normal numbers for x, for the kernel and for a cotangent of y."""
        draw = np.random.default_rng(seed)
        return tuple(draw.normal(size=shape).astype(dtype) for shape in self.shapes())

    def conv(self, x, kernel, **options):
        return lax.conv_general_dilated(
            x,
            kernel,
            self.stride,
            self.padding,
            self.lhs_dilation,
            self.dilation,
            dimension_numbers=self.dimension_numbers,
            feature_group_count=self.groups,
            batch_group_count=self.batch_groups,
            **options,
        )

    def and_gradients(self, x, kernel, dy):
        """y, dx and dkernel."""
        y, pull = jax.vjp(self.conv, x, kernel)
        return y, *pull(dy)

    def oracle(self, x, kernel, dy):
        """The same in float64."""
        x, kernel, dy = (np.asarray(array, np.float64) for array in (x, kernel, dy))
        axes = "HWD"[: len(self.size)]
        canonical = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
        x, kernel, dy = map(_permuted, (x, kernel, dy), self.numbers, canonical)
        results = _and_gradients(self, x, kernel, dy)
        back = (self.numbers[2], self.numbers[0], self.numbers[1])
        return tuple(map(_permuted, results, (canonical[2], *canonical[:2]), back))


def _permuted(array, letters, wanted):
    return array.transpose([letters.index(letter) for letter in wanted])


def _and_gradients(problem: Problem, x: Any, kernel: Any, dy: Any) -> Any:
    # One large array holds the spread x, and what padding adds or cuts away.
    margin = max(1, *(abs(p) for pair in problem.padding for p in pair))
    spread = [(n - 1) * p + 1 for n, p in zip(problem.size, problem.lhs_dilation, strict=True)]
    large = np.zeros((len(x), *(n + 2 * margin for n in spread), x.shape[-1]))
    placed = (
        slice(None),
        *(slice(margin, margin + n, p) for n, p in zip(spread, problem.lhs_dilation, strict=True)),
    )
    large[placed] = x
    kept = (
        slice(None),
        *(
            slice(margin - low, margin + n + high)
            for n, (low, high) in zip(spread, problem.padding, strict=True)
        ),
    )
    padded, dlarge = large[kept], np.zeros_like(large)
    dpadded = dlarge[kept]  # a view
    y, dkernel = np.zeros(dy.shape), np.zeros(kernel.shape)
    runs = problem.groups * problem.batch_groups
    for tap in itertools.product(*map(range, problem.window)):
        read = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, problem.dilation, problem.output, problem.stride, strict=True)
        )
        for run in range(runs):
            of_x, of_y = slice(None), slice(None)
            outputs = slice(run * problem.group_out, (run + 1) * problem.group_out)
            if problem.groups > 1:
                of_y = slice(run * problem.group_in, (run + 1) * problem.group_in)
            if problem.batch_groups > 1:
                of_x = slice(run * problem.batch, (run + 1) * problem.batch)
            taken, weights = padded[(of_x, *read, of_y)], kernel[tap][:, outputs]
            given = dy[..., outputs]
            y[..., outputs] += taken @ weights
            dpadded[(of_x, *read, of_y)] += given @ weights.T
            axes = list(range(given.ndim - 1))
            dkernel[tap][:, outputs] += np.tensordot(taken, given, (axes, axes))
    return y, dlarge[placed], dkernel


@st.composite
def problems(draw, max_rank=3):
    """Any small convolution whose output is not empty."""
    rank = draw(st.integers(1, max_rank))
    axes = "HWD"[:rank]
    of_x, of_kernel, of_y = (
        "".join(draw(st.permutations(letters))) for letters in (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    )

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    runs = draw(st.sampled_from((1, 1, 2, 3, 5)))
    by_batch = draw(st.booleans())
    trivial = draw(st.lists(st.sampled_from(("stride", "padding", "lhs_dilation", "dilation")), max_size=4))
    problem = Problem(
        size=per_axis(1, {1: 40, 2: 12, 3: 6}[rank]),
        window=per_axis(1, {1: 9, 2: 5, 3: 3}[rank]),
        batch=draw(st.integers(1, 4)),
        group_in=draw(st.sampled_from((1, 1, 2, 3, 18))),
        group_out=draw(st.sampled_from((1, 1, 2, 3, 4))),
        groups=1 if by_batch else runs,
        batch_groups=runs if by_batch else 1,
        stride=() if "stride" in trivial else per_axis(1, 3),
        padding=()
        if "padding" in trivial
        else tuple((draw(st.integers(-2, 4)), draw(st.integers(-2, 4))) for _ in range(rank)),
        lhs_dilation=() if "lhs_dilation" in trivial else per_axis(1, 3),
        dilation=() if "dilation" in trivial else per_axis(1, 3),
        numbers=(of_x, of_kernel, of_y),
    )
    return problem


def errors(found, expected):
    """The largest error of each array, relative to its largest number."""
    return [
        float(
            np.max(np.abs(np.asarray(a, np.float64) - b), initial=0)
            / max(np.max(np.abs(b), initial=0), 1e-30)
        )
        for a, b in zip(found, expected, strict=True)
    ]
