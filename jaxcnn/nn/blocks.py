"""Blocks of several layers, for images (batch, height, width, channels)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray, PerAxis, as_int, canonical_window, per_axis
from jaxcnn.functional.geometry import Padding
from jaxcnn.nn.conv import Conv, Initializer
from jaxcnn.nn.norm import BatchNorm
from jaxcnn.nn.regularize import DropPath

Norm = Callable[[int], Any]
"""Makes a normalisation for a number of channels: BatchNorm, or functools.partial(GroupNorm, groups=8)."""

Activation = Callable[[Any], Any]

# He et al. 2015, "Delving deep into rectifiers", eq. 14: keeps the variance of the gradient through a relu.
he_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNormAct(nnx.Module):
    """A convolution without bias, a normalisation, an activation.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps per spatial axis; an int means two axes.
        stride: elements between two positions of the window.
        padding: as in `Conv`; None means dilation * (window - 1) // 2 on both sides, which keeps the size at
            stride 1 if the window is odd.
        dilation: elements between two taps of the window.
        groups: groups of channels that do not see each other.
        norm: makes the normalisation from channels_out: BatchNorm, or functools.partial(GroupNorm, groups=8).
        activation: a function of one array, or None for none.
        kernel_init: initializer of the kernel; the default is He's for relu, by the fan-out.
        dtype: floating dtype of the computation; None means the dtype of x.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels that groups does not divide, an option out of range.
        TypeError: an option of the wrong type.

    Example:
        >>> block = ConvNormAct(3, 8, 3, stride=2, rngs=nnx.Rngs(0))
        >>> block(jnp.zeros((2, 32, 24, 3))).shape
        (2, 16, 12, 8)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        window: PerAxis,
        *,
        stride: PerAxis = 1,
        padding: Padding | None = None,
        dilation: PerAxis = 1,
        groups: int = 1,
        norm: Norm = BatchNorm,
        activation: Activation | None = nnx.relu,
        kernel_init: Initializer = he_fan_out,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if padding is None:
            padding = _symmetric_padding(window, dilation)
        self.conv = Conv(
            channels_in,
            channels_out,
            window,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            use_bias=False,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = norm(channels_out)
        self.activation = activation

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels_in"]
    ) -> Float[Array, "batch *out channels_out"]:
        """Convolve, normalise and activate x.

        Args:
            x: images (batch, *spatial, channels_in).

        Returns:
            Images (batch, *out, channels_out).
        """
        y = self.norm(self.conv(x))
        return y if self.activation is None else self.activation(y)


class _Layer(NamedTuple):
    """One convolution of a residual branch."""

    channels: int
    window: int
    stride: int = 1
    groups: int = 1


class _Residual(nnx.Module):
    """activation(shortcut(x) + drop_path(branch(x))) for a branch of consecutive convolutions."""

    def __init__(
        self,
        channels_in: int,
        layers: Sequence[_Layer],
        *,
        stride: int,
        shortcut: str,
        norm: Norm,
        activation: Activation,
        drop_path: float,
        rngs: nnx.Rngs,
    ):
        name, channels_out = type(self).__name__, layers[-1].channels
        if shortcut not in ("projection", "pad"):
            raise ValueError(f'{name}: shortcut must be "projection" or "pad", got {shortcut!r}')
        if shortcut == "pad" and channels_out < channels_in:
            raise ValueError(
                f'{name}: shortcut="pad" needs channels_out >= channels_in, '
                f"got channels_in={channels_in}, channels_out={channels_out}"
            )
        self.stride = as_int(name, "stride", stride, minimum=1)
        self.extra_channels = channels_out - channels_in
        self.activation = activation
        self.drop_path = DropPath(drop_path, rngs=rngs) if drop_path else None
        self.branch = nnx.List()
        current = channels_in
        for layer in layers:
            self.branch.append(
                ConvNormAct(
                    current,
                    layer.channels,
                    layer.window,
                    stride=layer.stride,
                    groups=layer.groups,
                    norm=norm,
                    activation=None if layer is layers[-1] else activation,
                    rngs=rngs,
                )
            )
            current = layer.channels
        same_shape = stride == 1 and channels_in == channels_out
        self.projection = (
            None
            if same_shape or shortcut == "pad"
            else ConvNormAct(
                channels_in, channels_out, 1, stride=stride, norm=norm, activation=None, rngs=rngs
            )
        )

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Apply the block.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, ceil(height / stride), ceil(width / stride), channels_out).
        """
        y = x
        for conv in self.branch:
            y = conv(y)
        if self.drop_path is not None:
            y = self.drop_path(y)
        return self.activation(self._shortcut(x) + y)

    def _shortcut(self, x: AnyArray) -> Array:
        if self.projection is not None:
            return self.projection(x)
        identity = jnp.asarray(x)[:, :: self.stride, :: self.stride]
        return jnp.pad(identity, ((0, 0), (0, 0), (0, 0), (0, self.extra_channels)))


class BasicBlock(_Residual):
    """The residual block of two 3x3 convolutions, the first one with the stride.

        y = activation(shortcut(x) + norm(conv(activation(norm(conv(x))))))

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        stride: elements between two positions of the first convolution.
        shortcut: how x is brought to the result's shape where that differs: "projection", a 1x1 convolution
            with its normalisation (option B of the paper), or "pad", every stride-th element of x with zero
            channels appended (option A, no parameters). Where the shapes agree it is x itself.
        norm: makes a normalisation from a number of channels.
        activation: a function of one array.
        drop_path: rate of the DropPath at the end of the branch; 0 means none.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: an unknown shortcut, "pad" to fewer channels, an option out of range.

    Reference:
        He et al. 2015, "Deep Residual Learning for Image Recognition", figure 5 left and section 4.2.

    Example:
        >>> block = BasicBlock(16, 32, stride=2, shortcut="pad", rngs=nnx.Rngs(0))
        >>> block(jnp.zeros((2, 14, 10, 16))).shape
        (2, 7, 5, 32)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int = 1,
        shortcut: str = "projection",
        norm: Norm = BatchNorm,
        activation: Activation = nnx.relu,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels_in,
            (_Layer(channels_out, 3, stride), _Layer(channels_out, 3)),
            stride=stride,
            shortcut=shortcut,
            norm=norm,
            activation=activation,
            drop_path=drop_path,
            rngs=rngs,
        )


class Bottleneck(_Residual):
    """The residual block of a 1x1, a 3x3 and a 1x1 convolution, the 3x3 one with the stride.

    The stride is where torchvision has it (ResNet v1.5); the paper has it on the first 1x1 convolution.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        stride: elements between two positions of the 3x3 convolution.
        width: channels of the 3x3 convolution as a part of channels_out: 1/4 in ResNet, 1/2 in the wide ones.
        groups: groups of the 3x3 convolution (ResNeXt has 32).
        shortcut: as in `BasicBlock`.
        norm: makes a normalisation from a number of channels.
        activation: a function of one array.
        drop_path: rate of the DropPath at the end of the branch; 0 means none.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: an unknown shortcut, "pad" to fewer channels, an option out of range.

    Reference:
        He et al. 2015, "Deep Residual Learning for Image Recognition", figure 5 right.

    Example:
        >>> block = Bottleneck(64, 256, stride=2, rngs=nnx.Rngs(0))
        >>> block(jnp.zeros((2, 14, 10, 64))).shape
        (2, 7, 5, 256)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int = 1,
        width: float = 0.25,
        groups: int = 1,
        shortcut: str = "projection",
        norm: Norm = BatchNorm,
        activation: Activation = nnx.relu,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        inner = int(channels_out * width)
        if inner < 1:
            raise ValueError(
                "Bottleneck: channels_out * width must be at least 1, "
                f"got channels_out={channels_out}, width={width}"
            )
        super().__init__(
            channels_in,
            (_Layer(inner, 1), _Layer(inner, 3, stride, groups), _Layer(channels_out, 1)),
            stride=stride,
            shortcut=shortcut,
            norm=norm,
            activation=activation,
            drop_path=drop_path,
            rngs=rngs,
        )


def _symmetric_padding(window: PerAxis, dilation: PerAxis) -> tuple[int, ...]:
    windows = canonical_window("ConvNormAct", window)
    dilations = per_axis("ConvNormAct", "dilation", dilation, len(windows), minimum=1)
    return tuple(d * (w - 1) // 2 for w, d in zip(windows, dilations, strict=True))
