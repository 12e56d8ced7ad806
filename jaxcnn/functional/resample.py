"""Images on another grid: resized, read at given positions, or with pixels and channels exchanged."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.functional.adaptive import adaptive_avg_pool
from jaxcnn.functional.checks import (
    AnyArray,
    PerAxis,
    as_bool,
    as_floating,
    as_images,
    as_images_and_window,
    as_int,
    is_number,
    widen,
)
from jaxcnn.functional.sampling import CUBIC, METHODS, cubic_far, cubic_near, near_image, sample
from jaxcnn.functional.taps import taps_of, weighted_sum

Scale = float | int | Sequence[float | int]
"""Output elements per input element: one number for every spatial axis, or one per axis."""

RESIZE_METHODS = ("nearest", "nearest_exact", "bilinear", "bicubic", "area")
PADDING_MODES = ("zeros", "border", "reflection")

OTHER_METHODS = {
    "linear": "bilinear",
    "trilinear": "bilinear",
    "cubic": "bicubic",
    "tricubic": "bicubic",
    "nearest-exact": "nearest_exact",
}
OTHER_PADDING_MODES = {
    "edge": '"edge" is "border" here',
    "replicate": '"replicate" is "border" here',
    "reflect": '"reflect" is "reflection" with align_corners=True here',
    "symmetric": '"symmetric" is "reflection" with align_corners=False here',
}


def resize(
    x: Float[AnyArray, "batch *spatial channels"],
    size: PerAxis,
    *,
    method: str = "bilinear",
    align_corners: bool = False,
    antialias: bool = False,
    scale: Scale | None = None,
) -> Float[Array, "batch *size channels"]:
    """Resize images to the given spatial size, one axis after the other.

    For one spatial axis of n elements and m = size, with the ratio r = n / m,

        y[b, i, c] = sum_j filter(j - p(i)) * x[b, j, c],  p(i) = (i + 1/2) * r - 1/2

    where an element outside of x is the one at its border. Elements are areas whose centres lie at whole
    numbers plus 1/2, which "half pixel" names. The methods are

        nearest         x[floor(i * r)]
        nearest_exact   x[floor((i + 1/2) * r)], whose centre lies nearest
        bilinear        linear along every axis: filter(d) = max(0, 1 - |d|)
        bicubic         Keys' cubic convolution along every axis, with slope -0.75 at d = 1
        area            the mean of the elements that an output element covers: `adaptive_avg_pool`

    Args:
        x: images (batch, *spatial, channels).
        size: of the result: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        method: one of the five above, in 1, 2 or 3 dimensions.
        align_corners: the first and the last elements keep their places: p(i) = i * (n - 1) / (m - 1). For
            "bilinear" and "bicubic".
        antialias: where an axis shrinks, the filter is stretched by r, so that it reads every element; the
            cubic's slope is -0.5, and elements outside of x do not count. For "bilinear" and "bicubic".
        scale: output elements per input element, a number or one per axis: r is 1 / scale in place of n / m.
            It must agree with size to less than one element.

    Returns:
        (batch, *size, channels), computed in float32 or wider, of x's dtype.

    Raises:
        ValueError: an unknown method, a size below 1 or of another rank than x, or options that the method
            does not have or that exclude each other.
        TypeError: images that are not floating, options of the wrong type.

    Reference:
        torch.nn.functional.interpolate, scale being its scale_factor. As there, whatever scale
        says, an axis that keeps its size is copied by "nearest", "bilinear" and with antialias, and one
        that doubles is doubled by "nearest"; and antialias with align_corners shifts p(i) by half a step. The
        products of "nearest" are rounded to float32, as PyTorch's are for float64 images; for float32 ones it
        takes a neighbour at some sizes, such as 14 to 46. Keys, "Cubic Convolution Interpolation for Digital
        Image Processing", 1981.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
        >>> resize(x, (4,))[0, :, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
        >>> resize(x, (4,), method="nearest")[0, :, 0].tolist()
        [0.0, 0.0, 4.0, 4.0]
    """
    function = "resize"
    x, size = as_images_and_window(function, x, size, name="size")
    check_resize_options(function, method, align_corners, antialias, scale, rank=len(size))
    spatial = x.shape[1:-1]
    scales = _scales(function, scale, spatial, size)
    if method == "area":
        return adaptive_avg_pool(x, size)
    y = widen(x)
    for axis, (n, m, ratio) in enumerate(zip(spatial, size, scales, strict=True), 1):
        if n == m and (ratio is None or method in ("nearest", "bilinear") or antialias):
            continue
        positions, weights = _taps_of_axis(n, m, ratio, method, align_corners, antialias)
        y = weighted_sum(y, taps_of(positions, weights, n), axis=axis)
    return y.astype(x.dtype)


def grid_sample(
    x: Float[AnyArray, "batch *spatial channels"],
    grid: Float[AnyArray, "batch *output spatial_rank"],
    *,
    method: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Float[Array, "batch *output channels"]:
    """Read images at given positions, between their elements.

    The last axis of the grid holds a position in x in units of half its size, from -1 at one end to 1 at the
    other, the last spatial axis first: (x, y) for images, (x, y, z) for volumes. On an axis of n elements a
    coordinate g is the position

        p = ((g + 1) * n - 1) / 2        or with align_corners        p = (g + 1) * (n - 1) / 2

    in elements, so that -1 and 1 are the outer edges of the outermost elements, or their centres. The value
    there is interpolated along every axis, as in `resize` without antialias.

    Args:
        x: images (batch, *spatial, channels).
        grid: (batch, *output, number of spatial axes), of any floating dtype.
        method: "nearest" (half-way positions to the even element), "bilinear" (linear along every axis) or
            "bicubic", in 1, 2 or 3 dimensions.
        padding_mode: what lies outside of x: "zeros", "border" (the nearest element) or "reflection" (x
            mirrored at the ends, which align_corners places, as often as it takes).
        align_corners: whether -1 and 1 are the centres of the outermost elements, or their outer edges.

    Returns:
        (batch, *output, channels), computed in the wider dtype of x and grid and at least float32, of x's
        dtype. A NaN in the grid gives NaN; the gradient with respect to a grid is 0 for "nearest" and for
        positions that "border" or "reflection" moves to an end.

    Raises:
        ValueError: a grid of another batch or number of axes, an unknown method or padding_mode.
        TypeError: arrays that are not floating.

    Reference:
        torch.nn.functional.grid_sample, which has neither 1-D images nor "bicubic" in 3-D; Jaderberg et al.,
        "Spatial Transformer Networks", 2015.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(6.0).reshape(1, 2, 3, 1)
        >>> grid = jnp.array([[-1.0, -1.0], [0.5, 1.0]]).reshape(1, 2, 2)
        >>> grid_sample(x, grid, align_corners=True)[0, :, 0].tolist()
        [0.0, 4.5]
    """
    function = "grid_sample"
    x = as_images(function, x)
    grid = as_floating(function, "grid", grid)
    rank = x.ndim - 2
    fits = grid.ndim >= 2 and (grid.shape[0], grid.shape[-1]) == (x.shape[0], rank)
    if not fits or 0 in grid.shape[1:]:
        raise ValueError(
            f"{function}: grid must have shape ({x.shape[0]}, *output, {rank}), the batch and the number of "
            f"spatial axes of x {x.shape}, with no empty axis between, got {grid.shape}"
        )
    as_bool(function, "align_corners", align_corners)
    _check_choice(function, "method", method, METHODS, _hint_for_method(method, METHODS))
    hint = OTHER_PADDING_MODES.get(padding_mode, "") if isinstance(padding_mode, str) else ""
    _check_choice(function, "padding_mode", padding_mode, PADDING_MODES, hint)

    dtype = np.result_type(widen(x).dtype, widen(grid).dtype)
    reflect = _reflect_at_centres if align_corners else _reflect_at_edges
    bound = {"zeros": near_image, "border": _to_border, "reflection": reflect}[padding_mode]
    positions = []
    for axis, n in enumerate(x.shape[1:-1]):
        coordinate = grid[..., rank - 1 - axis].astype(dtype)
        position = (coordinate + 1) * (n - 1) / 2 if align_corners else ((coordinate + 1) * n - 1) / 2
        # A cubic reads further than its position: there each tap is brought back by itself.
        if method != "bicubic":
            position = bound(position, n)
        elif padding_mode != "reflection":
            position = near_image(position, n)
        positions.append(position)
    read = partial(sample, method=method, bound=bound if method == "bicubic" else None)
    return jax.vmap(read)(x.astype(dtype), jnp.stack(positions, axis=-1)).astype(x.dtype)


def pixel_shuffle(
    x: Float[AnyArray, "batch *spatial channels"], factor: SupportsIndex
) -> Float[Array, "batch *larger fewer_channels"]:
    """Lay out channels as blocks of pixels: sub-pixel convolution's last step.

    For two spatial axes and r = factor,

        y[b, i * r + s, j * r + t, c] = x[b, i, j, (c * r + s) * r + t]

    and alike for one axis (c * r + s) and three (((c * r + s) * r + t) * r + u).

    Args:
        x: images (batch, *spatial, channels).
        factor: how much larger every spatial axis becomes.

    Returns:
        (batch, *(spatial * factor), channels // factor^rank), rank being the number of spatial axes.

    Raises:
        ValueError: channels that factor^rank does not divide, a factor below 1.
        TypeError: images that are not floating, a factor that is no int.

    Reference:
        torch.nn.functional.pixel_shuffle (2-D); ONNX DepthToSpace with mode "CRD". TensorFlow's
        depth_to_space and ONNX's mode "DCR" have the channel c last in place of first. Shi et al., "Real-Time
        Single Image and Video Super-Resolution", 2016.

    Example:
        >>> import jax.numpy as jnp
        >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), 2)[0, ..., 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    function = "pixel_shuffle"
    x = as_images(function, x)
    factor = as_int(function, "factor", factor, minimum=1)
    batch, *spatial, channels = x.shape
    rank = len(spatial)
    if channels % factor**rank:
        raise ValueError(
            f"{function}: factor^{rank} must divide the channels of x {x.shape}, got factor={factor} for "
            f"{channels} channels"
        )
    channels_out = channels // factor**rank
    blocks = x.reshape(batch, *spatial, channels_out, *(factor,) * rank)
    within = [(1 + axis, rank + 2 + axis) for axis in range(rank)]  # each axis with its place in the block
    y = blocks.transpose(0, *(axis for pair in within for axis in pair), rank + 1)
    return y.reshape(batch, *(n * factor for n in spatial), channels_out)


def pixel_unshuffle(
    x: Float[AnyArray, "batch *spatial channels"], factor: SupportsIndex
) -> Float[Array, "batch *smaller more_channels"]:
    """Lay out blocks of pixels as channels: the inverse of `pixel_shuffle`.

    For two spatial axes and r = factor,

        y[b, i, j, (c * r + s) * r + t] = x[b, i * r + s, j * r + t, c]

    Args:
        x: images (batch, *spatial, channels).
        factor: how much smaller every spatial axis becomes; it divides them.

    Returns:
        (batch, *(spatial // factor), channels * factor^rank), rank being the number of spatial axes.

    Raises:
        ValueError: a spatial axis that factor does not divide, a factor below 1.
        TypeError: images that are not floating, a factor that is no int.

    Reference:
        torch.nn.functional.pixel_unshuffle (2-D). TensorFlow's and ONNX's space to depth have the channel c
        last in place of first.

    Example:
        >>> import jax.numpy as jnp
        >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2, 1), 2).tolist()
        [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    function = "pixel_unshuffle"
    x = as_images(function, x)
    factor = as_int(function, "factor", factor, minimum=1)
    batch, *spatial, channels = x.shape
    rank = len(spatial)
    if any(n % factor for n in spatial):
        raise ValueError(
            f"{function}: factor must divide the spatial size of x {x.shape}, got factor={factor} for "
            f"{tuple(spatial)}"
        )
    blocks = x.reshape(batch, *(part for n in spatial for part in (n // factor, factor)), channels)
    outer, inner = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
    y = blocks.transpose(0, *outer, 2 * rank + 1, *inner)
    return y.reshape(batch, *(n // factor for n in spatial), channels * factor**rank)


def check_resize_options(
    function: str, method: Any, align_corners: bool, antialias: bool, scale: Any, *, rank: int
) -> None:
    """Refuse an unknown method, options that it does not have, and a scale that is none."""
    _check_choice(function, "method", method, RESIZE_METHODS, _hint_for_method(method, RESIZE_METHODS))
    for name, wanted in (("align_corners", align_corners), ("antialias", antialias)):
        if as_bool(function, name, wanted) and method not in ("bilinear", "bicubic"):
            raise ValueError(
                f'{function}: {name}=True needs method "bilinear" or "bicubic", got method={method!r}'
            )
    if scale is None:
        return
    if align_corners or method == "area":
        other = "align_corners=True" if align_corners else 'method="area"'
        raise ValueError(
            f"{function}: scale has no meaning with {other}, got scale={scale!r}; size says it all"
        )
    numbers = _per_axis_numbers(scale, rank)
    if len(numbers) != rank or not all(is_number(n) and 0 < n < math.inf for n in numbers):
        raise ValueError(
            f"{function}: scale must be a positive number or a tuple of {rank} (one per spatial axis), "
            f"got {scale!r}"
        )


def _scales(
    function: str, scale: Scale | None, spatial: tuple[int, ...], size: tuple[int, ...]
) -> list[float | None]:
    """The checked scale of every axis, or None for size / spatial."""
    if scale is None:
        return [None] * len(size)
    numbers = _per_axis_numbers(scale, len(size))
    if any(abs(n * s - m) >= 1 for n, m, s in zip(spatial, size, numbers, strict=True)):
        raise ValueError(
            f"{function}: scale (output elements per input element) must agree with size, got "
            f"scale={scale!r} for spatial size {spatial} and size {size}"
        )
    return [float(number) for number in numbers]


def _per_axis_numbers(scale: Any, rank: int) -> list[Any]:
    scale = scale.tolist() if isinstance(scale, np.ndarray) else scale
    several = isinstance(scale, Sequence) and not isinstance(scale, str)
    return list(scale) if several else [scale] * rank


def _check_choice(function: str, name: str, value: Any, choices: tuple[str, ...], hint: str) -> None:
    if not isinstance(value, str) or value not in choices:
        hint = f"; {hint}" if hint else ""
        raise ValueError(f"{function}: {name} must be one of {', '.join(choices)}, got {value!r}{hint}")


def _hint_for_method(method: Any, choices: tuple[str, ...]) -> str:
    other = OTHER_METHODS.get(method, "") if isinstance(method, str) else ""
    return f'"{other}" is the name for any number of axes' if other in choices[1:] else ""


def _taps_of_axis(
    n: int, m: int, scale: float | None, method: str, align_corners: bool, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The positions that each of m elements reads on an axis of n, and their weights: both (m, taps)."""
    if align_corners:
        step = (n - 1) / (m - 1) if m > 1 else 0.0
    else:
        step = n / m if scale is None else 1 / scale
    if method == "nearest" and m == 2 * n:
        step = 0.5  # whatever scale says, as in PyTorch
    i = np.arange(m)
    if method in ("nearest", "nearest_exact"):
        # In float32 a product that should be whole is whole, in float64 it may lie just below.
        source = np.float32((i + (0.5 if method == "nearest_exact" else 0)) * step)
        return np.minimum(np.floor(source).astype(int), n - 1)[:, None], np.ones((m, 1))

    # PyTorch's antialias takes the step of align_corners from half-pixel coordinates.
    source = i * step if align_corners and not antialias else (i + 0.5) * step - 0.5
    stretch = max(step, 1.0) if antialias else 1.0
    reach = math.ceil((1 if method == "bilinear" else 2) * stretch)
    positions = np.floor(source).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(positions - source[:, None]) / stretch
    if method == "bilinear":
        weights = np.maximum(1 - distance, 0)
    else:
        slope = -0.5 if antialias else CUBIC
        far = np.where(distance < 2, cubic_far(distance, slope), 0)
        weights = np.where(distance < 1, cubic_near(distance, slope), far)
    if antialias:
        weights = np.where((positions >= 0) & (positions < n), weights, 0)
        weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(positions, 0, n - 1), weights


def _to_border(position: Array, size: int) -> Array:
    """The nearest position in the image, with gradient 0 at its ends and beyond, as PyTorch has it."""
    within = (position > 0) & (position < size - 1)
    return jnp.where(within, position, lax.stop_gradient(jnp.clip(position, 0, size - 1)))


def _reflect_at_centres(position: Array, size: int) -> Array:
    """The position mirrored at the centres of the outermost elements."""
    return _to_border(_wave(position, size - 1), size) if size > 1 else _to_border(position, size)


def _reflect_at_edges(position: Array, size: int) -> Array:
    """The position mirrored at the outer edges of the outermost elements."""
    return _to_border(_wave(position + 0.5, size) - 0.5, size)


def _wave(distance: Array, span: int) -> Array:
    """Up from 0 to span and down again, for ever, in both directions."""
    return span - jnp.abs(span - jnp.mod(distance, 2 * span))
