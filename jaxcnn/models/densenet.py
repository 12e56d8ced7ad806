"""DenseNet: Huang, Liu, van der Maaten and Weinberger 2017, "Densely Connected Convolutional Networks"."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, as_int
from jaxcnn.models.classifier import Classifier, Stage, choose
from jaxcnn.nn import BatchNorm, Conv, ConvNormAct, Dropout

# Depths of the blocks, growth rate, channels of the stem: the paper's table 1, and densenet161 from its code.
DENSENETS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "densenet121": ((6, 12, 24, 16), 32, 64),
    "densenet161": ((6, 12, 36, 24), 48, 96),
    "densenet169": ((6, 12, 32, 32), 32, 64),
    "densenet201": ((6, 12, 48, 32), 32, 64),
}

# He et al. 2015, "Delving deep into rectifiers", eq. 10: keeps the variance of the values through a relu.
he_fan_in = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class NormActConv(nnx.Module):
    """A normalisation, relu, a convolution without bias that keeps the size: the paper's composite function.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        window: taps per spatial axis, odd.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels or a window < 1.

    Reference:
        Huang et al. 2017, section 3; He et al. 2016, "Identity Mappings in Deep Residual Networks".

    Example:
        >>> nnx.eval_shape(lambda: NormActConv(4, 8, 3, rngs=nnx.Rngs(0))(jnp.zeros((2, 7, 5, 4)))).shape
        (2, 7, 5, 8)
    """

    def __init__(self, channels_in: int, channels_out: int, window: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(channels_in)
        self.conv = Conv(
            channels_in,
            channels_out,
            window,
            padding=window // 2,
            use_bias=False,
            kernel_init=he_fan_in,
            rngs=rngs,
        )

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height width channels_out"]:
        """Normalise, activate and convolve x.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, height, width, channels_out).
        """
        return self.conv(nnx.relu(self.norm(x)))


class DenseLayer(nnx.Module):
    """What a layer of a dense block adds to the maps that it reads: `growth` new ones.

    A 1x1 convolution to 4 * growth channels, the bottleneck of the paper's DenseNet-B, and a 3x3 one, each
    after its normalisation and relu.

    Args:
        channels_in: channels of x.
        growth: channels of the result, the paper's k.
        dropout: rate of the Dropout at the end; 0 means none.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: channels_in or growth < 1, a rate outside [0, 1].

    Reference:
        Huang et al. 2017, section 3.

    Example:
        >>> nnx.eval_shape(lambda: DenseLayer(64, 32, rngs=nnx.Rngs(0))(jnp.zeros((2, 7, 5, 64)))).shape
        (2, 7, 5, 32)
    """

    def __init__(self, channels_in: int, growth: int, *, dropout: float = 0.0, rngs: nnx.Rngs):
        self.squeeze = NormActConv(channels_in, 4 * growth, 1, rngs=rngs)
        self.grow = NormActConv(4 * growth, growth, 3, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height width growth"]:
        """The new maps.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, height, width, growth).
        """
        y = self.grow(self.squeeze(x))
        return y if self.dropout is None else self.dropout(y)


class DenseNet(Classifier):
    """A stem, dense blocks with a transition between two of them, the global mean, a linear classifier.

    A layer of a dense block reads the block's input and the maps of all layers before it. A transition halves
    the channels (the paper's DenseNet-C, theta = 0.5) and the image. Convolutions are initialised by He's
    rule, on the fan-in.

    Args:
        depths: number of layers in each block.
        growth: channels that each layer adds, the paper's k.
        stem_channels: channels of the stem; None means 2 * growth.
        dropout: rate of the Dropout at the end of each dense layer; the paper has 0.2 for images without
            augmentation.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: no depths, a depth or another size < 1, a rate outside [0, 1]; when called, images too
            small for the transitions to halve.
        TypeError: a dtype that is not floating.

    Example:
        >>> def maps():
        ...     return DenseNet((2, 1), growth=4, rngs=nnx.Rngs(0)).features(jnp.zeros((2, 24, 16, 3)))
        >>> {name: value.shape[-1] for name, value in nnx.eval_shape(maps).items() if "block" in name}
        {'block1': 16, 'block2': 12}
    """

    def __init__(
        self,
        depths: Sequence[int],
        growth: int,
        stem_channels: int | None = None,
        *,
        dropout: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if not depths or min(depths) < 1:
            raise ValueError(f"DenseNet: depths must have a positive int for each block, got {tuple(depths)}")
        growth = as_int("DenseNet", "growth", growth, minimum=1)
        current = 2 * growth if stem_channels is None else stem_channels
        self.stem = ConvNormAct(in_channels, current, 7, stride=2, kernel_init=he_fan_in, rngs=rngs)
        self.blocks = nnx.List()
        self.transitions = nnx.List()
        for depth in depths:
            if self.blocks:
                self.transitions.append(NormActConv(current, current // 2, 1, rngs=rngs))
                current //= 2
            block = nnx.List()
            for _ in range(depth):
                block.append(DenseLayer(current, growth, dropout=dropout, rngs=rngs))
                current += growth
            self.blocks.append(block)
        self.norm = BatchNorm(current)
        self.output = nnx.Linear(current, num_classes, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem, its pooling, block1, transition1, block2, ..., the last norm, the mean and the logits."""
        stages: list[Stage] = [
            ("stem", self.stem),
            ("max_pool", lambda x: F.max_pool(x, 3, stride=2, padding=1)),
        ]
        for i, block in enumerate(self.blocks):
            if i > 0:
                stages.append((f"transition{i}", partial(self._halve, i)))
            stages.append((f"block{i + 1}", partial(_dense, block)))
        return [
            *stages,
            ("norm", lambda x: nnx.relu(self.norm(x))),
            ("avg_pool", F.global_avg_pool),
            ("logits", self.output),
        ]

    def _halve(self, i: int, x: Array) -> Array:
        height, width = x.shape[1:3]
        if min(height, width) < 2:
            # The stem and its pooling quarter the image and round up, the transitions round down.
            least = 4 * 2 ** len(self.transitions) - 3
            raise ValueError(
                f"DenseNet: transition{i} cannot halve maps of {height} x {width}; "
                f"images must be at least {least} x {least}"
            )
        return F.avg_pool(self.transitions[i - 1](x), 2)


def _dense(layers: Sequence[DenseLayer], x: Array) -> Array:
    for layer in layers:
        x = jnp.concatenate([x, layer(x)], axis=-1)
    return x


def densenet(
    name: str,
    *,
    dropout: float = 0.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> DenseNet:
    """A network of the paper's table 1: DenseNet-BC for images of about 224 x 224.

    Args:
        name: a key of `DENSENETS`, such as "densenet121".
        dropout: rate of the Dropout at the end of each layer.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        Huang et al. 2017, "Densely Connected Convolutional Networks".

    Example:
        >>> model = nnx.eval_shape(lambda: densenet("densenet121", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps[:5]
        ('stem', 'max_pool', 'block1', 'transition1', 'block2')
    """
    depths, growth, stem_channels = choose("densenet", DENSENETS, name)
    return DenseNet(
        depths,
        growth,
        stem_channels,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
