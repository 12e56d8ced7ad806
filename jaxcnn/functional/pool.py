"""Pooling: one number for every window, channel by channel."""

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray, PerAxis, as_images, widen, window_of
from jaxcnn.functional.geometry import Padding, Slide, slide


def max_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Float[Array, "batch *output channels"]:
    """The largest element of every window.

    For one spatial axis, over the taps t that hit the input,

        y[b, i, c] = max_t x[b, i * stride + t * dilation - low, c]

    Padding never wins. On ties the gradient goes to the first of the largest elements.

    Args:
        x: images (batch, *spatial, channels).
        window: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        stride: elements between two windows; the window by default.
        padding: as in `conv`.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills, as PyTorch does.

    Returns:
        (batch, *output, channels), where output is `output_size(spatial, window, ...)`.

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
    """
    x, sliding = _windows("max_pool", x, window, stride, padding, dilation, ceil_mode)
    # A NumPy scalar: lax then recognises the maximum, and its gradient, under jit too.
    lowest = np.array(-np.inf, x.dtype)
    if all(step == 1 for step in sliding.dilation):
        return lax.reduce_window(x, lowest, lax.max, **_reduce_window_options(sliding))
    # JAX has no gradient for the maximum of a dilated window: collect the taps and take the first largest.
    padded = lax.pad(x, lowest, ((0, 0, 0), *((low, high, 0) for low, high in sliding.reading), (0, 0, 0)))
    taps = jnp.stack([padded[:, *sliding.slices(tap)] for tap in np.ndindex(sliding.window)])
    return jnp.take_along_axis(taps, jnp.argmax(taps, axis=0, keepdims=True), axis=0)[0]


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
    x, sliding = _windows("avg_pool", x, window, stride, padding, dilation, ceil_mode)
    wide = widen(x)
    sums = lax.reduce_window(wide, np.zeros((), wide.dtype), lax.add, **_reduce_window_options(sliding))
    counts = _taps_inside(sliding, x.shape[1:-1], include_pad=count_include_pad)
    return (sums / jnp.asarray(counts[None, ..., None], wide.dtype)).astype(x.dtype)


def global_max_pool(
    x: Float[AnyArray, "batch *spatial channels"], *, keepdims: bool = False
) -> Float[Array, "batch *ones channels"]:
    """The largest element of every channel: y[b, c] = max_i x[b, i, c].

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
    return widen(x).mean(axis=tuple(range(1, x.ndim - 1)), keepdims=keepdims).astype(x.dtype)


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
    window = window_of(function, x, window)
    x = as_images(function, x, len(window), because=f" (those of window {window})")
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


def _reduce_window_options(sliding: Slide) -> dict[str, tuple]:
    return {
        "window_dimensions": (1, *sliding.window, 1),
        "window_strides": (1, *sliding.stride, 1),
        "padding": ((0, 0), *sliding.reading, (0, 0)),
        "window_dilation": (1, *sliding.dilation, 1),
    }
