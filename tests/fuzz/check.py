"""When a result is wrong: against float64, and where that is not conclusive against plain lax."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tests.fuzz.forms import DTYPES
from tests.lowering.oracle import Problem

RIGHT = 1e-5
NEVER = 30  # times the limit: that much is wrong even where lax is no better
Arrays = Sequence[Any]


def limit(problem: Problem, dtype: str) -> float:
    """The error allowed, relative to the largest number of the result.

    A sum of n numbers of random sign grows as sqrt(n), and when it is added up one after the other, so does
    its error relative to that. Narrower dtypes round what is between (in second order) and the result.
    """
    taps, positions = math.prod(problem.window), math.prod(problem.output)
    summands = max(taps * max(problem.group_in, problem.group_out), positions * problem.batch)
    single = max(RIGHT, 0.5 * float(np.finfo(np.float32).eps) * math.sqrt(summands))
    if dtype == "float32":
        return single
    return max(single, 4 * float(ml_dtypes.finfo(DTYPES[dtype]).eps))


def what_is_wrong(found: Arrays, expected: Arrays, allowed: float, plain: Callable[[], Arrays]) -> str:
    """A few words, or none. `plain` computes the same as lax does by itself, and is asked if need be only.

    An inf or nan has to be where the reference or lax has one, and nowhere else.
    """
    found = [np.asarray(array).astype(np.float64) for array in found]
    shapes = [array.shape for array in found], [array.shape for array in expected]
    if shapes[0] != shapes[1]:
        return f"shapes {shapes[0]} for {shapes[1]}"
    error = _error(found, expected)
    odd = [np.isfinite(a) != np.isfinite(b) for a, b in zip(found, expected, strict=True)]
    if error <= allowed and not any(map(np.any, odd)):
        return ""
    of_lax = [np.asarray(array).astype(np.float64) for array in plain()]
    for array, other, where in zip(found, of_lax, odd, strict=True):
        if np.any((np.isfinite(array) != np.isfinite(other)) & where):
            return "an inf or nan is where it should not be, or is not where it should"
    lax_error = _error(of_lax, expected)
    if error <= max(allowed, min(1.5 * lax_error, NEVER * allowed)):
        return ""
    return f"wrong by {error:.2g} (lax by {lax_error:.2g})"


def _error(found: Arrays, expected: Arrays) -> float:
    """The largest error where both are finite, relative to the largest number of the array."""
    errors = [0.0]
    for a, b in zip(found, expected, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        largest = np.max(np.abs(b[both]), initial=0)
        errors.append(float(np.max(np.abs(a[both] - b[both]), initial=0) / max(largest, 1e-30)))
    return max(errors)
