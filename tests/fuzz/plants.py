"""Faults to plant with --plant tests.fuzz.plants:NAME: a fuzzer that does not find them is of no use.

A worker calls the function once before its cases.
"""

import ctypes
from typing import Any

from jax import lax

from tests.fuzz import worker


def wrong_lines() -> None:
    """Convolutions of long axes are wrong by a thousandth."""
    right = lax.conv_general_dilated

    def wrong(x: Any, kernel: Any, *options: Any, **more: Any) -> Any:
        y = right(x, kernel, *options, **more)
        return y * 1.001 if max(x.shape) > 100 else y

    lax.conv_general_dilated = wrong


def byte_past_the_end() -> None:
    """Every run of a program writes one byte behind a block of memory."""
    run = worker._Worker.run

    def and_write(self: Any, *arguments: Any, **options: Any) -> Any:
        c = ctypes.CDLL(None)
        c.malloc.restype = ctypes.c_void_p
        with self.guard.on():
            block = c.malloc(4096)
            ctypes.memset(block + 4096, 1, 1)
        return run(self, *arguments, **options)

    worker._Worker.run = and_write  # pyright: ignore[reportAttributeAccessIssue]
