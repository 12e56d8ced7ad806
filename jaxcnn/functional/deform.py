"""Deformable convolution: each tap of the kernel reads x where the data says."""

import math
from functools import partial
from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import (
    AnyArray,
    PerAxis,
    as_floating,
    check_same_dtype,
    check_shape,
    widen,
)
from jaxcnn.functional.conv import as_bias, as_groups, as_operands
from jaxcnn.functional.geometry import Padding, slide
from jaxcnn.functional.sampling import near_image, sample


def deform_conv(
    x: Float[AnyArray, "batch *spatial channels_in"],
    offset: Float[AnyArray, "batch *output offset_groups taps 2"],
    kernel: Float[AnyArray, "*window channels_in_per_group channels_out"],
    mask: Float[AnyArray, "batch *output offset_groups taps"] | None = None,
    bias: Float[AnyArray, " channels_out"] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "batch *output channels_out"]:
    """Convolve images with a kernel whose taps are moved by offsets: deformable convolution, v1 and v2.

    With one group and offset group g(c) = c // (channels_in // offset_groups),

        y[b, i, o] = bias[o] + sum_{t, c} mask[b, i, g(c), t] * x[b, p(b, i, g(c), t), c] * kernel[t, c, o]
        p(b, i, g, t) = i * stride + t * dilation - low + offset[b, i, g, t]

    for the two-dimensional i, t and p, where x between its elements is interpolated linearly along both
    axes and is 0 outside. With offsets of 0 and no mask it is `conv`.

    Args:
        x: images (batch, height, width, channels_in).
        offset: (batch, *output, offset_groups, taps, 2) in elements, of any floating dtype; the taps of the
            window are in row-major order and the last axis is (dy, dx). offset_groups divides channels_in.
        kernel: (*window, channels_in // groups, channels_out), of x's dtype.
        mask: (batch, *output, offset_groups, taps), of x's dtype: the modulation of v2; 1 by default, v1.
        bias: (channels_out,), of x's dtype.
        stride: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.
        groups: runs of channels that do not see each other, as in `conv`; offset groups are counted apart.
        precision: as in `conv`.
        preferred_element_type: as in `conv`.

    Returns:
        (batch, *output, channels_out), where output is `output_size(spatial, window, ...)`. What all taps
        read is kept at once: prod(window) times the memory of x at stride 1.

    Raises:
        ValueError: shapes, groups, window or options that do not fit together.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        torchvision.ops.deform_conv2d, whose offset (batch, offset_groups * taps * 2, *output) is this one
        with its axes moved; ONNX DeformConv. Dai et al., "Deformable Convolutional Networks", 2017; Zhu
        et al., "Deformable ConvNets v2", 2019.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 9, 4))
        >>> kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
        >>> offset = jax.random.normal(jax.random.key(2), (2, 8, 9, 1, 9, 2))
        >>> deform_conv(x, offset, kernel, padding=1).shape
        (2, 8, 9, 5)
    """
    function = "deform_conv"
    kernel = as_floating(function, "kernel", kernel)
    if kernel.ndim != 4:
        raise ValueError(
            f"{function}: kernel must have shape (height, width, channels_in // groups, channels_out), "
            f"got {kernel.shape}"
        )
    x, kernel = as_operands(function, x, kernel)
    groups = as_groups(function, x, kernel, groups)
    *window, channels_per_group, channels_out = kernel.shape
    taps, channels = math.prod(window), x.shape[-1]
    bias = as_bias(function, x, bias, channels_out)
    sliding = slide(function, x.shape[1:-1], tuple(window), stride, padding, dilation)

    offset = as_floating(function, "offset", offset)
    offset_groups = offset.shape[-3] if offset.ndim == 6 else 1
    before = (x.shape[0], *sliding.output, offset_groups, taps)
    check_shape(function, "offset", offset, (*before, 2), "batch, *output, offset_groups, taps, (dy, dx)")
    if offset_groups == 0 or channels % offset_groups:
        raise ValueError(
            f"{function}: the offset groups must divide the channels of x, got offset_groups={offset_groups} "
            f"from offset {offset.shape} for {channels} channels"
        )
    if mask is not None:
        mask = as_floating(function, "mask", mask)
        check_same_dtype(function, x=x, mask=mask)
        check_shape(function, "mask", mask, before, "batch, *output, offset_groups, taps")

    dtype = np.result_type(widen(x).dtype, widen(offset).dtype)
    rows, columns = sliding.positions(0), sliding.positions(1)
    at_rest = np.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :])
    positions = [
        near_image(
            offset[..., axis].astype(dtype) + start.reshape(1, *sliding.output, 1, taps).astype(dtype), n
        )
        for axis, (start, n) in enumerate(zip(at_rest, x.shape[1:-1], strict=True))
    ]
    split = x.astype(dtype).reshape(*x.shape[:-1], offset_groups, channels // offset_groups)
    read = jax.vmap(partial(sample, method="bilinear"), in_axes=(2, 2), out_axes=2)  # each offset group
    values = jax.vmap(read)(split, jnp.stack(positions, axis=-1))
    if mask is not None:
        values *= mask.astype(dtype)[..., None]
    # (batch, *output, offset_groups, taps, channels of the group) as patches: taps first, then all channels.
    patches = jnp.moveaxis(values, 3, 4).reshape(*before[:-2], taps, groups, channels_per_group)
    y = jnp.einsum(
        "bhwtgc,tcgo->bhwgo",
        patches.astype(x.dtype),
        kernel.reshape(taps, channels_per_group, groups, channels_out // groups),
        precision=precision,
        preferred_element_type=preferred_element_type,
    ).reshape(*before[:-2], channels_out)
    return y if bias is None else y + bias.astype(y.dtype)
