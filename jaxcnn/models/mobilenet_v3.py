"""MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3"."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from flax import nnx
from jax.typing import DTypeLike

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import BatchNorm, ConvNormAct, Dropout, InvertedResidual, SqueezeExcitation, round_channels
from jaxcnn.nn.blocks import Activation, Norm

RE, HS = nnx.relu, nnx.hard_swish
NORM: Norm = partial(BatchNorm, momentum=0.99, eps=1e-3)


class Row(NamedTuple):
    """A line of the paper's tables 1 and 2: an inverted residual."""

    window: int
    expanded: int
    channels: int
    excite: bool
    activation: Activation
    stride: int


LARGE = (
    Row(3, 16, 16, False, RE, 1),
    Row(3, 64, 24, False, RE, 2),
    Row(3, 72, 24, False, RE, 1),
    Row(5, 72, 40, True, RE, 2),
    Row(5, 120, 40, True, RE, 1),
    Row(5, 120, 40, True, RE, 1),
    Row(3, 240, 80, False, HS, 2),
    Row(3, 200, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 480, 112, True, HS, 1),
    Row(3, 672, 112, True, HS, 1),
    Row(5, 672, 160, True, HS, 2),
    Row(5, 960, 160, True, HS, 1),
    Row(5, 960, 160, True, HS, 1),
)
SMALL = (
    Row(3, 16, 16, True, RE, 2),
    Row(3, 72, 24, False, RE, 2),
    Row(3, 88, 24, False, RE, 1),
    Row(5, 96, 40, True, HS, 2),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 120, 48, True, HS, 1),
    Row(5, 144, 48, True, HS, 1),
    Row(5, 288, 96, True, HS, 2),
    Row(5, 576, 96, True, HS, 1),
    Row(5, 576, 96, True, HS, 1),
)

# Rows, and the width of the hidden layer behind the global mean.
MOBILENETS_V3: dict[str, tuple[tuple[Row, ...], int]] = {
    "mobilenet_v3_large": (LARGE, 1280),
    "mobilenet_v3_small": (SMALL, 1024),
}


class MobileNetV3(Classifier):
    """A stem of stride 2, inverted residuals, a 1x1 convolution, the global mean, two linear layers.

    Neighbouring blocks of the same number of channels are a stage, whose result is a tap. The last feature
    maps of each resolution are, for strides 2 to 32, "stage1", "stage2", "stage3", "stage5" and "stage6" of
    the large network, "stem", "stage1", "stage2", "stage4" and "stage5" of the small one; but for the stem
    they have no activation. "conv" is what the last 1x1 convolution makes of the last stage. Kernels are
    initialised by He's rule on the fan-out, those of the linear layers with a standard deviation of 0.01, as
    in torchvision.

    Args:
        rows: the blocks.
        hidden: width of the layer behind the global mean.
        width: multiplies all channels, which are rounded to multiples of 8.
        dropout: rate of the dropout before the classifier; 0 means none.
        norm: makes a normalisation from a number of channels. The default is torchvision's; other trainings
            have another eps, timm's 1e-5.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: no rows, a width <= 0, a rate outside [0, 1], num_classes or in_channels < 1.
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> build = lambda: MobileNetV3(SMALL[:2], 16, num_classes=5, rngs=nnx.Rngs(0))
        >>> nnx.eval_shape(lambda: build()(jnp.zeros((2, 24, 16, 3)))).shape  # allocates nothing
        (2, 5)
    """

    def __init__(
        self,
        rows: Sequence[Row],
        hidden: int,
        *,
        width: float = 1.0,
        dropout: float = 0.2,
        norm: Norm = NORM,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if not rows:
            raise ValueError("MobileNetV3: rows must have at least one block, got none")
        current = round_channels(16 * width)
        self.stem = ConvNormAct(in_channels, current, 3, stride=2, norm=norm, activation=HS, rngs=rngs)
        self.layers = nnx.List()
        for _, stage in groupby(rows, key=lambda row: row.channels):
            blocks = nnx.List()
            for row in stage:
                channels_in, current = current, round_channels(row.channels * width)
                expanded = round_channels(row.expanded * width)
                excite = partial(
                    SqueezeExcitation, squeezed=round_channels(expanded // 4), gate=nnx.hard_sigmoid
                )
                block = InvertedResidual(
                    channels_in,
                    current,
                    expanded=expanded,
                    window=row.window,
                    stride=row.stride,
                    norm=norm,
                    activation=row.activation,
                    excite=excite if row.excite else None,
                    rngs=rngs,
                )
                blocks.append(block)
            self.layers.append(blocks)
        self.conv = ConvNormAct(current, 6 * current, 1, norm=norm, activation=HS, rngs=rngs)
        linear = partial(nnx.Linear, kernel_init=nnx.initializers.normal(0.01), dtype=self.dtype, rngs=rngs)
        hidden = round_channels(hidden * width)
        self.hidden = linear(6 * current, hidden)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = linear(hidden, num_classes)

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the last convolution, the global mean, hidden layer and logits."""
        stages = [(f"stage{i}", partial(chain, blocks)) for i, blocks in enumerate(self.layers, 1)]
        head = [layer for layer in (self.dropout, self.output) if layer is not None]
        return [
            ("stem", self.stem),
            *stages,
            ("conv", self.conv),
            ("avg_pool", F.global_avg_pool),
            ("hidden", lambda x: HS(self.hidden(x))),
            ("logits", partial(chain, head)),
        ]


def mobilenet_v3(
    name: str,
    *,
    width: float = 1.0,
    dropout: float = 0.2,
    norm: Norm = NORM,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> MobileNetV3:
    """The large network of the paper's table 1 or the small one of its table 2, as torchvision has them.

    Args:
        name: a key of `MOBILENETS_V3`, "mobilenet_v3_large" or "mobilenet_v3_small".
        width: multiplies all channels, which are rounded to multiples of 8.
        dropout: rate of the dropout before the classifier; 0 means none.
        norm: makes a normalisation from a number of channels.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, a width <= 0, a rate outside [0, 1], num_classes or in_channels < 1.

    Reference:
        Howard et al. 2019.

    Example:
        >>> build = lambda: mobilenet_v3("mobilenet_v3_small", rngs=nnx.Rngs(0))
        >>> nnx.eval_shape(build).taps[-4:]  # allocates nothing
        ('conv', 'avg_pool', 'hidden', 'logits')
    """
    rows, hidden = choose("mobilenet_v3", MOBILENETS_V3, name)
    return MobileNetV3(
        rows,
        hidden,
        width=width,
        dropout=dropout,
        norm=norm,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
