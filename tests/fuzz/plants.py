"""Faults to plant with --plant tests.fuzz.plants:NAME: a fuzzer that does not find them is of no use.

A worker calls the function once before its cases. The last four put an old rule of the lowering back.
"""

import ctypes
import sys
from typing import Any

from jax import lax

from jaxcnn.lowering import choice, depthwise
from jaxcnn.lowering.normal_form import normal_form
from jaxcnn.lowering.onednn import box, call, gradient, instruction
from tests.fuzz import worker

FORM = sys.modules[normal_form.__module__]


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


def _without_face(words: str) -> None:
    kept = tuple(face for face in box.FACES if words not in face.otherwise)
    assert len(kept) == len(box.FACES) - 1
    box.FACES = kept  # pyright: ignore[reportConstantRedefinition]


def an_axis_of_one_position() -> None:
    """Axes of one position are handed to oneDNN as they come."""
    _without_face("last axis has one position")
    _without_face("buffer")
    FORM._with_fewer_axes = lambda conv: conv  # pyright: ignore[reportAttributeAccessIssue]
    choice._is_one_product = lambda conv: conv.groups == 1 and conv.rank == 0


def a_stride_over_the_window() -> None:
    """What lies between windows stays, and so does the stride."""
    _without_face("stride is greater")
    shortest = FORM._axis

    def whole(conv: Any, axis: int, exactly: bool) -> Any:
        low, high = conv.padding[axis]
        if exactly or low < 0 or high < 0 or conv.stride[axis] <= conv.window[axis]:
            return shortest(conv, axis, exactly)
        every = (slice(0, conv.window[axis]), (0, 0), slice(0, conv.size[axis]), None, conv.output[axis])
        return FORM.Axis(*every, conv.stride[axis], conv.dilation[axis], (low, high))

    FORM._axis = whole  # pyright: ignore[reportAttributeAccessIssue]


def depthwise_as_it_comes() -> None:
    """One channel a group, as a line and with any padding and dilation."""
    instruction.forward = call.call  # pyright: ignore[reportPrivateImportUsage]
    gradient.forward = call.call  # pyright: ignore[reportPrivateImportUsage]
    rows = [
        row._replace(rewrite=call.call) if row.name == choice._ONEDNN else row for row in choice.CONVOLUTIONS
    ]
    choice.CONVOLUTIONS = tuple(rows)  # pyright: ignore[reportConstantRedefinition]


def every_tap_written_out() -> None:
    """No limit to taps, tiles and phases that are written out."""
    choice.PHASES = choice.TAPS = choice.TAPS_OF_PHASES = 10**6  # pyright: ignore[reportConstantRedefinition]
    depthwise.TAPS = gradient.TILES = 10**6  # pyright: ignore[reportConstantRedefinition]
    choice._has_phases_alike = lambda conv: False
    choice.LHS_DILATED = choice.LHS_DILATED[1:]  # pyright: ignore[reportConstantRedefinition]
