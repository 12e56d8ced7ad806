"""Depthwise convolution, and groups of few channels, as sums of shifted products.

    y[n, j, o] = sum_i sum_t X_i[n, j * stride + t * dilation - low, o] * kernel[t, i, o]

where X_i repeats, for every output channel o, the i-th input channel of o's group (with one channel a group,
X_0 is x itself). Each term is a slice of X_i times a row of the kernel, so that the whole sum is one
elementwise loop: every x is read from the cache once per tap, and nothing but y is written. XLA:CPU's own
code for these convolutions is a scalar loop over taps and channels.

The kernel's gradient is the same products, summed over images and positions instead,

    dkernel[t, i, o] = sum_n sum_j X_i[n, j * stride + t * dilation - low, o] * dy[n, j, o],

here a few rows of dy at a time: the products of all taps are added to accumulators that stay in the cache,
while the rows of x are there, instead of one pass over all images per tap.
"""

import itertools
import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.convolution import Convolution
from jaxcnn.lowering.images import add_up, divisor, image_by_image, pad, repeat, strided

# Rows of dy whose products are summed before they are added to an accumulator, and products written out in one
# loop body at most: more of them save little traffic and take seconds to compile.
ROWS, PRODUCTS = 16, 800


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    shifted = _flat if max(conv.stride) == 1 else _strided
    if conv.partitioned or (shifted is _flat and conv.group_in == 1):
        return shifted(conv, x, kernel)
    return image_by_image(lambda images: shifted(conv, images, kernel), x)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient of conv's kernel, (*window, group_in, channels_out), from x and dy."""
    window = conv.window
    if conv.rank == 1:  # one axis is an image of one row
        conv, x, dy = _with_one_row(conv), jnp.expand_dims(x, 1), jnp.expand_dims(dy, 1)
    sums = _reduced(conv, x, dy) if conv.partitioned else _row_by_row(conv, x, dy)
    gradient = jnp.stack([total.sum(range(total.ndim - 1)) for total in sums])
    return gradient.reshape(*window, conv.group_in, conv.channels_out)


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


def _row_by_row(conv: Convolution, x: Array, dy: Array) -> list[Array]:
    """Sums over images and over the first spatial axis, one for each tap and i."""
    parts = conv.taps * conv.group_in
    together = divisor(conv.batch, max(1, min(ROWS // 2, PRODUCTS // parts)))  # images of one sum
    rows = divisor(conv.output[0], max(1, min(ROWS // together, PRODUCTS // (parts * together))))
    sources = _sources(conv, x)
    reach = (rows - 1) * conv.stride[0] + (conv.window[0] - 1) * conv.dilation[0] + 1

    def split(images: Array) -> Array:
        """(images of one sum, sums, rows, *rest)."""
        return images.reshape(together, conv.batch // together, *images.shape[1:])

    def add_rows(sums: tuple[Array, ...], block: Array) -> tuple[tuple[Array, ...], None]:
        dy_rows = split(lax.dynamic_slice_in_dim(dy, block * rows, rows, axis=1))
        x_rows = [
            split(lax.dynamic_slice_in_dim(source, block * (rows * conv.stride[0]), reach, axis=1))
            for source in sources
        ]
        added = []
        for total, (tap, i) in zip(sums, itertools.product(_taps(conv), range(conv.group_in)), strict=True):
            first, *rest = _place(conv, tap)
            for image, row in itertools.product(range(together), range(rows)):
                taken = x_rows[i][image, :, first + row * conv.stride[0]]
                total = (
                    total + strided(taken, rest, conv.output[1:], conv.stride[1:]) * dy_rows[image, :, row]
                )
            added.append(total)
        return tuple(added), None

    zeros = jnp.zeros((conv.batch // together, *conv.output[1:], conv.channels_out), x.dtype)
    sums, _ = lax.scan(add_rows, (zeros,) * parts, jnp.arange(conv.output[0] // rows))
    return list(sums)


def _reduced(conv: Convolution, x: Array, dy: Array) -> list[Array]:
    """The same sums in one reduction of all the products, which a compiler can divide over devices."""
    sources = _sources(conv, x)
    products = [
        strided(source, _place(conv, tap), conv.output, conv.stride) * dy
        for tap in _taps(conv)
        for source in sources
    ]
    zeros = (np.zeros((), x.dtype),) * len(products)

    def add(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(a + b for a, b in zip(one, other, strict=True))

    return list(lax.reduce(tuple(products), zeros, add, (0, 1)))


def _sources(conv: Convolution, x: Array) -> list[Array]:
    """X_i for each i, padded: written once, so that the taps read them without a test at the edges."""
    channels = [
        repeat(lax.slice_in_dim(x, i, None, conv.group_in, axis=-1), conv.group_out)
        for i in range(conv.group_in)
    ]
    return [lax.optimization_barrier(pad(channel, conv.padding)) for channel in channels]


def _taps(conv: Convolution) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, conv.window)))


def _place(conv: Convolution, tap: tuple[int, ...]) -> tuple[int, ...]:
    """Where in the padded image the tap of the first position lies."""
    return tuple(t * d for t, d in zip(tap, conv.dilation, strict=True))


def _weights(kernel: Array, tap: tuple[int, ...], i: int, rank: int) -> Array:
    """kernel[tap, i], to be multiplied with an array of this rank."""
    return kernel[(*tap, i)].reshape((1,) * (rank - 1) + (-1,))


def _with_one_row(conv: Convolution) -> Convolution:
    return replace(
        conv,
        size=(1, *conv.size),
        window=(1, *conv.window),
        output=(1, *conv.output),
        stride=(1, *conv.stride),
        padding=((0, 0), *conv.padding),
        spread=(1, *conv.spread),
        dilation=(1, *conv.dilation),
    )
