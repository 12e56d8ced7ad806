"""Depthwise convolution, and groups of few channels, as sums of shifted products.

    y[n, j, o] = sum_i sum_t X_i[n, j * stride + t * dilation - low, o] * kernel[t, i, o]

where X_i repeats, for every output channel o, the i-th input channel of o's group (with one channel a group,
X_0 is x itself). Each term is a slice of X_i times a row of the kernel, so that the whole sum is one
elementwise loop: every x is read from the cache once per tap, and nothing but y is written. XLA:CPU's own
code for these convolutions is a scalar loop over taps and channels.

The kernel's gradient is the same products, summed over images and positions instead,

    dkernel[t, i, o] = sum_n sum_j X_i[n, j * stride + t * dilation - low, o] * dy[n, j, o],

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

# Products written out in one loop body: more compile for seconds, so a larger window goes row by row of taps.
PRODUCTS = 64


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    if conv.taps * conv.group_in > PRODUCTS and conv.window[0] > 1:
        row, read = _one_row_of_taps(conv, x)
        rows = jnp.arange(conv.window[0]), kernel[:, None]
        zeros = jnp.zeros((conv.batch, *conv.output, conv.channels_out), x.dtype)
        return lax.scan(lambda y, tap: (y + forward(row, read(tap[0]), tap[1]), None), zeros, rows)[0]
    shifted = _flat if max(conv.stride) == 1 else _strided
    if conv.partitioned or (shifted is _flat and conv.group_in == 1):
        return shifted(conv, x, kernel)
    return image_by_image(lambda images: shifted(conv, images, kernel), x)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient of conv's kernel, (*window, group_in, channels_out), from x and dy."""
    if conv.taps * conv.group_in > PRODUCTS and conv.window[0] > 1:
        row, read = _one_row_of_taps(conv, x)
        rows = lax.map(lambda tap: kernel_gradient(row, read(tap), dy), jnp.arange(conv.window[0]))
        return rows.reshape(*conv.window, conv.group_in, conv.channels_out)
    sources = _sources(conv, x)
    products = [
        strided(source, _place(conv, tap), conv.output, conv.stride) * dy
        for tap in _taps(conv)
        for source in sources
    ]
    # Over images and lines first: the sums of a line stay in the cache, and a line is as long as a vector.
    zeros = (np.zeros((), x.dtype),) * len(products)
    sums = jnp.stack(lax.reduce(tuple(products), zeros, _add_each, (0, 1)))
    return sums.sum(range(1, sums.ndim - 1)).reshape(*conv.window, conv.group_in, conv.channels_out)


def _flat(conv: Convolution, x: Array, kernel: Array) -> Array:
    """At stride 1 a tap is one offset into the image written row after row.

    The last positions of a row then read on in the next one; they are computed and dropped.
    """
    sources = _sources(conv, x)
    batch, *size, channels = sources[0].shape
    steps = [math.prod(size[axis + 1 :]) for axis in range(conv.rank)]
    length = 1 + sum((n - 1) * step for n, step in zip(conv.output, steps, strict=True))
    rows = [source.reshape(batch, math.prod(size), channels) for source in sources]
    terms = []
    for tap in _taps(conv):
        offset = sum(place * step for place, step in zip(_place(conv, tap), steps, strict=True))
        for i, row in enumerate(rows):
            terms.append(lax.slice_in_dim(row, offset, offset + length, axis=1) * _weights(kernel, tap, i, 3))
    whole = (conv.output[0], *size[1:])
    y = lax.pad(add_up(terms), np.zeros((), x.dtype), [(0,) * 3, (0, math.prod(whole) - length, 0), (0,) * 3])
    return strided(y.reshape(batch, *whole, channels), (0,) * conv.rank, conv.output, (1,) * conv.rank)


def _strided(conv: Convolution, x: Array, kernel: Array) -> Array:
    sources = _sources(conv, x)
    terms = []
    for tap in _taps(conv):
        for i, source in enumerate(sources):
            taken = strided(source, _place(conv, tap), conv.output, conv.stride)
            terms.append(taken * _weights(kernel, tap, i, taken.ndim))
    return add_up(terms)


def _add_each(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _sources(conv: Convolution, x: Array) -> list[Array]:
    """X_i for each i, padded: written once, so that the taps read them without a test at the edges."""
    channels = [
        repeat(lax.slice_in_dim(x, i, None, conv.group_in, axis=-1), conv.group_out)
        for i in range(conv.group_in)
    ]
    return [lax.optimization_barrier(pad(channel, conv.padding)) for channel in channels]


def _one_row_of_taps(conv: Convolution, x: Array) -> tuple[Convolution, Callable[[Array], Array]]:
    """The same convolution with the first axis of its window cut to one tap, and what tap t of it reads."""
    padded = lax.optimization_barrier(pad(x, conv.padding))
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


def _weights(kernel: Array, tap: tuple[int, ...], i: int, rank: int) -> Array:
    """kernel[tap, i], to be multiplied with an array of this rank."""
    return kernel[(*tap, i)].reshape((1,) * (rank - 1) + (-1,))
