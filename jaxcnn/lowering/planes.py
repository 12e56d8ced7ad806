"""Grouped convolution of a few channels a group, on planes: channels first, positions last.

With images as planes X[c] of positions, output plane o of group g is

    Y[o] = sum_{i, t} shift_t(X[g * group_in + i]) * kernel[t, i, o],

a sum of shifted planes, each times one number. Positions lie next to each other, so that this is one
elementwise loop that a compiler vectorises whatever the number of channels; channels last, as the images
come, a group of 4 would fill half a vector. The two changes of layout read and write the images once each.
With a stride s every s-th position of every s-th line is a plane of its own, so that all shifts are
contiguous.

XLA:CPU's own code for grouped convolutions is a scalar loop. Groups are never joined to a larger one by
zeros between them: what is infinite in one group stays there.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint

from jaxcnn.lowering.arrays import add_up
from jaxcnn.lowering.convolution import Convolution

PRODUCTS = 36  # products written out in one loop body: more compile for seconds


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    planes = _split_by_stride(conv, x)  # (*stride, batch, channels_in, *size // stride)
    batch, channels, *size = planes.shape[conv.rank :]
    planes = planes.reshape(*conv.stride, batch, conv.groups, conv.group_in, math.prod(size))
    steps = [math.prod(size[axis + 1 :]) for axis in range(conv.rank)]
    # Positions of a line beyond the output read on in the next line; they are computed and dropped.
    length = 1 + sum((n - 1) * step for n, step in zip(conv.output, steps, strict=True))
    # One column of weights (1, groups, group_out, 1) for each tap and input channel.
    weights = kernel.reshape(-1, conv.groups, conv.group_out)
    weights = jnp.moveaxis(weights, 0, -1)[None]
    terms = []
    for tap in itertools.product(*map(range, conv.window)):
        phase, place = _phase_and_place(conv, tap)
        offset = sum(p * step for p, step in zip(place, steps, strict=True))
        for i in range(conv.group_in):
            start = (*phase, 0, 0, i, offset)
            stop = (*(p + 1 for p in phase), batch, conv.groups, i + 1, offset + length)
            plane = lax.slice(planes, start, stop).reshape(batch, conv.groups, 1, length)
            number = len(terms)
            terms.append(plane * lax.slice_in_dim(weights, number, number + 1, axis=-1))
    y = _positions_last(add_up(terms).reshape(batch, conv.channels_out, length))
    whole = (conv.output[0], *size[1:])
    y = lax.pad(
        jnp.moveaxis(y, 1, 2),
        np.zeros((), y.dtype),
        [(0, 0, 0), (0, math.prod(whole) - length, 0), (0, 0, 0)],
    )
    return y.reshape(batch, *whole, conv.channels_out)[:, *(slice(n) for n in conv.output)]


def _split_by_stride(conv: Convolution, x: Array) -> Array:
    """The padded x as (*stride, batch, channels, *size // stride): one plane for each remainder."""
    size = [low + n + high for n, (low, high) in zip(conv.size, conv.padding, strict=True)]
    size = [-(-n // s) * s for n, s in zip(size, conv.stride, strict=True)]
    config = [
        (low, whole - n - low, 0) for whole, n, (low, _) in zip(size, conv.size, conv.padding, strict=True)
    ]
    x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    split = itertools.chain(*((n // s, s) for n, s in zip(size, conv.stride, strict=True)))
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    lines, remainders = range(1, 2 * conv.rank, 2), range(2, 2 * conv.rank + 1, 2)
    return _positions_last(lax.transpose(x, (*remainders, 0, x.ndim - 1, *lines)))


def _positions_last(planes: Array) -> Array:
    """The same array, written in the order of its axes: XLA would else make the transpose a mere view."""
    return with_layout_constraint(planes, Layout(tuple(range(planes.ndim))))


def _phase_and_place(conv: Convolution, tap: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The plane that a tap reads at the first position, and where in it."""
    reached = [t * d for t, d in zip(tap, conv.dilation, strict=True)]
    phase = tuple(r % s for r, s in zip(reached, conv.stride, strict=True))
    return phase, tuple(r // s for r, s in zip(reached, conv.stride, strict=True))
