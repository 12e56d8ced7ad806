"""Depthwise convolution as a sum of shifted products.

    y[n, j, o] = sum_t X[n, j * stride + t * dilation - low, o] * kernel[t, 0, o]

where X is x with every channel repeated for each of its filters. Each term is a slice of X times a row of the
kernel, so that the whole sum is one elementwise loop: X is read from the cache once per tap, and nothing but
y is written. XLA:CPU's own code for these convolutions is a scalar loop over taps and channels.

The kernel's gradient is the same products, summed over images and positions instead,

    dkernel[t, 0, o] = sum_n sum_j X[n, j * stride + t * dilation - low, o] * dy[n, j, o],

all taps in one reduction of many operands: one pass over x and dy, instead of one for every tap.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.convolution import Convolution
from jaxcnn.lowering.images import add_up, image_by_image, pad, repeat, strided

# Taps written out in one loop body: more compile for seconds, so a larger window goes row by row of taps.
TAPS = 64


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels) with kernel (*window, 1, channels_out)."""
    if conv.taps > TAPS and conv.window[0] > 1:
        row, read = _one_row_of_taps(conv, x)
        rows = jnp.arange(conv.window[0]), kernel[:, None]
        zeros = jnp.zeros((conv.batch, *conv.output, conv.channels_out), x.dtype)
        return lax.scan(lambda y, tap: (y + forward(row, read(tap[0]), tap[1]), None), zeros, rows)[0]
    if max(conv.stride) == 1:
        return _flat(conv, x, kernel)
    if conv.partitioned:
        return _strided(conv, x, kernel)
    return image_by_image(lambda images: _strided(conv, images, kernel), x)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, 1, channels_out) of conv's kernel, from x and dy."""
    if conv.taps > TAPS and conv.window[0] > 1:
        row, read = _one_row_of_taps(conv, x)
        rows = lax.map(lambda tap: kernel_gradient(row, read(tap), dy), jnp.arange(conv.window[0]))
        return rows.reshape(*conv.window, 1, conv.channels_out)
    images = _padded(conv, x)
    products = [strided(images, _place(conv, tap), conv.output, conv.stride) * dy for tap in _taps(conv)]
    # Over images and lines first: the sums of a line stay in the cache, and a line is as long as a vector.
    zeros = (np.zeros((), x.dtype),) * len(products)
    sums = jnp.stack(lax.reduce(tuple(products), zeros, _add_each, (0, 1)))
    return sums.sum(range(1, sums.ndim - 1)).reshape(*conv.window, 1, conv.channels_out)


def _flat(conv: Convolution, x: Array, kernel: Array) -> Array:
    """At stride 1 a tap is one offset into the image written row after row.

    The last positions of a row then read on in the next one; they are computed and dropped.
    """
    images = _padded(conv, x)
    batch, *size, channels = images.shape
    steps = [math.prod(size[axis + 1 :]) for axis in range(conv.rank)]
    length = 1 + sum((n - 1) * step for n, step in zip(conv.output, steps, strict=True))
    rows = images.reshape(batch, math.prod(size), channels)
    terms = []
    for tap in _taps(conv):
        offset = sum(place * step for place, step in zip(_place(conv, tap), steps, strict=True))
        terms.append(lax.slice_in_dim(rows, offset, offset + length, axis=1) * kernel[tap][None])
    whole = (conv.output[0], *size[1:])
    y = lax.pad(
        add_up(terms), np.zeros((), x.dtype), [(0, 0, 0), (0, math.prod(whole) - length, 0), (0, 0, 0)]
    )
    return strided(y.reshape(batch, *whole, channels), (0,) * conv.rank, conv.output, (1,) * conv.rank)


def _strided(conv: Convolution, x: Array, kernel: Array) -> Array:
    images = _padded(conv, x)
    terms = []
    for tap in _taps(conv):
        weights = jnp.expand_dims(kernel[tap], range(conv.rank))
        terms.append(strided(images, _place(conv, tap), conv.output, conv.stride) * weights)
    return add_up(terms)


def _add_each(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _padded(conv: Convolution, x: Array) -> Array:
    """X with its padding, written once, so that the taps read it without a test at the edges."""
    return lax.optimization_barrier(pad(repeat(x, conv.group_out), conv.padding))


def _one_row_of_taps(conv: Convolution, x: Array) -> tuple[Convolution, Callable[[Array], Array]]:
    """The same convolution with the first axis of its window cut to one tap, and what tap t of it reads."""
    padded = pad(x, conv.padding)
    reach = (conv.output[0] - 1) * conv.stride[0] + 1
    row = replace(
        conv,
        size=(reach, *padded.shape[2:-1]),
        window=(1, *conv.window[1:]),
        padding=((0, 0),) * conv.rank,
        dilation=(1, *conv.dilation[1:]),
    )
    return row, lambda tap: lax.dynamic_slice_in_dim(padded, tap * conv.dilation[0], reach, axis=1)


def _taps(conv: Convolution) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, conv.window)))


def _place(conv: Convolution, tap: tuple[int, ...]) -> tuple[int, ...]:
    """Where in the padded image the tap of the first position lies."""
    return tuple(t * d for t, d in zip(tap, conv.dilation, strict=True))
