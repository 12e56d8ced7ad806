"""The blocks of networks made for phones: squeeze-and-excitation, inverted residuals."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, as_int, check_number
from jaxcnn.functional.geometry import Padding
from jaxcnn.nn.blocks import Activation, ConvNormAct, Norm, he_fan_out
from jaxcnn.nn.conv import Conv, Initializer
from jaxcnn.nn.norm import BatchNorm
from jaxcnn.nn.regularize import DropPath


class SqueezeExcitation(nnx.Module):
    """A gate for each channel, computed from the means of all channels.

        y = x * gate(expand(activation(reduce(mean of x over all positions))))

    `reduce` and `expand` are 1x1 convolutions with bias, `reduce` to `squeezed` channels.

    Args:
        channels: channels of x.
        squeezed: channels between the two convolutions.
        activation: a function of one array, between the two.
        gate: a function of one array with values from 0 to 1.
        kernel_init: initializer of both kernels.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels or squeezed < 1.

    Reference:
        Hu, Shen and Sun 2018, "Squeeze-and-Excitation Networks".

    Example:
        >>> block = SqueezeExcitation(8, 2, rngs=nnx.Rngs(0))
        >>> block(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 8)
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        activation: Activation = nnx.relu,
        gate: Activation = nnx.sigmoid,
        kernel_init: Initializer = he_fan_out,
        rngs: nnx.Rngs,
    ):
        channels = as_int("SqueezeExcitation", "channels", channels, minimum=1)
        squeezed = as_int("SqueezeExcitation", "squeezed", squeezed, minimum=1)
        self.reduce = Conv(channels, squeezed, 1, kernel_init=kernel_init, rngs=rngs)
        self.expand = Conv(squeezed, channels, 1, kernel_init=kernel_init, rngs=rngs)
        self.activation = activation
        self.gate = gate

    def __call__(
        self, x: Float[AnyArray, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Weigh the channels of x.

        Args:
            x: images (batch, height, width, channels).

        Returns:
            Images of x's shape.
        """
        mean = F.global_avg_pool(x, keepdims=True)
        return jnp.multiply(x, self.gate(self.expand(self.activation(self.reduce(mean)))))


class InvertedResidual(nnx.Module):
    """A 1x1 convolution to many channels, a depthwise one, a 1x1 one back to few; x is added where it fits.

        y = project(excite(depthwise(expand(x))))
        result = x + drop_path(y) if stride = 1 and channels_out = channels_in, else y

    `expand` and `depthwise` end with the activation, `project` does not; each has its normalisation. `expand`
    is left out where it would not expand (expanded = channels_in), `excite` where it is None.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        expanded: channels of the depthwise convolution.
        window: taps per spatial axis of the depthwise convolution.
        stride: elements between two positions of the window.
        padding: of the depthwise convolution, as in `ConvNormAct`.
        norm: makes a normalisation from a number of channels.
        activation: a function of one array.
        excite: makes what weighs the channels from (expanded, rngs=rngs), such as a functools.partial of
            `SqueezeExcitation`; None for none.
        drop_path: rate of the DropPath at the end; 0 means none. Without a shortcut nothing is dropped.
        kernel_init: initializer of the three kernels.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: an option out of range.

    Reference:
        Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", figure 4.

    Example:
        >>> block = InvertedResidual(8, 16, expanded=48, stride=2, activation=nnx.relu6, rngs=nnx.Rngs(0))
        >>> block(jnp.zeros((2, 14, 10, 8))).shape
        (2, 7, 5, 16)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        expanded: int,
        window: int = 3,
        stride: int = 1,
        padding: Padding | None = None,
        norm: Norm = BatchNorm,
        activation: Activation = nnx.relu,
        excite: Callable[..., Any] | None = None,
        drop_path: float = 0.0,
        kernel_init: Initializer = he_fan_out,
        rngs: nnx.Rngs,
    ):
        expanded = as_int("InvertedResidual", "expanded", expanded, minimum=1)
        check_number("InvertedResidual", "drop_path", drop_path, minimum=0, maximum=1)
        same_shape = stride == 1 and channels_in == channels_out
        self.residual = same_shape

        def conv(channels_in: int, channels_out: int, window: int, **options: Any) -> ConvNormAct:
            return ConvNormAct(
                channels_in, channels_out, window, norm=norm, kernel_init=kernel_init, rngs=rngs, **options
            )

        self.expand = (
            None if expanded == channels_in else conv(channels_in, expanded, 1, activation=activation)
        )
        self.depthwise = conv(
            expanded,
            expanded,
            window,
            stride=stride,
            padding=padding,
            groups=expanded,
            activation=activation,
        )
        self.excite = None if excite is None else excite(expanded, rngs=rngs)
        self.project = conv(expanded, channels_out, 1, activation=None)
        self.drop_path = DropPath(drop_path, rngs=rngs) if drop_path and same_shape else None

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Apply the block.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, ceil(height / stride), ceil(width / stride), channels_out) for an odd window.
        """
        y = jnp.asarray(x)
        for layer in (self.expand, self.depthwise, self.excite, self.project, self.drop_path):
            y = y if layer is None else layer(y)
        return jnp.add(x, y) if self.residual else y


def round_channels(channels: float | int, *, multiple: int = 8) -> int:
    """The multiple nearest to a number of channels, and never less than nine tenths of it.

    Args:
        channels: the wanted number, such as a width multiplier times a table's entry.
        multiple: what the result is a multiple of.

    Returns:
        max(multiple, channels rounded to the nearest multiple, halves upwards), one multiple more where that
        is below 0.9 * channels.

    Raises:
        ValueError: channels that are not a positive number, multiple < 1.

    Reference:
        Sandler et al. 2018, "MobileNetV2", as its authors' code and torchvision round.

    Example:
        >>> round_channels(32 * 1.4), round_channels(24 * 0.35), round_channels(11)
        (48, 8, 16)
    """
    if not 0 < channels < math.inf:
        raise ValueError(f"round_channels: channels must be a positive number, got {channels}")
    multiple = as_int("round_channels", "multiple", multiple, minimum=1)
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
