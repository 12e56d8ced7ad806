"""A convolution and its gradients in float64: for every tap, a product over all groups at once.

No array is padded or filled with zeros. An axis tells, for every tap, which outputs read an element of x, and
which one; those that read padding, or a zero between two elements, are left out.
"""

import itertools
import math
from typing import Any

import numpy as np

from tests.lowering.oracle import Problem


class Reference:
    """The three products of one problem; every array has the axes that the problem gives it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.runs = problem.groups * problem.batch_groups
        axes = zip(
            problem.size,
            problem.output,
            problem.window,
            problem.stride,
            problem.padding,
            problem.lhs_dilation,
            problem.dilation,
            strict=True,
        )
        per_axis = [
            [(tap, *_reads(n, o, s, tap * d - low, p)) for tap in range(w)]
            for n, o, w, s, (low, _), p, d in axes
        ]
        self.taps = [
            (tuple(tap), (slice(None), slice(None), *of_x), (slice(None), slice(None), *of_y))
            for tap, of_x, of_y in (zip(*choice, strict=True) for choice in itertools.product(*per_axis))
            if None not in of_x
        ]
        names = "HWD"[: len(problem.size)]
        self.canonical = (f"N{names}C", f"{names}IO", f"N{names}C")

    def y(self, x: Any, kernel: Any) -> Any:
        """The convolution."""
        x, kernel = self._x(x), self._kernel(kernel)
        y = np.zeros((self.runs, self.problem.batch, *self.problem.output, self.problem.group_out))
        for tap, of_x, of_y in self.taps:
            taken = x[of_x]
            y[of_y] += (_rows(taken) @ kernel[tap]).reshape(*taken.shape[:-1], y.shape[-1])
        y = np.moveaxis(y, 0, -2)
        return self._placed(y.reshape(*y.shape[:-2], self.problem.channels_out), 2)

    def dx(self, kernel: Any, dy: Any) -> Any:
        """The gradient of x."""
        kernel, dy = self._kernel(kernel), self._y(dy)
        dx = np.zeros((self.runs, self.problem.batch, *self.problem.size, self.problem.group_in))
        for tap, of_x, of_y in self.taps:
            taken = dy[of_y]
            dx[of_x] += (_rows(taken) @ np.swapaxes(kernel[tap], 1, 2)).reshape(
                *taken.shape[:-1], dx.shape[-1]
            )
        if self.problem.batch_groups > 1:
            return self._placed(dx.reshape(self.runs * self.problem.batch, *dx.shape[2:]), 0)
        dx = np.moveaxis(dx, 0, -2)
        return self._placed(dx.reshape(*dx.shape[:-2], self.problem.channels_in), 0)

    def dkernel(self, x: Any, dy: Any) -> Any:
        """The gradient of the kernel."""
        x, dy = self._x(x), self._y(dy)
        problem = self.problem
        dkernel = np.zeros((*problem.window, self.runs, problem.group_in, problem.group_out))
        for tap, of_x, of_y in self.taps:
            dkernel[tap] = np.swapaxes(_rows(x[of_x]), 1, 2) @ _rows(dy[of_y])
        dkernel = np.swapaxes(dkernel, -3, -2)
        return self._placed(dkernel.reshape(*dkernel.shape[:-2], problem.channels_out), 1)

    def _x(self, x: Any) -> Any:
        x = self._in_order(x, 0)
        if self.problem.batch_groups > 1:
            return x.reshape(self.runs, self.problem.batch, *x.shape[1:])
        return _runs_first(x, self.runs)

    def _kernel(self, kernel: Any) -> Any:
        kernel = self._in_order(kernel, 1)
        shape = (*kernel.shape[:-1], self.runs, self.problem.group_out)
        return np.ascontiguousarray(np.swapaxes(kernel.reshape(shape), -3, -2))

    def _y(self, y: Any) -> Any:
        return _runs_first(self._in_order(y, 2), self.runs)

    def _in_order(self, array: Any, which: int) -> Any:
        letters, wanted = self.problem.numbers[which], self.canonical[which]
        return np.asarray(array, np.float64).transpose([letters.index(letter) for letter in wanted])

    def _placed(self, array: Any, which: int) -> Any:
        letters, wanted = self.problem.numbers[which], self.canonical[which]
        return array.transpose([wanted.index(letter) for letter in letters])


def _runs_first(array: Any, runs: int) -> Any:
    split = array.reshape(*array.shape[:-1], runs, array.shape[-1] // runs)
    return np.ascontiguousarray(np.moveaxis(split, -2, 0))


def _rows(array: Any) -> Any:
    return array.reshape(len(array), math.prod(array.shape[1:-1]), array.shape[-1])


def _reads(size: int, outputs: int, stride: int, offset: int, spread: int) -> tuple[Any, Any]:
    """The elements i of x, and the outputs j that read them: j * stride + offset == i * spread."""
    pairs = [
        (place // spread, j)
        for j in range(outputs)
        if (place := j * stride + offset) % spread == 0 and 0 <= place // spread < size
    ]
    if not pairs:
        return None, None
    return tuple(_progression([pair[which] for pair in pairs]) for which in (0, 1))  # pyright: ignore


def _progression(values: list[int]) -> slice:
    step = values[1] - values[0] if len(values) > 1 else 1
    return slice(values[0], values[-1] + 1, step)
