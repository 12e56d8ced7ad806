"""Convolutions with their parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import (
    AnyArray,
    PerAxis,
    as_floating,
    as_floating_dtype,
    as_int,
    per_axis,
)
from jaxcnn.functional.geometry import Padding, slide_anywhere
from jaxcnn.functional.padding import check_mode

Initializer = jax.nn.initializers.Initializer


class Conv(nnx.Module):
    """A convolution over 1, 2 or 3 spatial axes, `jaxcnn.functional.conv` with its kernel and bias.

    The parameters are float32: `kernel` (*window, channels_in // groups, channels_out) and `bias`
    (channels_out,), or None. The computation has `dtype`; None means the dtype of x.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps per spatial axis; an int means two axes.
        stride: elements between two positions of the window.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        groups: groups of channels that do not see each other; it divides channels_in and channels_out.
        padding_mode: what the padding is filled with, a mode of `jaxcnn.functional.pad`.
        use_bias: whether a bias, initially zero, is added.
        kernel_init: initializer of the kernel; its fan-in is prod(window) * channels_in // groups.
        dtype: floating dtype that x and the parameters are cast to for the computation.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels that groups does not divide, an option out of range.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Example:
        >>> conv = Conv(3, 8, (3, 5), stride=2, padding=(1, 2), rngs=nnx.Rngs(0))
        >>> conv(jnp.zeros((2, 32, 24, 3))).shape
        (2, 16, 12, 8)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        window: PerAxis,
        *,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        use_bias: bool = True,
        kernel_init: Initializer = jax.nn.initializers.lecun_normal(),  # noqa: B008 (a pure function)
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        channels_in, channels_out, groups = _channels("Conv", channels_in, channels_out, groups)
        options = slide_anywhere("Conv", window, stride, padding, dilation)
        self.stride = options.stride
        self.padding = padding if isinstance(padding, str) else options.padding
        self.dilation = options.dilation
        self.groups = groups
        check_mode("Conv", "padding_mode", padding_mode)
        self.padding_mode = padding_mode
        self.dtype = None if dtype is None else as_floating_dtype("Conv", dtype)
        shape = (*options.window, channels_in // groups, channels_out)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels_out, jnp.float32)) if use_bias else None

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels_in"]
    ) -> Float[Array, "batch *out channels_out"]:
        """Convolve x.

        Args:
            x: images (batch, *spatial, channels_in).

        Returns:
            Images (batch, *out, channels_out).
        """
        x, kernel, bias = _in_one_dtype("Conv", self.dtype, x, self.kernel, self.bias)
        return F.conv(
            x,
            kernel,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )


class ConvTranspose(nnx.Module):
    """A transposed convolution, `jaxcnn.functional.conv_transpose` with its kernel and bias.

    It is the adjoint of the Conv with the same options from channels_out to channels_in, and its `kernel` has
    the layout of that Conv's: (*window, channels_out // groups, channels_in). The parameters are float32.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps per spatial axis; an int means two axes.
        stride: elements of the result between two elements of x.
        padding: the padding of the convolution whose adjoint this is, so it makes the result smaller.
        output_padding: elements added at the high end.
        dilation: elements between two taps of the window.
        groups: groups of channels that do not see each other; it divides channels_in and channels_out.
        use_bias: whether a bias, initially zero, is added.
        kernel_init: initializer of the kernel; its fan-out is prod(window) * channels_in. The default
            has variance 1 / fan-out, because here each element of the result is a sum over channels_in.
        dtype: floating dtype that x and the parameters are cast to; None means the dtype of x.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels that groups does not divide, an option out of range.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Example:
        >>> up = ConvTranspose(8, 3, 4, stride=2, padding=1, rngs=nnx.Rngs(0))
        >>> up(jnp.zeros((2, 16, 12, 8))).shape
        (2, 32, 24, 3)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        window: PerAxis,
        *,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = jax.nn.initializers.variance_scaling(  # noqa: B008 (a pure function)
            1.0, "fan_out", "truncated_normal"
        ),
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        channels_in, channels_out, groups = _channels("ConvTranspose", channels_in, channels_out, groups)
        options = slide_anywhere("ConvTranspose", window, stride, padding, dilation)
        window, rank = options.window, len(options.window)
        self.stride = options.stride
        self.padding = padding if isinstance(padding, str) else options.padding
        self.output_padding = per_axis("ConvTranspose", "output_padding", output_padding, rank, minimum=0)
        self.dilation = options.dilation
        self.groups = groups
        self.dtype = None if dtype is None else as_floating_dtype("ConvTranspose", dtype)
        shape = (*window, channels_out // groups, channels_in)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels_out, jnp.float32)) if use_bias else None

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels_in"]
    ) -> Float[Array, "batch *out channels_out"]:
        """Apply the adjoint of a convolution to x.

        Args:
            x: images (batch, *spatial, channels_in).

        Returns:
            Images (batch, *out, channels_out).
        """
        x, kernel, bias = _in_one_dtype("ConvTranspose", self.dtype, x, self.kernel, self.bias)
        return F.conv_transpose(
            x,
            kernel,
            bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class SeparableConv(nnx.Module):
    """A convolution of every channel alone, then one across channels: `jaxcnn.functional.separable_conv`.

    The parameters are float32: `depthwise_kernel` (*window, 1, channels_in * multiplier), `pointwise_kernel`
    (1, ..., 1, channels_in * multiplier, channels_out) and `bias` (channels_out,), or None. Nothing stands
    between the two parts; a block with a normalisation there is made of two Convs, the first with groups.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps per spatial axis of the depthwise part; an int means two axes.
        multiplier: filters for each channel of x.
        stride: elements between two positions of the window.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        padding_mode: what the padding is filled with, a mode of `jaxcnn.functional.pad`.
        use_bias: whether a bias, initially zero, is added.
        kernel_init: initializer of both kernels; their fan-ins are prod(window) and channels_in * multiplier.
        dtype: floating dtype that x and the parameters are cast to; None means the dtype of x.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: an option out of range.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Reference:
        Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions".

    Example:
        >>> conv = SeparableConv(3, 8, 3, padding=1, stride=2, rngs=nnx.Rngs(0))
        >>> conv(jnp.zeros((2, 32, 24, 3))).shape
        (2, 16, 12, 8)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        window: PerAxis,
        *,
        multiplier: int = 1,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        use_bias: bool = True,
        kernel_init: Initializer = jax.nn.initializers.lecun_normal(),  # noqa: B008 (a pure function)
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        channels_in, channels_out, _ = _channels("SeparableConv", channels_in, channels_out, 1)
        multiplier = as_int("SeparableConv", "multiplier", multiplier, minimum=1)
        options = slide_anywhere("SeparableConv", window, stride, padding, dilation)
        window, rank = options.window, len(options.window)
        self.stride = options.stride
        self.padding = padding if isinstance(padding, str) else options.padding
        self.dilation = options.dilation
        check_mode("SeparableConv", "padding_mode", padding_mode)
        self.padding_mode = padding_mode
        self.dtype = None if dtype is None else as_floating_dtype("SeparableConv", dtype)
        between = channels_in * multiplier
        self.depthwise_kernel = nnx.Param(kernel_init(rngs.params(), (*window, 1, between), jnp.float32))
        ones = (1,) * rank
        pointwise = kernel_init(rngs.params(), (*ones, between, channels_out), jnp.float32)
        self.pointwise_kernel = nnx.Param(pointwise)
        self.bias = nnx.Param(jnp.zeros(channels_out, jnp.float32)) if use_bias else None

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels_in"]
    ) -> Float[Array, "batch *out channels_out"]:
        """Convolve x.

        Args:
            x: images (batch, *spatial, channels_in).

        Returns:
            Images (batch, *out, channels_out).
        """
        x, depthwise, bias = _in_one_dtype("SeparableConv", self.dtype, x, self.depthwise_kernel, self.bias)
        return F.separable_conv(
            x,
            depthwise,
            self.pointwise_kernel[...].astype(x.dtype),
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            padding_mode=self.padding_mode,
        )


class DeformConv(nnx.Module):
    """A convolution of images whose taps are moved by offsets, `jaxcnn.functional.deform_conv`.

    The parameters are those of Conv. The offsets, and the mask of version 2, come with the call: from another
    convolution of the same x, as a rule, whose kernel starts at zero.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps on the two spatial axes.
        stride: elements between two positions of the window.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        groups: groups of channels that do not see each other; it divides channels_in and channels_out.
        use_bias: whether a bias, initially zero, is added.
        kernel_init: initializer of the kernel; its fan-in is prod(window) * channels_in // groups.
        dtype: floating dtype that x, the mask and the parameters are cast to; None means the dtype of x.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels that groups does not divide, an option out of range.
        TypeError: an option of the wrong type; when called, arrays that are not floating.

    Reference:
        Dai et al. 2017, "Deformable Convolutional Networks"; Zhu et al. 2019, "Deformable ConvNets v2";
        torchvision.ops.DeformConv2d.

    Example:
        >>> rngs = nnx.Rngs(0)
        >>> offset = Conv(4, 2 * 9, 3, padding=1, kernel_init=nnx.initializers.zeros, rngs=rngs)
        >>> deform = DeformConv(4, 8, 3, padding=1, rngs=rngs)
        >>> x = jnp.ones((2, 7, 6, 4))
        >>> deform(x, offset(x).reshape(2, 7, 6, 1, 9, 2)).shape
        (2, 7, 6, 8)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        window: PerAxis,
        *,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = jax.nn.initializers.lecun_normal(),  # noqa: B008 (a pure function)
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        channels_in, channels_out, groups = _channels("DeformConv", channels_in, channels_out, groups)
        window = per_axis("DeformConv", "window", window, 2, minimum=1)
        options = slide_anywhere("DeformConv", window, stride, padding, dilation)
        self.stride = options.stride
        self.padding = padding if isinstance(padding, str) else options.padding
        self.dilation = options.dilation
        self.groups = groups
        self.dtype = None if dtype is None else as_floating_dtype("DeformConv", dtype)
        shape = (*options.window, channels_in // groups, channels_out)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels_out, jnp.float32)) if use_bias else None

    def __call__(
        self,
        x: Float[AnyArray, "batch *spatial channels_in"],
        offset: Float[AnyArray, "batch *out offset_groups taps 2"],
        mask: Float[AnyArray, "batch *out offset_groups taps"] | None = None,
    ) -> Float[Array, "batch *out channels_out"]:
        """Convolve x at moved positions.

        Args:
            x: images (batch, height, width, channels_in).
            offset: (batch, *out, offset_groups, taps, 2) in elements, the last axis (dy, dx).
            mask: (batch, *out, offset_groups, taps), 1 by default.

        Returns:
            Images (batch, *out, channels_out).
        """
        x, kernel, bias = _in_one_dtype("DeformConv", self.dtype, x, self.kernel, self.bias)
        if mask is not None:
            mask = as_floating("DeformConv", "mask", mask).astype(x.dtype)
        return F.deform_conv(
            x,
            offset,
            kernel,
            mask,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


def _channels(module: str, channels_in: Any, channels_out: Any, groups: Any) -> tuple[int, int, int]:
    channels_in = as_int(module, "channels_in", channels_in, minimum=1)
    channels_out = as_int(module, "channels_out", channels_out, minimum=1)
    groups = as_int(module, "groups", groups, minimum=1)
    for name, channels in (("channels_in", channels_in), ("channels_out", channels_out)):
        if channels % groups:
            raise ValueError(f"{module}: groups must divide {name}, got groups={groups}, {name}={channels}")
    return channels_in, channels_out, groups


def _in_one_dtype(
    module: str, dtype: jnp.dtype | None, x: Any, kernel: nnx.Param[Array], bias: nnx.Param[Array] | None
) -> tuple[Array, Array, Array | None]:
    x = as_floating(module, "x", x)
    dtype = x.dtype if dtype is None else dtype
    return x.astype(dtype), kernel[...].astype(dtype), None if bias is None else bias[...].astype(dtype)
