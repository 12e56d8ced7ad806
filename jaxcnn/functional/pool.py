"""Pooling: one number for every window, channel by channel.

Maxima and sums are one `lax.reduce_window`, which asks to be compiled by the rewrites of `jaxcnn.lowering`.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Integer

from jaxcnn.functional.checks import (
    AnyArray,
    PerAxis,
    as_array,
    as_bool,
    as_images,
    as_images_and_window,
    check_shape,
    is_number,
    widen,
)
from jaxcnn.functional.geometry import Padding, Slide, slide
from jaxcnn.lowering import accelerate


@overload
def max_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Float[Array, "batch *output channels"]: ...


@overload
def max_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: Literal[True],
) -> tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]: ...


def max_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> (
    Float[Array, "batch *output channels"]
    | tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]
):
    """The largest element of every window.

    For one spatial axis, over the taps t that hit the input,

        y[b, i, c] = max_t x[b, i * stride + t * dilation - low, c]

    Padding never wins, NaN always does. On ties the gradient goes to the first of the largest elements.

    Args:
        x: images (batch, *spatial, channels).
        window: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        stride: elements between two windows; the window by default.
        padding: as in `conv`.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills, as PyTorch does.
        return_indices: also say where the largest elements are, for `max_unpool`.

    Returns:
        y (batch, *output, channels), where output is `output_size(spatial, window, ...)`; with return_indices
        the pair (y, indices) of that shape. An index is the int32 position of the element that won in the
        plane of its channel, counted row by row and without the padding.

    Raises:
        ValueError: a window that does not fit or that holds padding alone, ceil_mode with a padding name, or
            options out of range.
        TypeError: images that are not floating.

    Reference:
        torch.nn.functional.max_pool1d, max_pool2d and max_pool3d.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(12.0).reshape(1, 3, 4, 1)
        >>> max_pool(x, 2, ceil_mode=True)[0, ..., 0].tolist()
        [[5.0, 7.0], [9.0, 11.0]]
        >>> y, indices = max_pool(-x, 2, return_indices=True)
        >>> indices[0, ..., 0].tolist()
        [[0, 2]]
    """
    as_bool("max_pool", "return_indices", return_indices)
    x, sliding = _windows("max_pool", x, window, stride, padding, dilation, ceil_mode)
    if return_indices or any(step > 1 for step in sliding.dilation):
        # JAX differentiates no reduce_window over (value, position) pairs, and no maximum of dilated windows.
        size = x.shape[1:-1]
        result = first_largest(
            x, [_nearest_inside(sliding.positions(axis), n) for axis, n in enumerate(size)]
        )
        return result if return_indices else result[0]
    return _reduce_windows(x, -np.inf, lax.max, sliding)


def avg_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "batch *output channels"]:
    """The mean of every window.

    For one spatial axis, over the taps t,

        y[b, i, c] = sum_t x[b, i * stride + t * dilation - low, c] / n_i

    where n_i is the number of taps inside the padded input, or with count_include_pad=False inside the
    input itself. What ceil_mode adds at the high end is never counted.

    Args:
        x: images (batch, *spatial, channels).
        window: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        stride: elements between two windows; the window by default.
        padding: as in `conv`.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills, as PyTorch does.
        count_include_pad: whether the zeros of the padding count as elements.

    Returns:
        (batch, *output, channels), summed in float32 or wider, of x's dtype.

    Raises:
        ValueError: a window that does not fit or that holds padding alone, ceil_mode with a padding name, or
            options out of range.
        TypeError: images that are not floating.

    Reference:
        torch.nn.functional.avg_pool1d, avg_pool2d and avg_pool3d. TensorFlow's and Flax's "SAME" does not
        count the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(12.0).reshape(1, 3, 4, 1)
        >>> avg_pool(x, 2)[0, ..., 0].tolist()
        [[2.5, 4.5]]
    """
    as_bool("avg_pool", "count_include_pad", count_include_pad)
    x, sliding = _windows("avg_pool", x, window, stride, padding, dilation, ceil_mode)
    wide = widen(x)
    sums = _reduce_windows(wide, 0.0, lax.add, sliding)
    counts = _taps_inside(sliding, x.shape[1:-1], include_pad=count_include_pad)
    return (sums / jnp.asarray(counts[None, ..., None], wide.dtype)).astype(x.dtype)


def lp_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    p: float | int,
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Float[Array, "batch *output channels"]:
    """The p-norm of every window.

    For one spatial axis, over the taps t,

        y[b, i, c] = (sum_t |x[b, i * stride + t * dilation - low, c]|^p * taps / n_i)^(1/p)

    where n_i of the window's taps are inside the padded input: a window that ceil_mode keeps though it is
    only partly filled counts as much as a full one, and taps / n_i is 1 everywhere else. p = 1 is the sum of
    the magnitudes, and the larger p, the nearer to their maximum. The gradient at zeros is 0 for every p.

    Args:
        x: images (batch, *spatial, channels).
        p: the power, a positive finite Python number.
        window: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        stride: elements between two windows; the window by default.
        padding: as in `conv`.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills, as PyTorch does.

    Returns:
        (batch, *output, channels), summed in float32 or wider, of x's dtype.

    Raises:
        ValueError: a p that is not positive and finite, a window that does not fit or that holds padding
            alone, ceil_mode with a padding name, or options out of range.
        TypeError: images that are not floating, a p that is no number.

    Reference:
        ONNX LpPool; torch.nn.functional.lp_pool1d, lp_pool2d and lp_pool3d, but that they take x^p instead of
        |x|^p: the same for an even p, while for another one negative elements cancel positive ones or give
        NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([3.0, -4.0, 0.0, 0.0]).reshape(1, 4, 1)
        >>> lp_pool(x, 2, (2,))[0, :, 0].tolist()
        [5.0, 0.0]
    """
    p = as_power("lp_pool", p)
    x, sliding = _windows("lp_pool", x, window, stride, padding, dilation, ceil_mode)
    powers = _power(widen(x), p)
    sums = _reduce_windows(powers, 0.0, lax.add, sliding)
    if any(sliding.overhang):
        counts = _taps_inside(sliding, x.shape[1:-1], include_pad=True)
        sums = sums * jnp.asarray((math.prod(sliding.window) / counts)[None, ..., None], sums.dtype)
    return _power(sums, 1 / p).astype(x.dtype)


def max_unpool(
    x: Float[AnyArray, "batch *spatial channels"],
    indices: Integer[AnyArray, "batch *spatial channels"],
    output_size: PerAxis,
) -> Float[Array, "batch *output channels"]:
    """Put every element back where `max_pool` took it from, among zeros.

    With y as planes of prod(output_size) elements, counted row by row,

        y[b, indices[b, i, c], c] = x[b, i, c]        and 0 elsewhere

    Where several elements go to one place, as after windows that overlap, the last of them row by row stays
    and takes the gradient. Indices are known only when the program runs and so cannot raise: an element whose
    index is outside the plane, below 0 too, is dropped.

    Args:
        x: (batch, *spatial, channels), as `max_pool` gives it.
        indices: what max_pool(..., return_indices=True) gave, of x's shape and an integer dtype.
        output_size: the spatial size that was pooled: a tuple with one int per spatial axis; an int for a
            batch of 2-D images.

    Returns:
        (batch, *output_size, channels), of x's dtype.

    Raises:
        ValueError: indices that do not have x's shape, an output_size below 1 or of another rank.
        TypeError: an x that is not floating, indices that are not integers.

    Reference:
        torch.nn.functional.max_unpool1d, max_unpool2d and max_unpool3d, which take the window to guess the
        size and give the gradient to every element of one place; ONNX MaxUnpool, whose indices count through
        batch and channels too.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(12.0).reshape(1, 3, 4, 1)
        >>> y, indices = max_pool(x, (1, 2), return_indices=True)
        >>> max_unpool(y, indices, (3, 4))[0, ..., 0].tolist()
        [[0.0, 1.0, 0.0, 3.0], [0.0, 5.0, 0.0, 7.0], [0.0, 9.0, 0.0, 11.0]]
    """
    function = "max_unpool"
    x, size = as_images_and_window(function, x, output_size, name="output_size")
    indices = as_array(function, "indices", indices)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"{function}: indices must have an integer dtype, got {indices.dtype}")
    check_shape(function, "indices", indices, x.shape, "that of x")
    elements, indices, places = _planes(x), _planes(indices), math.prod(size)
    legal = (indices >= 0) & (indices <= min(places - 1, jnp.iinfo(indices.dtype).max))
    place = jnp.where(legal, indices, 0).astype(jnp.int32)
    order = jnp.where(legal, jnp.arange(elements.shape[1], dtype=jnp.int32)[None, :, None], -1)

    def last_at_each_place(place: Array, order: Array) -> Array:
        return jnp.full(places, -1, jnp.int32).at[place].max(order)

    # The maximum is taken of integers, -1 for none: JAX has no derivative of a scattered maximum.
    last = jax.vmap(jax.vmap(last_at_each_place, in_axes=-1, out_axes=-1))(place, order)
    values = jnp.take_along_axis(elements, jnp.maximum(last, 0), axis=1)
    return jnp.where(last >= 0, values, 0).reshape(x.shape[0], *size, x.shape[-1])


def global_max_pool(
    x: Float[AnyArray, "batch *spatial channels"], *, keepdims: bool = False
) -> Float[Array, "batch *ones channels"]:
    """The largest element of every channel: y[b, c] = max_i x[b, i, c].

    On ties the largest elements share the gradient.

    Args:
        x: images (batch, *spatial, channels).
        keepdims: keep the spatial axes with size 1.

    Returns:
        (batch, channels), or (batch, 1, ..., 1, channels) with keepdims.

    Raises:
        ValueError: a wrong rank or an empty spatial axis.
        TypeError: images that are not floating.

    Reference:
        ONNX GlobalMaxPool.

    Example:
        >>> import jax.numpy as jnp
        >>> global_max_pool(jnp.arange(12.0).reshape(1, 3, 2, 2)).tolist()
        [[10.0, 11.0]]
    """
    x = as_images("global_max_pool", x)
    as_bool("global_max_pool", "keepdims", keepdims)
    return x.max(axis=tuple(range(1, x.ndim - 1)), keepdims=keepdims)


def global_avg_pool(
    x: Float[AnyArray, "batch *spatial channels"], *, keepdims: bool = False
) -> Float[Array, "batch *ones channels"]:
    """The mean of every channel: y[b, c] = mean_i x[b, i, c].

    Args:
        x: images (batch, *spatial, channels).
        keepdims: keep the spatial axes with size 1.

    Returns:
        (batch, channels), or (batch, 1, ..., 1, channels) with keepdims; summed in float32 or wider, of x's
        dtype.

    Raises:
        ValueError: a wrong rank or an empty spatial axis.
        TypeError: images that are not floating.

    Reference:
        Lin, Chen and Yan, "Network in Network", 2014, section 3.2; ONNX GlobalAveragePool.

    Example:
        >>> import jax.numpy as jnp
        >>> global_avg_pool(jnp.arange(12.0).reshape(1, 3, 2, 2)).tolist()
        [[5.0, 6.0]]
    """
    x = as_images("global_avg_pool", x)
    as_bool("global_avg_pool", "keepdims", keepdims)
    return widen(x).mean(axis=tuple(range(1, x.ndim - 1)), keepdims=keepdims).astype(x.dtype)


def first_largest(
    x: Array, taps: Sequence[np.ndarray]
) -> tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]:
    """The largest element of every window and its position in the plane; on ties the first one row by row.

    `taps` has an (output, window) table for each spatial axis: the positions that are read, all in the input.
    """
    size = x.shape[1:-1]
    plane = jnp.arange(math.prod(size), dtype=jnp.int32).reshape(1, *size, 1)
    largest, indices = lax.stop_gradient(x), jnp.broadcast_to(plane, x.shape)
    nothing = np.array(-np.inf, x.dtype), np.array(np.iinfo(np.int32).max, np.int32)
    for axis, table in enumerate(taps, 1):
        pairs = read_taps(largest, table, axis), read_taps(indices, table, axis)
        largest, indices = lax.reduce(pairs, nothing, _winner, (axis + 1,))
    # The derivatives are those of reading x at the winning positions.
    values = jnp.take_along_axis(_planes(x), _planes(indices), axis=1)
    return values.reshape(indices.shape), indices


def read_taps(x: Array, table: np.ndarray, axis: int) -> Array:
    """One axis of x replaced by two, (output, window), that hold the elements at the table's positions."""
    if np.array_equal(table.ravel(), np.arange(x.shape[axis])):  # windows side by side
        return x.reshape(*x.shape[:axis], *table.shape, *x.shape[axis + 1 :])
    return jnp.take(x, table, axis=axis)


def _planes(x: Array) -> Array:
    return lax.collapse(x, 1, x.ndim - 1)


def as_power(function: str, p: Any) -> float | int:
    """The argument p as a Python number, an int if it is whole: whole powers have exact derivatives at 0."""
    if not is_number(p):
        raise TypeError(f"{function}: p must be a Python number, got {p!r}")
    if not 0 < p < float("inf"):
        hint = "; p = inf is max_pool of abs(x)" if p == float("inf") else ""
        raise ValueError(f"{function}: p must be positive and finite, got {p!r}{hint}")
    return int(p) if p == int(p) else float(p)


def _power(x: Array, p: float | int) -> Array:
    """|x|^p, with derivatives 0 at 0 where the formula has infinities or none."""
    if isinstance(p, int) and p % 2 == 0:
        return x**p
    # Both branches of a where are differentiated: the power must not see a zero.
    zero = x == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, jnp.abs(x)) ** p)


def _winner(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """Of two (value, position) pairs the larger, of equals the earlier; NaN beats all, the later NaN both."""
    (x, i), (y, j) = one, other
    other_wins = (y > x) | ((y == x) & (j < i)) | ((y != y) & ~((x != x) & (j < i)))
    return jnp.where(other_wins, y, x), jnp.where(other_wins, j, i)


def _nearest_inside(positions: np.ndarray, size: int) -> np.ndarray:
    """Positions in the padding moved to the window's nearest tap inside, which changes no maximum."""
    inside = (positions >= 0) & (positions < size)
    first = np.where(inside, positions, size).min(axis=1, keepdims=True)
    last = np.where(inside, positions, -1).max(axis=1, keepdims=True)
    return np.clip(positions, first, last)


def _windows(
    function: str,
    x: AnyArray,
    window: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> tuple[Array, Slide]:
    """The checked images and where the windows go; no window may hold padding alone."""
    x, window = as_images_and_window(function, x, window)
    size = x.shape[1:-1]
    stride = window if stride is None else stride
    sliding = slide(function, size, window, stride, padding, dilation, ceil_mode=ceil_mode)
    if not _taps_inside(sliding, size).all():
        raise ValueError(
            f"{function}: every window must hold an element of the input, but with window {window}, stride "
            f"{sliding.stride}, dilation {sliding.dilation} and padding {padding!r} on spatial size {size} "
            "one holds padding alone"
        )
    return x, sliding


def _taps_inside(sliding: Slide, size: tuple[int, ...], *, include_pad: bool = False) -> np.ndarray:
    """How many taps of each window lie inside the input, or inside the padded input."""
    counts = []
    for axis, n in enumerate(size):
        low, high = sliding.padding[axis] if include_pad else (0, 0)
        taps = sliding.positions(axis)
        counts.append(((taps >= -low) & (taps < n + high)).sum(axis=1))
    return reduce(np.multiply.outer, counts)


def _reduce_windows(x: Array, start: float, op: Callable[[Any, Any], Any], sliding: Slide) -> Array:
    with accelerate():
        return lax.reduce_window(
            x,
            # A NumPy scalar: lax then recognises the maximum, and its gradient, under jit too.
            np.array(start, x.dtype),
            op,
            window_dimensions=(1, *sliding.window, 1),
            window_strides=(1, *sliding.stride, 1),
            padding=((0, 0), *sliding.reading, (0, 0)),
            window_dilation=(1, *sliding.dilation, 1),
        )
