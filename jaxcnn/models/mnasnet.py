"""MNASNet: Tan et al. 2019, "MnasNet: Platform-Aware Neural Architecture Search for Mobile"."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx
from jax.typing import DTypeLike

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import BatchNorm, ConvNormAct, Dropout, InvertedResidual, round_channels

# MnasNet-B1, the one without squeeze-and-excitation: expansion, window, channels, blocks, stride.
TABLE = (
    (3, 3, 24, 3, 2),
    (3, 5, 40, 3, 2),
    (6, 5, 80, 3, 2),
    (6, 3, 96, 2, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)

# The width multiplier.
MNASNETS: dict[str, float] = {"mnasnet0_5": 0.5, "mnasnet0_75": 0.75, "mnasnet1_0": 1.0, "mnasnet1_3": 1.3}


class MNASNet(Classifier):
    """A stem of stride 2, a separable convolution, inverted residuals, a 1x1 convolution, a classifier.

    The last feature maps of each resolution are, for strides 2 to 32, the taps "stage1" (the separable
    convolution), "stage2", "stage3", "stage5" and "stage7"; they have no activation. "conv" is what the last
    1x1 convolution makes of "stage7". Kernels are initialised by He's rule on the fan-out, the classifier
    uniformly with variance 1 / fan-out, as in torchvision.

    Args:
        width: multiplies all channels but the last convolution's 1280; they are rounded to multiples of 8.
        table: a row (expansion, window, channels, blocks, stride) for each stage.
        dropout: rate of the dropout before the classifier; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: a width <= 0, a rate outside [0, 1], num_classes or in_channels < 1.
        TypeError: a dtype that is not floating.

    Example:
        >>> model = nnx.eval_shape(lambda: MNASNet(0.35, num_classes=5, rngs=nnx.Rngs(0)))
        >>> model.stem.conv.kernel.shape, model.output.kernel.shape
        ((3, 3, 3, 16), (1280, 5))
    """

    def __init__(
        self,
        width: float = 1.0,
        *,
        table: Sequence[tuple[int, int, int, int, int]] = TABLE,
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        norm = partial(BatchNorm, momentum=0.9997)
        conv = partial(ConvNormAct, norm=norm, rngs=rngs)
        stem, current = round_channels(32 * width), round_channels(16 * width)
        self.stem = conv(in_channels, stem, 3, stride=2)
        # No InvertedResidual: that has a shortcut where a small width makes the channels agree.
        self.separable = nnx.List([conv(stem, stem, 3, groups=stem), conv(stem, current, 1, activation=None)])
        self.layers = nnx.List()
        for expansion, window, channels, depth, stride in table:
            blocks = nnx.List()
            for position in range(depth):
                channels_in, current = current, round_channels(channels * width)
                block = InvertedResidual(
                    channels_in,
                    current,
                    expanded=expansion * channels_in,
                    window=window,
                    stride=stride if position == 0 else 1,
                    norm=norm,
                    rngs=rngs,
                )
                blocks.append(block)
            self.layers.append(blocks)
        self.conv = conv(current, 1280, 1)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        by_fan_out = jax.nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        self.output = nnx.Linear(1280, num_classes, kernel_init=by_fan_out, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the last convolution, the global mean and the logits."""
        layers = [self.separable, *self.layers]
        head = [layer for layer in (self.dropout, self.output) if layer is not None]
        return [
            ("stem", self.stem),
            *[(f"stage{i}", partial(chain, blocks)) for i, blocks in enumerate(layers, 1)],
            ("conv", self.conv),
            ("avg_pool", F.global_avg_pool),
            ("logits", partial(chain, head)),
        ]


def mnasnet(
    name: str,
    *,
    dropout: float = 0.2,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> MNASNet:
    """MnasNet-B1 with one of torchvision's width multipliers.

    Args:
        name: a key of `MNASNETS`, such as "mnasnet1_0".
        dropout: rate of the dropout before the classifier; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, a rate outside [0, 1], num_classes or in_channels < 1.

    Reference:
        Tan et al. 2019.

    Example:
        >>> model = nnx.eval_shape(lambda: mnasnet("mnasnet1_0", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps[:3], model.taps[-4:]
        (('stem', 'stage1', 'stage2'), ('stage7', 'conv', 'avg_pool', 'logits'))
    """
    width = choose("mnasnet", MNASNETS, name)
    return MNASNet(
        width, dropout=dropout, num_classes=num_classes, in_channels=in_channels, dtype=dtype, rngs=rngs
    )
