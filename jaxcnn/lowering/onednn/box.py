"""The box of convolutions for which oneDNN's instruction is used: its faces, each with its reason.

oneDNN has many codes for a convolution and takes the first that accepts the shape. Some of them, for some
shapes, compute wrong numbers or read and write past the end of their arrays, and the fallback codes (`gemm`,
`ref`) can deadlock in XLA's thread pool, or are scalar. What is known of that, from the source of the
releases that JAX 0.10 and 0.12 carry (3.7.3 and 3.12.3) and from drawing shapes, is all here; no face is a
matter of speed. A face is drawn where it is simple to state, not as far out as a fault allows. `make fuzz`
draws shapes on both sides of every face.

The names are oneDNN's. `brgemm` is its code for dense and grouped convolutions, `brdgmm` that for one channel
a group, `jit` the older ones. All faults that are known are in the form of brgemm that copies x into a buffer
first. It does so, with AVX-512 only, where the last axis has one position, and for dense convolutions of one
channel.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxcnn.lowering.convolution import Convolution

LONGEST = 128  # elements of a window along an axis: no longer ones were tried
LONGEST_OF_VOLUMES = 16  # the same for volumes of one channel
BUFFER = 2**26  # bytes of a thread's buffer


class Face(NamedTuple):
    """One condition, and what is said of a convolution that does not meet it."""

    holds: Callable[[Convolution], bool]
    otherwise: str


def outside(conv: Convolution) -> str | None:
    """Why a convolution in normal form is outside the box; None if it is inside."""
    return next((face.otherwise for face in FACES if not face.holds(conv)), None)


def _has_up_to_three_axes(conv: Convolution) -> bool:
    # With one channel a group, a volume can get a fallback code.
    return 1 <= conv.rank <= (2 if conv.is_depthwise else 3)


def _has_several_last_positions(conv: Convolution) -> bool:
    # brgemm then copies x, and where the channels are divided into blocks (by the size of the cache: no shape
    # that was tried tells of another machine) and are no multiple of 16, the last ones are left out of the
    # sum, before 3.12.2, or weights are read from behind the end of their array, to this day.
    return conv.output[-1] > 1


def _steps_inside_its_window(conv: Convolution) -> bool:
    # Before 3.13 the size of the buffer is computed from min(window, stride) instead of the stride
    # (uxlfoundation/oneDNN#5494): memory behind it is overwritten.
    return all(s <= w for s, w in zip(conv.stride, conv.window, strict=True))


def _has_small_buffer(conv: Convolution) -> bool:
    # For one channel the buffer of each thread grows with the cube of the window's rows: to gigabytes.
    if conv.channels_in > 1 or conv.rank == 1:
        return True
    if conv.rank == 3:  # without rows: it is x itself that is copied, and larger windows were not tried
        return conv.window[-1] == 1 or max(conv.window) <= LONGEST_OF_VOLUMES
    rows, (low, high) = conv.window[-2], conv.padding[-2]
    width = (conv.size[-1] + sum(conv.padding[-1])) * conv.stride[-1]
    return 4 * rows**2 * (rows + low + high) * width <= BUFFER


def _is_padded_less_than_its_window(conv: Convolution) -> bool:
    # Otherwise whole windows lie in padding, which the normal form has left out; the older codes refuse them.
    axes = zip(conv.padding, conv.window, conv.dilation, strict=True)
    return all(0 <= min(pair) and max(pair) <= (w - 1) * d for pair, w, d in axes)


def _is_counted_in_32_bits(conv: Convolution) -> bool:
    # oneDNN computes some byte offsets in 32 bits.
    x = conv.batch * math.prod(conv.size) * conv.channels_in
    y = conv.batch * math.prod(conv.output) * conv.channels_out
    return max(x, y, conv.taps * conv.group_in * conv.channels_out) < 2**29


FACES = (
    Face(lambda conv: conv.onednn, "accelerate(onednn=False) is around it"),
    Face(lambda conv: conv.dtype == np.float32, "oneDNN's instruction is for float32"),
    Face(lambda conv: not conv.partitioned, "the program is divided over devices, or exported"),
    Face(
        lambda conv: not conv.is_lhs_dilated and conv.batch_groups == 1, "zeros lie between the elements of x"
    ),
    Face(_has_up_to_three_axes, "it has too many spatial axes, or none"),
    Face(_has_several_last_positions, "its last axis has one position"),
    Face(_steps_inside_its_window, "its stride is greater than its window"),
    Face(lambda conv: max(conv.window) <= LONGEST, f"its window is longer than {LONGEST}"),
    Face(_has_small_buffer, "its buffer would be too large"),
    Face(_is_padded_less_than_its_window, "whole windows lie in padding"),
    Face(_is_counted_in_32_bits, "its arrays are too large"),
)
