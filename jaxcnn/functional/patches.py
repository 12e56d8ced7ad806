"""Convolution as linear algebra: the windows of an image as the rows of a matrix.

extract_patches is linear in the image, so that a convolution is its result times the kernel as a matrix, and
fold_patches, its transpose, is what carries a gradient back to the image.
"""

import math
from collections.abc import Sequence
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import (
    SPATIAL_RANKS,
    AnyArray,
    PerAxis,
    as_floating,
    as_images_and_window,
    ints_or_nones,
    per_axis,
    widen,
    window_of,
)
from jaxcnn.functional.conv import as_bias, as_operands
from jaxcnn.functional.geometry import Padding, Slide, slide


def extract_patches(
    x: Float[AnyArray, "batch *spatial channels"],
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
) -> Float[Array, "batch *output taps_times_channels"]:
    """Lay out what every window reads as one row: im2col.

    For one spatial axis, with x padded by `low` zeros at its low end,

        patches[b, i, t * channels + c] = x[b, i * stride + t * dilation - low, c]

    The taps are in row-major order and the channels of a tap stand side by side, which is the order of
    `kernel.reshape(-1, channels_out)`.

    Args:
        x: images (batch, *spatial, channels).
        window: a tuple with one int per spatial axis; an int for a batch of 2-D images.
        stride: elements between two windows.
        padding: as in `conv`.
        dilation: elements between two taps of the window.

    Returns:
        (batch, *output, prod(window) * channels), where output is `output_size(spatial, window, ...)`; an
        image grows by about prod(window / stride).

    Raises:
        ValueError: a window that does not fit, or options out of range.
        TypeError: images that are not floating.

    Reference:
        torch.nn.functional.unfold, whose rows hold all taps of the first channel, then of the second;
        Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document
        Processing", 2006.

    Example:
        >>> x = jnp.arange(6.0).reshape(1, 2, 3, 1)
        >>> extract_patches(x, 2)[0, 0].tolist()
        [[0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 4.0, 5.0]]
    """
    function = "extract_patches"
    x, window = as_images_and_window(function, x, window)
    return _extract(x, slide(function, x.shape[1:-1], window, stride, padding, dilation))


def fold_patches(
    patches: Float[AnyArray, "batch *positions taps_times_channels"],
    output_size: PerAxis,
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
) -> Float[Array, "batch *output channels"]:
    """Add every patch to the place it was read from: col2im, the adjoint of `extract_patches`.

    For one spatial axis,

        y[b, j, c] = sum_{i, t} patches[b, i, t * channels + c]

    over the i and t with i * stride + t * dilation - low = j, so that for the same options
    <extract_patches(x), patches> = <x, fold_patches(patches)>. Where windows overlap their values add up, and
    fold_patches(extract_patches(x)) is x times the number of windows that read each element.

    Args:
        patches: (batch, *positions, prod(window) * channels), as `extract_patches` orders them.
        output_size: the spatial size of the image: a tuple with one int per axis, or an int for 4-D patches.
        window: taps per axis.
        stride: elements between two windows.
        padding: what the image was padded with; what falls there is dropped.
        dilation: elements between two taps of the window.

    Returns:
        (batch, *output_size, channels), summed in float32 or wider, of the dtype of the patches.

    Raises:
        ValueError: patches whose shape is not that of `extract_patches` on such an image, a window that does
            not fit, or options out of range.
        TypeError: patches that are not floating.

    Reference:
        torch.nn.functional.fold and ONNX Col2Im, whose rows hold all taps of the first channel, then of the
        second.

    Example:
        >>> x = jnp.ones((1, 3, 4, 1))
        >>> fold_patches(extract_patches(x, 2), (3, 4), 2)[0, ..., 0].tolist()
        [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]]
    """
    function = "fold_patches"
    patches = as_floating(function, "patches", patches)
    size = window_of(function, patches, output_size, name="output_size", of="patches")
    sliding = slide(function, size, window, stride, padding, dilation)
    taps = math.prod(sliding.window)
    if patches.shape[1:-1] != sliding.output or patches.shape[-1] % taps or 0 in patches.shape[1:]:
        raise ValueError(
            f"{function}: patches must have shape (batch, {', '.join(map(str, sliding.output))}, "
            f"{taps} * channels) for output_size {size}, window {sliding.window}, stride {sliding.stride}, "
            f"padding {sliding.padding} and dilation {sliding.dilation}, got {patches.shape}"
        )
    wide = widen(patches)
    image = jax.ShapeDtypeStruct((patches.shape[0], *size, patches.shape[-1] // taps), wide.dtype)
    (y,) = jax.linear_transpose(lambda x: _extract(x, sliding), image)(wide)
    return y.astype(patches.dtype)


def conv_as_matmul(
    x: Float[AnyArray, "batch *spatial channels_in"],
    kernel: Float[AnyArray, "*window channels_in channels_out"],
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Compute `conv` as one matrix product of the patches and the kernel, as the courses teach it.

        y = extract_patches(x, window) @ kernel.reshape(-1, channels_out) + bias

    It equals `conv` up to rounding and is there to be read and compared: the patches of a 3x3 kernel take
    nine times the memory of the image.

    Args:
        x: images (batch, *spatial, channels_in).
        kernel: (*window, channels_in, channels_out), of x's dtype.
        bias: (channels_out,), of x's dtype.
        stride: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.
        precision: rounding of the products on TPU and GPU, as in `jax.numpy.matmul`.
        preferred_element_type: dtype of the sums and of the result; x's dtype by default.

    Returns:
        (batch, *output, channels_out), where output is `output_size(spatial, window, ...)`.

    Raises:
        ValueError: shapes, window or options that do not fit together.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document
        Processing", 2006.

    Example:
        >>> from jaxcnn.functional import conv
        >>> x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
        >>> kernel = jax.random.normal(jax.random.key(1), (3, 2, 3, 8))
        >>> difference = conv_as_matmul(x, kernel, stride=2) - conv(x, kernel, stride=2)
        >>> bool(abs(difference).max() < 1e-5)
        True
    """
    function = "conv_as_matmul"
    x, kernel = as_operands(function, x, kernel)
    *window, channels_in, channels_out = kernel.shape
    if x.shape[-1] != channels_in:
        raise ValueError(
            f"{function}: kernel must have shape (*window, channels_in, channels_out) with the "
            f"{x.shape[-1]} channels of x {x.shape}, got {kernel.shape}"
        )
    bias = as_bias(function, x, bias, channels_out)
    patches = _extract(x, slide(function, x.shape[1:-1], tuple(window), stride, padding, dilation))
    y = jnp.matmul(
        patches,
        kernel.reshape(-1, channels_out),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return y if bias is None else y + bias.astype(y.dtype)


def dense_to_conv(
    kernel: Float[AnyArray, "features channels_out"], input_size: Sequence[SupportsIndex]
) -> Float[Array, "*input_size channels channels_out"]:
    """Turn the kernel of a dense layer into that of the convolution that computes the same.

    A dense layer over a flattened (*input_size, channels) map is a convolution whose window is the whole map,

        x.reshape(batch, -1) @ kernel = conv(x, dense_to_conv(kernel, input_size))[:, 0, ..., 0]

    and that convolution runs on a larger map too: it gives the answer of the dense layer at every position of
    the window.

    Args:
        kernel: (prod(input_size) * channels, channels_out).
        input_size: spatial size of the map that was flattened: a tuple of 1 to 3 ints.

    Returns:
        The convolution's kernel (*input_size, channels, channels_out).

    Raises:
        ValueError: a kernel that is no matrix, or whose rows the size does not divide.
        TypeError: a kernel that is not floating, a size that is not made of ints.

    Reference:
        Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015, section
        3.1. The weight of a torch.nn.Linear behind torch.flatten has the channels first: a kernel of conv is
        weight.reshape(channels_out, channels, *input_size) with its first two axes moved to the end, in
        reverse order.

    Example:
        A classifier for 4 x 6 maps runs on a map of 5 x 8, at 2 x 3 positions:

        >>> from jaxcnn.functional import conv
        >>> keys = jax.random.split(jax.random.key(0))
        >>> dense = jax.random.normal(keys[0], (4 * 6 * 3, 10))
        >>> large = jax.random.normal(keys[1], (1, 5, 8, 3))
        >>> classes = conv(large, dense_to_conv(dense, (4, 6)))
        >>> classes.shape
        (1, 2, 3, 10)
        >>> one = large[:, 1:5, 2:8].reshape(1, -1) @ dense
        >>> bool(abs(classes[:, 1, 2] - one).max() < 1e-4)
        True
    """
    function = "dense_to_conv"
    kernel = as_floating(function, "kernel", kernel)
    rank = len(ints_or_nones(input_size))
    if rank not in SPATIAL_RANKS:
        raise TypeError(f"{function}: input_size must be a tuple of 1 to 3 ints, got {input_size!r}")
    size = per_axis(function, "input_size", input_size, rank, minimum=1)
    if kernel.ndim != 2 or 0 in kernel.shape or kernel.shape[0] % math.prod(size):
        raise ValueError(
            f"{function}: kernel must have shape ({math.prod(size)} * channels, channels_out) for input_size "
            f"{size}, got {kernel.shape}"
        )
    return kernel.reshape(*size, -1, kernel.shape[-1])


def _extract(x: Array, sliding: Slide) -> Array:
    """One spatial axis after the other: as many slices as the sum of the window, not its product."""
    y = jnp.pad(x, ((0, 0), *sliding.padding, (0, 0)))
    for axis, taps in enumerate(sliding.window):
        read = [y[(slice(None),) * (1 + axis) + (sliding.read_by(tap, axis),)] for tap in range(taps)]
        y = jnp.stack(read, axis=-2)  # (batch, outputs so far, sizes to come, taps so far, channels)
    return y.reshape(x.shape[0], *sliding.output, math.prod(sliding.window) * x.shape[-1])
