"""An array that lies in a file or in memory and is not read yet, and the file that it lies in."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

DIRECTORY_BYTES = 1 << 22
"""What a file may need to say which tensors it holds: enough for twenty thousand of them."""

MAX_AXES = 32
MAX_BYTES = 1 << 60


class StoredArray(NamedTuple):
    """An array of a weight file before it is read."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    """Gives the array, of exactly this shape; nothing is allocated before."""


class WeightFile:
    """An open file, and the error that a reader of it raises."""

    def __init__(self, function: str, path: Path, file: io.BufferedReader, size: int):
        self.function, self.path, self.file, self.size = function, path, file, size

    def error(self, problem: str) -> ValueError:
        """The exception for a file that `problem` is said of."""
        return ValueError(f"{self.function}: {self.path} {problem}")

    def bytes(self, start: int, count: int) -> bytes:
        """`count` bytes, or fewer where the file ends."""
        self.file.seek(start)
        return self.file.read(count)

    def array(self, key: str, start: int, count: int, dtype: np.dtype) -> np.ndarray:
        """A flat array of `count` values, read straight into its place."""
        array = np.empty(count, dtype)
        self.file.seek(start)
        if self.file.readinto(array.view(np.uint8).data) != array.nbytes:
            raise self.error(f"ends inside {short(key)}: it was changed while it was open")
        return array


def is_size(value: object) -> bool:
    """Whether a value from a file is a whole number from 0 on, and neither a bool nor beyond any memory."""
    return type(value) is int and 0 <= value <= MAX_BYTES


def is_shape(value: object, dtype: np.dtype) -> bool:
    """Whether a list or tuple from a file is a shape that NumPy can hold."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_AXES
        and all(map(is_size, value))
        and math.prod(size or 1 for size in value) * dtype.itemsize <= MAX_BYTES
    )


def short(text: str) -> str:
    """A string from a file, quoted, at a length that an error can show."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
