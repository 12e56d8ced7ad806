"""The gradient of a kernel by the instruction, as a convolution whose window is as large as the images.

    dkernel[t, c, o] = sum_{n, j} x[n, j * stride + t * dilation - low, c] * dy[n, j, o]

has the images n for its input channels, the channels c as one more spatial axis, dy for its kernel, and
stride and dilation exchanged. Large images are cut into tiles, each an image of its own, and few are worked
on at a time: they stay in the cache.
"""

import functools
import itertools
import math
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering.arrays import divisor, pad, repeat, strided
from jaxcnn.lowering.convolution import Convolution
from jaxcnn.lowering.normal_form import NormalForm, normal_form
from jaxcnn.lowering.onednn.box import LONGEST
from jaxcnn.lowering.onednn.instruction import forward, why_not

TILES = 64  # at most: each is a slice
SHORTEST = 7  # positions of a tile along an axis that is cut: tiles overlap
CACHED = 2**21  # bytes of x to work on together
TOGETHER = 2  # images at least to sum the gradient over at a time
CONTRACTED = 8  # the same with groups: for few, oneDNN has a slow loop


def why_no_kernel_gradient(conv: Convolution) -> str | None:
    """Why the instruction is not used for the gradient of this convolution's kernel; None if it can be."""
    if not conv.rank:
        return "it is one matrix product"
    if math.prod(_counts(_without_multiplier(conv))) > TILES // conv.copies:
        return "its images would be cut into too many tiles"
    return why_not(_as_convolution(_a_few(_tile(_without_multiplier(conv)))).conv)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, group_in, channels_out) of the kernel of a convolution in normal form."""
    if conv.is_depthwise:
        x = repeat(x, conv.group_out)
        conv = _without_multiplier(conv)
    x, dy = _tiles(conv, x, dy)
    conv = _tile(conv)
    of_few = functools.partial(_gradient_of_a_few, _a_few(conv))
    few = _a_few(conv).batch
    if few == conv.batch:
        return of_few(x, dy)

    def add(place: Array, total: Array) -> Array:  # a slice of whole images is one block of memory
        return total + of_few(*(lax.dynamic_slice_in_dim(a, place * few, few) for a in (x, dy)))

    zeros = jnp.zeros((*conv.window, conv.group_in, conv.channels_out), x.dtype)
    return lax.fori_loop(0, conv.batch // few, add, zeros)


def _gradient_of_a_few(conv: Convolution, x: Array, dy: Array) -> Array:
    n, groups = conv.batch, conv.groups
    form = _as_convolution(conv)
    if conv.is_depthwise:
        channels = n * conv.channels_in
        x = jnp.moveaxis(x, 0, -2).reshape(1, *x.shape[1:-1], channels)
        dy = jnp.moveaxis(dy, 0, -2).reshape(*dy.shape[1:-1], 1, channels)
        gradient = form.y(forward(form.conv, form.x(x), form.kernel(dy)))
        return gradient.reshape(*conv.window, n, 1, conv.channels_out).sum(conv.rank)
    x = jnp.moveaxis(x.reshape(*x.shape[:-1], groups, conv.group_in), (-1, 0), (-3, -1))
    x = x.reshape(1, *x.shape[:-2], groups * n)
    dy = jnp.expand_dims(jnp.moveaxis(dy, 0, -2), -3)
    return form.y(forward(form.conv, form.x(x), form.kernel(dy)))[0]


def _as_convolution(conv: Convolution) -> NormalForm:
    """The convolution that is the gradient of the kernel."""
    exchanged = replace(
        conv, batch=1, window=conv.output, output=conv.window, stride=conv.dilation, dilation=conv.stride
    )
    if conv.is_depthwise:  # every image is a group of its own: with n channels a group, oneDNN is slow
        channels = conv.batch * conv.channels_in
        exchanged = replace(exchanged, channels_in=channels, channels_out=channels, groups=channels)
    else:
        exchanged = replace(exchanged, channels_in=conv.groups * conv.batch)
        exchanged = exchanged.with_axis(conv.rank, conv.group_in)
    form = normal_form(exchanged)
    assert form is not None, "every position of the window reads an element of x"
    return form


def _without_multiplier(conv: Convolution) -> Convolution:
    """The same for x with every channel repeated for each of its filters, where groups have one channel."""
    return (
        replace(conv, channels_in=conv.channels_out, groups=conv.channels_out) if conv.is_depthwise else conv
    )


def _a_few(conv: Convolution) -> Convolution:
    """The convolution of as many images as are worked on together."""
    least = 1 if conv.is_depthwise else TOGETHER if conv.groups == 1 else CONTRACTED
    return replace(conv, batch=divisor(conv.batch, max(least, CACHED // _bytes(conv))))


def _bytes(conv: Convolution) -> int:
    """Of one image."""
    return 4 * math.prod(conv.size) * conv.channels_in


def _counts(conv: Convolution) -> list[int]:
    """Into how many tiles each spatial axis is cut."""
    rows, *others = (-(-n // LONGEST) for n in conv.output)
    if conv.groups == 1:
        rows = max(rows, _bytes(conv) // (math.prod(others) * TOGETHER * CACHED))
    elif not conv.is_depthwise:
        rows = max(rows, -(-CONTRACTED // conv.batch))
    return [_parts(n, wanted) for n, wanted in zip(conv.output, (rows, *others), strict=True)]


def _parts(n: int, wanted: int) -> int:
    """How many equal parts of n there are, if possible as many as wanted, and none too short."""
    possible = [d for d in range(1, n + 1) if n % d == 0 and (n // d >= SHORTEST or d == 1)]
    return next((d for d in possible if d >= wanted), possible[-1])


def _tile(conv: Convolution) -> Convolution:
    """The same sum over tiles, each with all that its positions read."""
    counts = _counts(conv)
    if max(counts) == 1:
        return conv
    output = tuple(n // count for n, count in zip(conv.output, counts, strict=True))
    axes = zip(output, conv.stride, conv.window, conv.dilation, strict=True)
    size = tuple((n - 1) * s + (w - 1) * d + 1 for n, s, w, d in axes)
    padding = ((0, 0),) * conv.rank
    return replace(conv, batch=conv.batch * math.prod(counts), size=size, output=output, padding=padding)


def _tiles(conv: Convolution, x: Array, dy: Array) -> tuple[Array, Array]:
    """The images and the cotangents of `_tile`'s convolution."""
    tile, counts = _tile(conv), _counts(conv)
    if max(counts) == 1:
        return x, dy
    places = list(itertools.product(*map(range, counts)))

    def cut(images: Array, step: list[int], size: tuple[int, ...]) -> Array:
        starts = ([p * s for p, s in zip(place, step, strict=True)] for place in places)
        return jnp.concatenate([strided(images, start, size, (1,) * conv.rank) for start in starts])

    step = [n * s for n, s in zip(tile.output, conv.stride, strict=True)]
    return cut(pad(x, conv.padding), step, tile.size), cut(dy, [*tile.output], tile.output)
