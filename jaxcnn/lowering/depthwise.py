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
from collections.abc import Callable, Iterator
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.arrays import add_up, divisor, image_by_image, pad, repeat, strided
from jaxcnn.lowering.convolution import Convolution

# Taps written out in one loop body: more compile for seconds, so a larger window goes run by run of taps.
TAPS = 49
RUN = 36  # taps of a run: the loop around it is written out too, once for each copy


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels) with kernel (*window, 1, channels_out)."""
    if _is_long(conv):
        run, read = _one_run_of_taps(conv, x)
        kernels = kernel.reshape(-1, *run.window, 1, conv.channels_out)
        zeros = jnp.zeros((conv.batch, *conv.output, conv.channels_out), x.dtype)
        runs = jnp.arange(len(kernels)), kernels
        is_flat = max(run.stride) == 1 and run.group_out == 1 and not _is_long(run)
        part = _flat if is_flat else forward  # a run has no padding
        return lax.scan(lambda y, each: (y + part(run, read(each[0]), each[1]), None), zeros, runs)[0]
    if max(conv.stride) == 1:
        return _flat(conv, _padded(conv, x), kernel)
    if conv.partitioned:
        return _strided(conv, x, kernel)
    return image_by_image(lambda images: _strided(conv, images, kernel), x)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, 1, channels_out) of conv's kernel, from x and dy."""
    if _is_long(conv):
        run, read = _one_run_of_taps(conv, x)
        runs = jnp.arange(conv.taps // run.taps)
        gradients = lax.map(lambda number: kernel_gradient(run, read(number), dy), runs)
        return gradients.reshape(*conv.window, 1, conv.channels_out)
    images = _padded(conv, x)
    products = [strided(images, _place(conv, tap), conv.output, conv.stride) * dy for tap in _taps(conv)]
    # Over images and lines first: the sums of a line stay in the cache, and a line is as long as a vector.
    zeros = (np.zeros((), x.dtype),) * len(products)
    sums = jnp.stack(lax.reduce(tuple(products), zeros, _add_each, (0, 1)))
    return sums.sum(range(1, sums.ndim - 1)).reshape(*conv.window, 1, conv.channels_out)


def _is_long(conv: Convolution) -> bool:
    return conv.taps > 1 and conv.taps * conv.copies > TAPS


def _flat(conv: Convolution, images: Array, kernel: Array) -> Array:
    """At stride 1 a tap is one offset into the image written row after row.

    The last positions of a row then read on in the next one; they are computed and dropped.
    """
    batch, *size, channels = images.shape
    steps = [math.prod(size[axis + 1 :]) for axis in range(conv.rank)]
    length = 1 + sum((n - 1) * step for n, step in zip(conv.output, steps, strict=True))
    rows = images.reshape(batch, math.prod(size), channels)
    terms = []
    for tap, weights in zip(_taps(conv), _weights(kernel, rows.ndim), strict=True):
        offset = sum(place * step for place, step in zip(_place(conv, tap), steps, strict=True))
        terms.append(lax.slice_in_dim(rows, offset, offset + length, axis=1) * weights)
    whole = (conv.output[0], *size[1:])
    y = lax.pad(
        add_up(terms), np.zeros((), images.dtype), [(0, 0, 0), (0, math.prod(whole) - length, 0), (0, 0, 0)]
    )
    return strided(y.reshape(batch, *whole, channels), (0,) * conv.rank, conv.output, (1,) * conv.rank)


def _strided(conv: Convolution, x: Array, kernel: Array) -> Array:
    images = _padded(conv, x)
    terms = []
    for tap, weights in zip(_taps(conv), _weights(kernel, images.ndim), strict=True):
        terms.append(strided(images, _place(conv, tap), conv.output, conv.stride) * weights)
    return add_up(terms)


def _weights(kernel: Array, axes: int) -> Iterator[Array]:
    """The weights of one tap after the other, to be multiplied with an array of so many axes."""
    rows = kernel.reshape(-1, *(1,) * (axes - 2), kernel.shape[-1])
    return (lax.slice_in_dim(rows, tap, tap + 1) for tap in range(len(rows)))


def _add_each(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _padded(conv: Convolution, x: Array) -> Array:
    """X with its padding, written once, so that the taps read it without a test at the edges."""
    return lax.optimization_barrier(pad(repeat(x, conv.group_out), conv.padding))


def _one_run_of_taps(conv: Convolution, x: Array) -> tuple[Convolution, Callable[[Array], Array]]:
    """The same convolution with the first axis of several taps cut to a run of them, and what a run reads."""
    axis = next(axis for axis, w in enumerate(conv.window) if w > 1)
    most = RUN // (3 * conv.copies - 2)
    taps = divisor(conv.window[axis], most * conv.window[axis] // conv.taps)
    padded = pad(x, conv.padding)
    reach = (conv.output[axis] - 1) * conv.stride[axis] + (taps - 1) * conv.dilation[axis] + 1
    size = padded.shape[1:-1]
    run = replace(
        conv,
        size=(*size[:axis], reach, *size[axis + 1 :]),
        window=(*conv.window[:axis], taps, *conv.window[axis + 1 :]),
        padding=((0, 0),) * conv.rank,
    )
    step = taps * conv.dilation[axis]
    return run, lambda number: lax.dynamic_slice_in_dim(padded, number * step, reach, axis=axis + 1)


def _taps(conv: Convolution) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, conv.window)))


def _place(conv: Convolution, tap: tuple[int, ...]) -> tuple[int, ...]:
    """Where in the padded image the tap of the first position lies."""
    return tuple(t * d for t, d in zip(tap, conv.dilation, strict=True))
