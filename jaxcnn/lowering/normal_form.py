"""The part of a convolution that computes something: the rest is left out before a rewrite is chosen.

Along one axis, of no lhs_dilation,

    y[n, j, o] = sum_{t, c} x[n, j * stride + t * dilation - low, c] * kernel[t, c, o],

taps and positions that read nothing but padding are left out, and so are elements of x that no position
reads: what lies between windows that are less than a stride long, and between the elements of a single
window. Then axes disappear, each by a mere change of shape:

- an axis of one position and a window of one tap is dropped;
- the first axis, where there are no groups, the window has one tap and the stride is 1, is part of the batch;
- the last axis, where the windows stand side by side (the stride is the window: a patch embedding, or there
  is one window of an image as wide as it), is part of the input channels;
- the last axis, where x has one element, so that each position reads one tap, is part of the output channels.

Every rewrite gains by it, and oneDNN's code needs it: see `onednn.box`. The gradient of the kernel takes the
same steps, backward for the kernel.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.arrays import pad
from jaxcnn.lowering.convolution import PER_AXIS, Convolution


class Axis(NamedTuple):
    """What is left of one spatial axis."""

    taps: slice
    positions: tuple[int, int]  # left out of y at its low and at its high end
    read: slice  # the elements of x
    block: tuple[int, int] | None  # stride and dilation, where elements between windows are left out
    output: int
    stride: int
    dilation: int
    padding: tuple[int, int]

    @property
    def window(self) -> int:
        """The number of taps that are left."""
        return self.taps.stop - self.taps.start

    @property
    def size(self) -> int:
        """The number of elements that are left of x."""
        return self.output * self.window if self.block else len(range(*self.read.indices(self.read.stop)))


@dataclass(frozen=True)
class NormalForm:
    """What is left of a convolution, and how to get its operands and the original's result."""

    original: Convolution
    axes: tuple[Axis, ...]
    conv: Convolution
    outer: bool = False  # the positions of the last axis are output channels

    def x(self, x: Array) -> Array:
        """The images of `conv`."""
        x = _sliced(x, (slice(0, len(x)), *(axis.read for axis in self.axes)))
        for place, axis in enumerate(self.axes, 1):
            if axis.block:
                x = _only_windows(x, place, axis, *axis.block)
        return x.reshape(self.conv.batch, *self.conv.size, self.conv.channels_in)

    def kernel(self, kernel: Array) -> Array:
        """The kernel of `conv`."""
        kernel = _sliced(kernel, tuple(axis.taps for axis in self.axes))
        if self.outer:
            last = len(self.axes) - 1
            kernel = jnp.moveaxis(lax.rev(kernel, (last,)), last, -2)
        return kernel.reshape(*self.conv.window, self.conv.group_in, self.conv.channels_out)

    def y(self, y: Array) -> Array:
        """The result of the original convolution, from that of `conv`."""
        y = y.reshape(self.original.batch, *(axis.output for axis in self.axes), self.original.channels_out)
        return pad(y, tuple(axis.positions for axis in self.axes))

    def dy(self, dy: Array) -> Array:
        """The cotangent of `conv`'s result, from that of the original's."""
        dy = pad(dy, tuple((-low, -high) for low, high in (axis.positions for axis in self.axes)))
        return dy.reshape(self.conv.batch, *self.conv.output, self.conv.channels_out)

    def kernel_gradient(self, gradient: Array) -> Array:
        """The gradient of the original kernel, from that of `conv`'s."""
        conv = self.original
        taps = [axis.taps for axis in self.axes]
        counts = [t.stop - t.start for t in taps]
        if self.outer:
            last = len(counts) - 1
            gradient = gradient.reshape(*counts[:-1], conv.group_in, counts[-1], conv.channels_out)
            gradient = lax.rev(jnp.moveaxis(gradient, -2, last), (last,))
        gradient = gradient.reshape(*counts, conv.group_in, conv.channels_out)
        around = [(t.start, w - t.stop) for t, w in zip(taps, conv.window, strict=True)]
        return pad(gradient[None], (*around, (0, 0)))[0] if any(map(any, around)) else gradient


def normal_form(conv: Convolution, *, of_gradient: bool = False) -> NormalForm | None:
    """What is left of a convolution without lhs_dilation and batch groups; None if all it reads is padding.

    For the gradient of the kernel x is exactly what is read; for the convolution up to stride - 1 trailing
    elements are kept: dropping them would copy x. And for the gradient of a single tap, images stay images.
    """
    found = (_axis(conv, axis, of_gradient) for axis in range(conv.rank))
    axes = tuple(axis for axis in found if axis is not None)
    if len(axes) < conv.rank:
        return None
    fields = {
        name: tuple(getattr(axis, name) for axis in axes) for name in PER_AXIS if name != "lhs_dilation"
    }
    trimmed = replace(conv, **fields)
    # The parts of a divided array would have to move, and oneDNN sums faster over positions than over images.
    if conv.partitioned or (of_gradient and trimmed.taps == 1):
        return NormalForm(conv, axes, trimmed)
    if conv.groups == 1 and conv.rank and _reads_one_tap_each(axes[-1]):
        without = trimmed.without_axis(conv.rank - 1)
        outer = replace(without, channels_out=conv.channels_out * axes[-1].output)
        return NormalForm(conv, axes, _with_fewer_axes(outer), outer=True)
    return NormalForm(conv, axes, _with_fewer_axes(trimmed))


def _reads_one_tap_each(axis: Axis) -> bool:
    return axis.size == 1 < axis.output and axis.stride == axis.dilation == 1


def _axis(conv: Convolution, axis: int, exactly: bool) -> Axis | None:
    size, stride, dilation = conv.size[axis], conv.stride[axis], conv.dilation[axis]
    positions = {t: p for t in range(conv.window[axis]) if (p := conv.positions(axis, t))}
    if not positions:
        return None
    taps = slice(min(positions), max(positions) + 1)
    first = min(p.start for p in positions.values())
    last = max(p.stop for p in positions.values()) - 1
    window, output = taps.stop - taps.start, last + 1 - first
    left_out = first, conv.output[axis] - 1 - last
    # From start to stop x is read; what of that lies outside x is padding.
    start = first * stride + taps.start * dilation - conv.padding[axis][0]
    reach = (window - 1) * dilation + 1
    stop = start + (output - 1) * stride + reach
    if output == 1 or window == 1:  # no padding is left
        step = 1 if output == window else dilation if output == 1 else stride
        return Axis(taps, left_out, slice(start, stop, step), None, output, 1, 1, (0, 0))
    low, high = max(0, -start), max(0, stop - size)
    if stride > window and stride >= reach and not (low or high or conv.partitioned):
        return Axis(taps, left_out, slice(start, stop), (stride, dilation), output, window, 1, (0, 0))
    end = size if size - stop < stride and not exactly else min(size, stop)
    return Axis(taps, left_out, slice(max(0, start), end), None, output, stride, dilation, (low, high))


def _with_fewer_axes(conv: Convolution) -> Convolution:
    """The same convolution of reshaped operands."""
    for axis in range(conv.rank):
        if conv.size[axis] == conv.window[axis] == 1 and conv.rank > (conv.groups > 1):
            return _with_fewer_axes(conv.without_axis(axis))
    if conv.rank and conv.groups == 1 and conv.window[0] == conv.stride[0] == 1:
        return _with_fewer_axes(replace(conv.without_axis(0), batch=conv.batch * conv.size[0]))
    if conv.rank and conv.groups == 1 and conv.window[-1] > 1 and _stand_side_by_side(conv):
        one_tap = {name: (*getattr(conv, name)[:-1], 1) for name in ("window", "stride")}
        size = (*conv.size[:-1], conv.output[-1])
        channels_in = conv.channels_in * conv.window[-1]
        return _with_fewer_axes(replace(conv, size=size, channels_in=channels_in, **one_tap))
    return conv


def _stand_side_by_side(conv: Convolution) -> bool:
    """Whether the windows of the last axis divide it among them."""
    touch = conv.output[-1] == 1 or conv.stride[-1] == conv.window[-1]
    exactly = conv.size[-1] == conv.output[-1] * conv.window[-1]
    return touch and exactly and conv.dilation[-1] == 1 and conv.padding[-1] == (0, 0)


def _sliced(array: Array, leading: tuple[slice, ...]) -> Array:
    """The array cut along its leading axes."""
    slices = [*leading, *(slice(0, n) for n in array.shape[len(leading) :])]
    limits = [(s.start, s.stop, s.step or 1) for s in slices]
    if limits == [(0, n, 1) for n in array.shape]:
        return array
    return lax.slice(array, *zip(*limits, strict=True))


def _only_windows(x: Array, place: int, axis: Axis, stride: int, dilation: int) -> Array:
    """Each run of `stride` elements along an axis cut to those that the window reads."""
    before, after = x.shape[:place], x.shape[place + 1 :]
    config = [(0, 0, 0)] * x.ndim
    config[place] = (0, axis.output * stride - x.shape[place], 0)  # behind the last window: cut off again
    runs = lax.pad(x, np.zeros((), x.dtype), config).reshape(*before, axis.output, stride, *after)
    reach = (axis.window - 1) * dilation + 1
    windows = lax.slice_in_dim(runs, 0, reach, dilation, axis=place + 1)
    return windows.reshape(*before, axis.output * axis.window, *after)
