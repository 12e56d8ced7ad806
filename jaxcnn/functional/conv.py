"""Convolution as neural networks define it (a cross-correlation), its adjoint and its factored forms.

Every function here is one `lax.conv_general_dilated`, or two for `separable_conv`, channels last, which asks
to be compiled by the rewrites of `jaxcnn.lowering`.
"""

from typing import Any, SupportsIndex

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import (
    SPATIAL_RANKS,
    AnyArray,
    PerAxis,
    as_floating,
    as_images,
    as_int,
    check_same_dtype,
    check_shape,
)
from jaxcnn.functional.geometry import Padding, slide, slide_transposed
from jaxcnn.functional.padding import check_mode, pad_explicit
from jaxcnn.lowering import accelerate


def conv(
    x: Float[AnyArray, "batch *spatial channels_in"],
    kernel: Float[AnyArray, "*window channels_in_per_group channels_out"],
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Slide a kernel over 1, 2 or 3 spatial axes and sum the products.

    For one spatial axis, with x padded by `low` at its low end and one group,

        y[b, i, o] = bias[o] + sum_{t, c} x[b, i * stride + t * dilation - low, c] * kernel[t, c, o]

    The kernel is not flipped: this is cross-correlation, which deep learning calls convolution. With groups,
    output channels are split into `groups` equal runs and run g reads input channels of run g only. The
    number of spatial axes is that of the kernel.

    Args:
        x: images (batch, *spatial, channels_in).
        kernel: (*window, channels_in // groups, channels_out), of x's dtype.
        bias: (channels_out,), of x's dtype.
        stride: elements between two positions of the kernel.
        padding: an int, "SAME", "SAME_LOWER", "VALID", "CAUSAL" (one spatial axis), a tuple of ints or a
            tuple of (low, high) pairs.
        dilation: elements between two taps of the kernel (atrous convolution).
        groups: runs of channels that do not see each other.
        padding_mode: what is padded with: one of the modes of `pad` but "constant".
        precision: rounding of the products on TPU and GPU, as in `lax.conv_general_dilated`.
        preferred_element_type: dtype of the sums and of the result; x's dtype by default.

    Returns:
        (batch, *output, channels_out), where output is `output_size(spatial, window, ...)`.

    Raises:
        ValueError: shapes, groups, window or options that do not fit together.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        torch.nn.functional.conv1d, conv2d and conv3d, with channels last. "SAME" with a stride above 1 is
        TensorFlow's and XLA's, which PyTorch does not have.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 28, 32, 3))
        >>> kernel = jax.random.normal(jax.random.key(1), (5, 3, 3, 8))
        >>> conv(x, kernel, stride=2, padding="SAME").shape
        (2, 14, 16, 8)
    """
    return _conv(
        "conv",
        x,
        kernel,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def depthwise_conv(
    x: Float[AnyArray, "batch *spatial channels"],
    kernel: Float[AnyArray, "*window 1 channels_out"],
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    padding_mode: str = "zeros",
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Filter every channel on its own: `conv` with as many groups as x has channels.

    With m = channels_out // channels filters for each channel, and channel c = o // m,

        y[b, i, o] = bias[o] + sum_t x[b, i * stride + t * dilation - low, c] * kernel[t, 0, o]

    Args:
        x: images (batch, *spatial, channels).
        kernel: (*window, 1, channels * multiplier), of x's dtype.
        bias: (channels * multiplier,), of x's dtype.
        stride: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.
        padding_mode: as in `conv`.
        precision: as in `conv`.
        preferred_element_type: as in `conv`.

    Returns:
        (batch, *output, channels * multiplier).

    Raises:
        ValueError: shapes, window or options that do not fit together.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        torch.nn.functional.conv2d with groups=channels; Chollet, "Xception", 2017, section 2.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 9, 7, 4))
        >>> depthwise_conv(x, jax.random.normal(jax.random.key(1), (3, 3, 1, 8)), padding=1).shape
        (2, 9, 7, 8)
    """
    return _depthwise_conv(
        "depthwise_conv",
        "kernel",
        x,
        kernel,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def separable_conv(
    x: Float[AnyArray, "batch *spatial channels"],
    depthwise_kernel: Float[AnyArray, "*window 1 channels_between"],
    pointwise_kernel: Float[AnyArray, "*ones channels_between channels_out"],
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    padding_mode: str = "zeros",
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Filter every channel on its own, then mix the channels of each position.

        y = conv(depthwise_conv(x, depthwise_kernel, stride, padding, dilation), pointwise_kernel, bias)

    It is the `conv` whose kernel is, with one filter for each channel,
    kernel[t, c, o] = depthwise_kernel[t, 0, c] * pointwise_kernel[0, c, o], at
    channels * (taps + channels_out) products a position in place of channels * taps * channels_out.

    Args:
        x: images (batch, *spatial, channels).
        depthwise_kernel: (*window, 1, channels * multiplier), of x's dtype.
        pointwise_kernel: (1, ..., 1, channels * multiplier, channels_out), of x's dtype.
        bias: (channels_out,), of x's dtype.
        stride: of the depthwise part, as in `conv`.
        padding: of the depthwise part, as in `conv`.
        dilation: of the depthwise part, as in `conv`.
        padding_mode: of the depthwise part, as in `conv`.
        precision: as in `conv`.
        preferred_element_type: dtype of the result; the map between the two parts has x's dtype.

    Returns:
        (batch, *output, channels_out).

    Raises:
        ValueError: shapes, window or options that do not fit together.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017;
        keras.layers.SeparableConv2D.

    Example:
        >>> import jax
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> x = jax.random.normal(keys[0], (2, 9, 7, 4))
        >>> depthwise = jax.random.normal(keys[1], (3, 3, 1, 4))
        >>> pointwise = jax.random.normal(keys[2], (1, 1, 4, 16))
        >>> separable_conv(x, depthwise, pointwise, stride=2, padding=1).shape
        (2, 5, 4, 16)
    """
    between = _depthwise_conv(
        "separable_conv",
        "depthwise_kernel",
        x,
        depthwise_kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        precision=precision,
    )
    pointwise_kernel = as_floating("separable_conv", "pointwise_kernel", pointwise_kernel)
    ones, channels = (1,) * (between.ndim - 2), between.shape[-1]
    if pointwise_kernel.shape[:-1] != (*ones, channels):
        raise ValueError(
            f"separable_conv: pointwise_kernel must have shape {(*ones, channels)} + (channels_out,) for a "
            f"depthwise_kernel {depthwise_kernel.shape}, got {pointwise_kernel.shape}"
        )
    return _conv(
        "separable_conv",
        between,
        pointwise_kernel,
        bias,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def conv_transpose(
    x: Float[AnyArray, "batch *spatial channels_in"],
    kernel: Float[AnyArray, "*window channels_out_per_group channels_in"],
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Spread every input element over a window of the output: the adjoint of `conv`, often "deconvolution".

    For one spatial axis and one group,

        y[b, j, o] = bias[o] + sum_{i, t, c} x[b, i, c] * kernel[t, o, c]

    over the i and t with i * stride + t * dilation - low = j. For the same kernel and options,
    <conv(a, kernel), b> = <a, conv_transpose(b, kernel)>.

    Args:
        x: images (batch, *spatial, channels_in).
        kernel: (*window, channels_out // groups, channels_in), of x's dtype: the kernel of the `conv` whose
            adjoint this is, which maps channels_out to channels_in.
        bias: (channels_out,), of x's dtype.
        stride: output elements between two input elements.
        padding: the padding of that `conv`, so it makes the output smaller. "SAME", "SAME_LOWER" and "CAUSAL"
            give the adjoint on spatial * stride.
        output_padding: elements added at the high end; smaller than the stride or the dilation.
        dilation: output elements between two taps of the kernel.
        groups: runs of channels that do not see each other.
        precision: as in `conv`.
        preferred_element_type: as in `conv`.

    Returns:
        (batch, *output, channels_out), where output is `conv_transpose_output_size(spatial, window, ...)`.

    Raises:
        ValueError: shapes, groups or options that do not fit together, or an empty output.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        torch.nn.functional.conv_transpose1d, 2d and 3d, whose weight (channels_in, channels_out // groups,
        *window) is this kernel with its axes moved.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 7, 5, 16))
        >>> kernel = jax.random.normal(jax.random.key(1), (4, 4, 8, 16))
        >>> conv_transpose(x, kernel, stride=2, padding=1).shape
        (2, 14, 10, 8)
    """
    function = "conv_transpose"
    x, kernel = as_operands(function, x, kernel)
    groups = as_int(function, "groups", groups, minimum=1)
    *window, channels_out_per_group, channels_in = kernel.shape
    if x.shape[-1] != channels_in:
        raise ValueError(
            f"{function}: kernel must have shape (*window, channels_out // groups, channels_in) with the "
            f"{x.shape[-1]} channels of x {x.shape}, got {kernel.shape}"
        )
    if channels_in % groups:
        raise ValueError(
            f"{function}: groups must divide the channels of x, got groups={groups} "
            f"for {channels_in} channels"
        )
    channels_out = groups * channels_out_per_group
    bias = as_bias(function, x, bias, channels_out)
    transposed = slide_transposed(
        function, x.shape[1:-1], tuple(window), stride, padding, output_padding, dilation
    )

    # With stride - 1 zeros between the elements of x the adjoint is a convolution at stride 1 with the
    # flipped kernel, its channel axes exchanged in each group. Output j reads from j - (reach - 1 - low) on;
    # where low is above reach - 1 this starts inside x, and the output is cropped instead.
    rank = len(window)
    grouped = kernel.reshape(*window, channels_out_per_group, groups, channels_in // groups)
    by_group = jnp.moveaxis(
        grouped, (-1, -2), (rank, rank + 1)
    )  # (*window, in per group, groups, out per group)
    exchanged = jnp.flip(by_group, range(rank)).reshape(*window, channels_in // groups, channels_out)
    pads, crops = [], []
    for axis in range(rank):
        reach = transposed.reach[axis]
        spread = (x.shape[1 + axis] - 1) * transposed.stride[axis] + 1
        low = reach - 1 - transposed.padding[axis][0]
        crop = max(-low, 0)
        high = transposed.output[axis] + crop + reach - 1 - spread - max(low, 0)
        pads.append((max(low, 0), max(high, 0)))
        crops.append(slice(crop, crop + transposed.output[axis]))
    with accelerate():
        y = lax.conv_general_dilated(
            x,
            exchanged,
            (1,) * rank,
            pads,
            lhs_dilation=transposed.stride,
            rhs_dilation=transposed.dilation,
            dimension_numbers=_channels_last(rank),
            feature_group_count=groups,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
    y = y[:, *crops]
    return y if bias is None else y + bias.astype(y.dtype)


def _depthwise_conv(
    function: str,
    kernel_name: str,
    x: AnyArray,
    kernel: AnyArray,
    bias: AnyArray | None = None,
    **options: Any,
) -> Array:
    x, kernel = as_floating(function, "x", x), as_floating(function, kernel_name, kernel)
    channels = x.shape[-1] if x.ndim else 0
    if kernel.ndim < 3 or kernel.shape[-2] != 1 or channels == 0 or kernel.shape[-1] % channels:
        raise ValueError(
            f"{function}: {kernel_name} must have shape (*window, 1, channels * multiplier) for the "
            f"{channels} channels of x {x.shape}, got {kernel.shape}"
        )
    return _conv(function, x, kernel, bias, groups=channels, **options)


def _conv(
    function: str,
    x: AnyArray,
    kernel: AnyArray,
    bias: AnyArray | None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    x, kernel = as_operands(function, x, kernel)
    groups = as_groups(function, x, kernel, groups)
    *window, _, channels_out = kernel.shape
    bias = as_bias(function, x, bias, channels_out)
    check_mode(function, "padding_mode", padding_mode)
    if padding_mode == "constant":
        raise ValueError(
            f'{function}: padding_mode "constant" needs a value; call pad(x, ..., value=...) first'
        )
    sliding = slide(function, x.shape[1:-1], tuple(window), stride, padding, dilation)
    pairs = sliding.padding
    if padding_mode != "zeros":
        x = pad_explicit(function, x, pairs, padding_mode)
        pairs = ((0, 0),) * len(pairs)
    with accelerate():
        y = lax.conv_general_dilated(
            x,
            kernel,
            sliding.stride,
            pairs,
            rhs_dilation=sliding.dilation,
            dimension_numbers=_channels_last(len(window)),
            feature_group_count=groups,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
    return y if bias is None else y + bias.astype(y.dtype)


def as_operands(function: str, x: AnyArray, kernel: AnyArray) -> tuple[Array, Array]:
    """The checked images and a kernel of their spatial rank and dtype."""
    kernel = as_floating(function, "kernel", kernel)
    if kernel.ndim - 2 not in SPATIAL_RANKS or 0 in kernel.shape:
        raise ValueError(
            f"{function}: kernel must have 1 to 3 window axes, then its two channel axes, none empty, "
            f"got shape {kernel.shape}"
        )
    x = as_images(function, x, kernel.ndim - 2, because=f" (those of the kernel {kernel.shape})")
    check_same_dtype(function, x=x, kernel=kernel)
    return x, kernel


def as_groups(function: str, x: Array, kernel: Array, groups: SupportsIndex) -> int:
    """The checked groups of a kernel (*window, channels_in // groups, channels_out)."""
    number = as_int(function, "groups", groups, minimum=1)
    channels_in, (channels_per_group, channels_out) = x.shape[-1], kernel.shape[-2:]
    for channels, owner in ((channels_in, "channels of x"), (channels_out, "output channels of the kernel")):
        if channels % number:
            raise ValueError(
                f"{function}: groups must divide the {owner}, got groups={number} for {channels} channels"
            )
    if channels_in != channels_per_group * number:
        hint = "; x has its channels last" if x.shape[1] == channels_per_group * number else ""
        raise ValueError(
            f"{function}: kernel must have shape (*window, channels_in // groups, channels_out) with "
            f"channels_in // groups = {channels_in} // {number} for x {x.shape}, got {kernel.shape}{hint}"
        )
    return number


def as_bias(function: str, x: Array, bias: AnyArray | None, channels_out: int) -> Array | None:
    """The bias, ready to be added to (batch, *output, channels_out)."""
    if bias is None:
        return None
    bias = as_floating(function, "bias", bias)
    check_same_dtype(function, x=x, bias=bias)
    check_shape(function, "bias", bias, (channels_out,), "one for each output channel")
    return jnp.expand_dims(bias, range(x.ndim - 1))


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """Images (batch, *spatial, channels) and kernels (*window, channels_in, channels_out)."""
    images = (0, rank + 1, *range(1, rank + 1))
    return lax.ConvDimensionNumbers(images, (rank + 1, rank, *range(rank)), images)
