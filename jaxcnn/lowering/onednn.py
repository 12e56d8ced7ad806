"""Convolution by oneDNN, the library that computes PyTorch's on CPU.

JAX's x86 wheels carry oneDNN, and XLA:CPU has an instruction for its forward convolution in float32, which it
does not use of its own accord. Here it is written out. The gradient of a kernel is a forward convolution too,
whose window is as large as the images:

    dkernel[t, c, o] = sum_{n, j} x[n, j * stride + t * dilation - low, c] * dy[n, j, o]

has the images n for its input channels, the channels c as one more spatial axis, and dy for its kernel. Large
images are cut into tiles, each an image of its own, and few are worked on at a time: they stay in the cache.

oneDNN has many codes for a convolution. A window that it refuses ends the process, and its code of last
resort, a product of matrices, can wait for ever: it divides work over threads that wait for it. `fits` and
`fits_kernel_gradient` let through what was seen to take another code, with AVX-512 and with AVX2, and
`is_available` tries the instruction before its first use.
"""

import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.convolution import Convolution, Pairs, high_padding
from jaxcnn.lowering.images import crop, divisor, pad, repeat, strided
from jaxcnn.lowering.mark import rewriting

CPU_INFO = Path("/proc/cpuinfo")
LONGEST = 128  # elements of a window along an axis
SHORTEST = 7  # positions of a tile along an axis that is cut: tiles overlap
CACHED = 2**21  # bytes of x to work on together
TOGETHER = 2  # images at least to sum the gradient over at a time
CONTRACTED = 8  # the same with groups: for few, oneDNN has a slow loop


def fits(conv: Convolution) -> bool:
    """Whether oneDNN is at hand and can compute this convolution."""
    plain = not (conv.is_spread or conv.partitioned) and conv.batch_groups == 1 and conv.dtype == np.float32
    axes = 2 if _is_depthwise(conv) else 3
    return plain and 1 <= conv.rank <= axes and max(conv.window) <= LONGEST and is_available()


def fits_kernel_gradient(conv: Convolution) -> bool:
    """Whether oneDNN is at hand and can compute the gradient of this convolution's kernel."""
    longest = max((n // count for n, count in zip(conv.output, _tiles(conv), strict=True)), default=0)
    becomes_depthwise = conv.groups > 1 and conv.group_in > 1 and conv.group_out == 1
    return conv.rank <= 2 and longest <= LONGEST and not becomes_depthwise and fits(conv)


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    if _is_depthwise(conv):
        conv, x = _evenly_padded(conv, x)
        if conv.rank == 1:
            return forward(_with_axis(conv, 0, 1), x[:, None], kernel[None])[:, 0]
    spatial = [*range(1, conv.rank + 1)]
    images = {"data": {"batch_dim": 0, "feature_dim": conv.rank + 1, "spatial_dims": spatial}}
    filters = {
        "input_feature_dim": conv.rank,
        "output_feature_dim": conv.rank + 1,
        "spatial_dims": [*range(conv.rank)],
    }
    window = {
        "size": conv.window,
        "strides": conv.stride,
        "pad_left": [low for low, _ in conv.padding],
        "pad_right": [high for _, high in conv.padding],
        "window_dilations": conv.dilation,
    }
    config = {
        "dims": conv.rank + 2,
        "input": images,
        "kernel": {"filter": filters},
        "output": images,
        "window": window,
        "feature_groups": conv.groups,
    }
    y = (conv.batch, *conv.output, conv.channels_out)
    return _instruction("__onednn$convolution", {"onednn_conv_config": config}, y, x, kernel)


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, group_in, channels_out) of conv's kernel."""
    if _is_depthwise(conv) and conv.group_out > 1:
        repeated = replace(conv, channels_in=conv.channels_out, groups=conv.channels_out)
        return kernel_gradient(repeated, repeat(x, conv.group_out), dy)
    conv, x = crop(replace(conv, padding=_up_to_what_is_read(conv)), x)
    conv, x, dy = _cut(conv, _tiles(conv), x, dy)
    together = divisor(conv.batch, _images_at_a_time(conv))
    of_some = functools.partial(_gradient_of_images, replace(conv, batch=together))
    if together == conv.batch:
        return of_some(x, dy)

    def add(place: Array, total: Array) -> Array:  # a slice of whole images is one block of memory
        return total + of_some(*(lax.dynamic_slice_in_dim(a, place * together, together) for a in (x, dy)))

    zeros = jnp.zeros((*conv.window, conv.group_in, conv.channels_out), x.dtype)
    return lax.fori_loop(0, conv.batch // together, add, zeros)


def _gradient_of_images(conv: Convolution, x: Array, dy: Array) -> Array:
    n, groups = conv.batch, conv.groups
    if _is_depthwise(conv):  # every image is a group of its own: with n channels a group, oneDNN is slow
        channels = n * conv.channels_in
        x = jnp.moveaxis(x, 0, -2).reshape(1, *x.shape[1:-1], channels)
        dy = jnp.moveaxis(dy, 0, -2).reshape(*dy.shape[1:-1], 1, channels)
        swapped = _with_window_of_images(conv, channels_in=channels, channels_out=channels, groups=channels)
        gradient = forward(swapped, x, dy).reshape(*conv.window, n, 1, conv.channels_out)
        return gradient.sum(conv.rank)
    x = jnp.moveaxis(x.reshape(*x.shape[:-1], groups, conv.group_in), (-1, 0), (-3, -1))
    x = x.reshape(1, *x.shape[:-2], groups * n)
    dy = jnp.expand_dims(jnp.moveaxis(dy, 0, -2), -3)
    swapped = _with_window_of_images(
        conv, channels_in=groups * n, channels_out=conv.channels_out, groups=groups
    )
    return forward(_with_axis(swapped, conv.rank, conv.group_in), x, dy)[0]


def _with_window_of_images(conv: Convolution, **channels: int) -> Convolution:
    exchanged = replace(
        conv, window=conv.output, output=conv.window, stride=conv.dilation, dilation=conv.stride
    )
    return replace(exchanged, batch=1, **channels)


def _with_axis(conv: Convolution, place: int, size: int) -> Convolution:
    """The same convolution of images with one more axis, along which nothing happens."""

    def more(values: Sequence[Any], value: Any) -> Any:
        return (*values[:place], value, *values[place:])

    return replace(
        conv,
        size=more(conv.size, size),
        window=more(conv.window, 1),
        output=more(conv.output, size),
        stride=more(conv.stride, 1),
        padding=more(conv.padding, (0, 0)),
        spread=more(conv.spread, 1),
        dilation=more(conv.dilation, 1),
    )


def _evenly_padded(conv: Convolution, x: Array) -> tuple[Convolution, Array]:
    """The same convolution, x padded unless its padding is that of a small window, alike at both ends."""
    padding = _up_to_what_is_read(conv)
    axes = zip(padding, conv.size, conv.stride, conv.window, conv.dilation, strict=True)
    if all(0 <= low - high < s and low < w and (w - 1) * d < n for (low, high), n, s, w, d in axes):
        return conv, x
    conv, x = crop(replace(conv, padding=padding), x)
    size = tuple(low + n + high for n, (low, high) in zip(conv.size, conv.padding, strict=True))
    return replace(conv, size=size, padding=((0, 0),) * conv.rank), pad(x, conv.padding)


def _up_to_what_is_read(conv: Convolution) -> Pairs:
    """The padding, without what a stride leaves over: it would make more taps of it."""
    axes = zip(conv.size, conv.padding, conv.window, conv.dilation, conv.output, conv.stride, strict=True)
    return tuple(
        (low, high_padding(n, low, window=w, dilation=d, output=j, stride=s))
        for n, (low, _), w, d, j, s in axes
    )


def _is_depthwise(conv: Convolution) -> bool:
    return conv.groups > 1 and conv.group_in == 1


def _images_at_a_time(conv: Convolution) -> int:
    least = 1 if _is_depthwise(conv) else TOGETHER if conv.groups == 1 else CONTRACTED
    return max(least, CACHED // _bytes(conv))


def _bytes(conv: Convolution) -> int:
    """Of one image."""
    return 4 * math.prod(conv.size) * conv.channels_in


def _tiles(conv: Convolution) -> list[int]:
    """Into how many tiles each spatial axis is cut."""
    rows, *others = (-(-n // LONGEST) for n in conv.output)
    if conv.groups == 1:
        rows = max(rows, _bytes(conv) // (math.prod(others) * TOGETHER * CACHED))
    elif not _is_depthwise(conv):
        rows = max(rows, -(-CONTRACTED // conv.batch))
    return [_parts(n, wanted) for n, wanted in zip(conv.output, (rows, *others), strict=True)]


def _parts(n: int, wanted: int) -> int:
    """How many equal parts of n there are, if possible as many as wanted, and none too short."""
    possible = [d for d in range(1, n + 1) if n % d == 0 and (n // d >= SHORTEST or d == 1)]
    return next((d for d in possible if d >= wanted), possible[-1])


def _cut(conv: Convolution, counts: list[int], x: Array, dy: Array) -> tuple[Convolution, Array, Array]:
    """The same sum over tiles, counts[axis] along every axis, each with all that its positions read."""
    if max(counts) == 1:
        return conv, x, dy
    tile = [n // count for n, count in zip(conv.output, counts, strict=True)]
    reach = [
        (n - 1) * s + (w - 1) * d + 1
        for n, s, w, d in zip(tile, conv.stride, conv.window, conv.dilation, strict=True)
    ]
    places = list(itertools.product(*map(range, counts)))

    def tiles(images: Array, step: list[int], size: list[int]) -> Array:
        starts = ([p * s for p, s in zip(place, step, strict=True)] for place in places)
        return jnp.concatenate([strided(images, start, size, (1,) * conv.rank) for start in starts])

    step = [n * s for n, s in zip(tile, conv.stride, strict=True)]
    x, dy = tiles(pad(x, conv.padding), step, reach), tiles(dy, tile, tile)
    padding = ((0, 0),) * conv.rank
    return replace(conv, batch=len(x), size=tuple(reach), output=tuple(tile), padding=padding), x, dy


def _instruction(target: str, config: Any, y: tuple[int, ...], *operands: Array) -> Array:
    return jax.ffi.ffi_call(
        target,
        jax.ShapeDtypeStruct(y, np.float32),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps(config),
    )(*operands)


def is_available() -> bool:
    """Whether this processor and this JAX have the instruction, and programs are not to be kept.

    A program with it cannot be written to JAX's persistent compilation cache.
    """
    settings: Any = jax.config
    kept = settings.jax_enable_compilation_cache and settings.jax_compilation_cache_dir
    return not kept and _has_avx2() and _was_seen_to_work()


# The first one tells how numbers are stored: at a time they were stored plus one, and the numbers of this one
# would then be those of another convolution, but of one.
PROBES = (
    Convolution(
        batch=1, size=(1,), channels_in=1, window=(1,), channels_out=1, output=(1,), stride=(3,),
        padding=((1, 1),), spread=(1,), dilation=(1,),
    ),
    Convolution(
        batch=1, size=(4, 6), channels_in=1, window=(2, 3), channels_out=1, output=(3, 2), stride=(1, 2),
        padding=((0, 0), (0, 1)), spread=(1, 1), dilation=(1, 2),
    ),
)  # fmt: skip


def _has_avx2() -> bool:
    # Without, oneDNN has nothing but its code of last resort. Linux tells; elsewhere nothing was tried.
    return CPU_INFO.is_file() and " avx2 " in CPU_INFO.read_text()


@functools.cache
def _was_seen_to_work() -> bool:
    cpu = jax.local_devices(backend="cpu")[0]
    # It runs while another program is being compiled, on any device, perhaps inside accelerate().
    with jax.ensure_compile_time_eval(), jax.default_device(cpu), rewriting():
        try:
            return all(map(_agrees, PROBES))
        except jax.errors.JaxRuntimeError:  # no such instruction
            return False


def _agrees(conv: Convolution) -> bool:
    x = np.arange(1, 1 + math.prod(conv.size), dtype=np.float32).reshape(1, *conv.size, 1)
    kernel = np.arange(1, 1 + conv.taps, dtype=np.float32).reshape(*conv.window, 1, 1)
    both = jax.jit(lambda *operands: (forward(conv, *operands), conv.as_it_is(*operands)))
    return np.array_equal(*jax.device_get(both(*jax.device_put((x, kernel)))))
