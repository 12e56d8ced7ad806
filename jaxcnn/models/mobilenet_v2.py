"""MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"."""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax.typing import DTypeLike

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage, chain
from jaxcnn.nn import ConvNormAct, Dropout, InvertedResidual, round_channels

# The paper's table 2: expansion t, channels c, blocks n, stride s of the first one.
TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(Classifier):
    """A stem of stride 2, stages of inverted residuals, a 1x1 convolution, the global mean, a classifier.

    The last feature maps of each resolution are, for strides 2 to 32, the taps "stage1", "stage2", "stage3",
    "stage5" and "stage7"; they are linear bottlenecks, without activation. "conv" is what the last 1x1
    convolution makes of "stage7". Kernels are initialised by He's rule on the fan-out, the classifier with a
    standard deviation of 0.01, as in torchvision.

    Args:
        width: multiplies all channels, which are rounded to multiples of 8; the last convolution's 1280 may
            become more, never fewer (section 4 of the paper).
        dropout: rate of the dropout before the classifier; 0 means none.
        table: a row (expansion, channels, blocks, stride) for each stage.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: a width <= 0, a rate outside [0, 1], num_classes or in_channels < 1.
        TypeError: a dtype that is not floating.

    Example:
        >>> model = nnx.eval_shape(lambda: MobileNetV2(width=0.5, rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps[:3], model.taps[-4:]
        (('stem', 'stage1', 'stage2'), ('stage7', 'conv', 'avg_pool', 'logits'))
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        dropout: float = 0.2,
        table: Sequence[tuple[int, int, int, int]] = TABLE,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        current = round_channels(32 * width)
        self.stem = ConvNormAct(in_channels, current, 3, stride=2, activation=nnx.relu6, rngs=rngs)
        self.layers = nnx.List()
        for expansion, channels, depth, stride in table:
            blocks = nnx.List()
            for position in range(depth):
                channels_in, current = current, round_channels(channels * width)
                block = InvertedResidual(
                    channels_in,
                    current,
                    expanded=expansion * channels_in,
                    stride=stride if position == 0 else 1,
                    activation=nnx.relu6,
                    rngs=rngs,
                )
                blocks.append(block)
            self.layers.append(blocks)
        last = round_channels(1280 * max(1.0, width))
        self.conv = ConvNormAct(current, last, 1, activation=nnx.relu6, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = nnx.Linear(
            last, num_classes, kernel_init=nnx.initializers.normal(0.01), dtype=self.dtype, rngs=rngs
        )

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the last convolution, the global mean and the logits."""
        stages = [(f"stage{i}", partial(chain, blocks)) for i, blocks in enumerate(self.layers, 1)]
        head = [layer for layer in (self.dropout, self.output) if layer is not None]
        return [
            ("stem", self.stem),
            *stages,
            ("conv", self.conv),
            ("avg_pool", F.global_avg_pool),
            ("logits", partial(chain, head)),
        ]
