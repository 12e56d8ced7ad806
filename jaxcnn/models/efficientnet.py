"""EfficientNet: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks".

EfficientNetV2: Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training".
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, check_number
from jaxcnn.functional.geometry import Padding
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import (
    BatchNorm,
    ConvNormAct,
    Dropout,
    DropPath,
    InvertedResidual,
    SqueezeExcitation,
    round_channels,
)
from jaxcnn.nn.blocks import Activation, Norm


class Row(NamedTuple):
    """A stage of equal blocks, a row of the papers' tables; the first block has the stride."""

    depth: int
    channels: int
    expansion: int
    window: int
    stride: int
    fused: bool = False


class Architecture(NamedTuple):
    """A named network: its stages, the channels before and after them, its options."""

    rows: tuple[Row, ...]
    stem_channels: int
    head_channels: int
    dropout: float
    options: dict[str, Any]


# Table 1 of the paper.
B0 = (
    Row(1, 16, 1, 3, 1),
    Row(2, 24, 6, 3, 2),
    Row(2, 40, 6, 5, 2),
    Row(3, 80, 6, 3, 2),
    Row(3, 112, 6, 5, 1),
    Row(4, 192, 6, 5, 2),
    Row(1, 320, 6, 3, 1),
)

# The authors' normalisation; torchvision's B0 to B4 have torch's own.
AUTHORS_NORM = partial(BatchNorm, eps=1e-3, momentum=0.99)


def _scaled(width: float, depth: float, dropout: float, **options: Any) -> Architecture:
    """B0 with its channels and depths multiplied, section 3.3."""
    rows = tuple(
        row._replace(depth=math.ceil(row.depth * depth), channels=round_channels(row.channels * width))
        for row in B0
    )
    return Architecture(rows, round_channels(32 * width), 4 * rows[-1].channels, dropout, options)


def _v2(stem_channels: int, dropout: float, *rows: Row) -> Architecture:
    return Architecture(rows, stem_channels, 1280, dropout, {"norm": partial(BatchNorm, eps=1e-3)})


EFFICIENTNETS: dict[str, Architecture] = {
    "efficientnet_b0": _scaled(1.0, 1.0, 0.2),
    "efficientnet_b1": _scaled(1.0, 1.1, 0.2),
    "efficientnet_b2": _scaled(1.1, 1.2, 0.3),
    "efficientnet_b3": _scaled(1.2, 1.4, 0.3),
    "efficientnet_b4": _scaled(1.4, 1.8, 0.4),
    "efficientnet_b5": _scaled(1.6, 2.2, 0.4, norm=AUTHORS_NORM),
    "efficientnet_b6": _scaled(1.8, 2.6, 0.5, norm=AUTHORS_NORM),
    "efficientnet_b7": _scaled(2.0, 3.1, 0.5, norm=AUTHORS_NORM),
    # Table 4 of the second paper has S; M and L are its authors'.
    "efficientnet_v2_s": _v2(
        24,
        0.2,
        Row(2, 24, 1, 3, 1, fused=True),
        Row(4, 48, 4, 3, 2, fused=True),
        Row(4, 64, 4, 3, 2, fused=True),
        Row(6, 128, 4, 3, 2),
        Row(9, 160, 6, 3, 1),
        Row(15, 256, 6, 3, 2),
    ),
    "efficientnet_v2_m": _v2(
        24,
        0.3,
        Row(3, 24, 1, 3, 1, fused=True),
        Row(5, 48, 4, 3, 2, fused=True),
        Row(5, 80, 4, 3, 2, fused=True),
        Row(7, 160, 4, 3, 2),
        Row(14, 176, 6, 3, 1),
        Row(18, 304, 6, 3, 2),
        Row(5, 512, 6, 3, 1),
    ),
    "efficientnet_v2_l": _v2(
        32,
        0.4,
        Row(4, 32, 1, 3, 1, fused=True),
        Row(7, 64, 4, 3, 2, fused=True),
        Row(7, 96, 4, 3, 2, fused=True),
        Row(10, 192, 4, 3, 2),
        Row(19, 224, 6, 3, 1),
        Row(25, 384, 6, 3, 2),
        Row(7, 640, 6, 3, 1),
    ),
    # B0 for phones: nothing that is slow or hard to quantise there, and TensorFlow's padding.
    "efficientnet_lite0": _scaled(
        1.0, 1.0, 0.2, squeeze=False, activation=nnx.relu6, norm=AUTHORS_NORM, padding="SAME"
    ),
}


class FusedMBConv(nnx.Module):
    """An `InvertedResidual` whose 1x1 and depthwise convolutions are one ordinary convolution.

        y = project(expand(x)),    x + drop_path(y) if stride = 1 and channels_out = channels_in

    `expand` ends with the activation, `project`, a 1x1 convolution, does not; each has its normalisation.
    Where `expand` would not expand (expanded = channels_in) it makes channels_out, and `project` is left out.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        expanded: channels between the two convolutions.
        window: taps per spatial axis of `expand`.
        stride: elements between two positions of the window.
        padding: of `expand`, as in `ConvNormAct`.
        norm: makes a normalisation from a number of channels.
        activation: a function of one array.
        drop_path: rate of the DropPath at the end; 0 means none. Without a shortcut nothing is dropped.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: an option out of range.

    Reference:
        Tan and Le 2021, figure 2.

    Example:
        >>> block = FusedMBConv(8, 16, expanded=32, stride=2, rngs=nnx.Rngs(0))
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
        activation: Activation = nnx.silu,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        single = expanded == channels_in
        conv = partial(ConvNormAct, norm=norm, rngs=rngs)
        self.expand = conv(
            channels_in,
            channels_out if single else expanded,
            window,
            stride=stride,
            padding=padding,
            activation=activation,
        )
        self.project = None if single else conv(expanded, channels_out, 1, activation=None)
        self.residual = stride == 1 and channels_in == channels_out
        self.drop_path = DropPath(drop_path, rngs=rngs) if drop_path and self.residual else None

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Apply the block.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, ceil(height / stride), ceil(width / stride), channels_out) for an odd window.
        """
        y = self.expand(x)
        for layer in (self.project, self.drop_path):
            y = y if layer is None else layer(y)
        return jnp.add(x, y) if self.residual else y


class EfficientNet(Classifier):
    """A stem, stages of inverted residual blocks, a 1x1 convolution, the global mean, a linear classifier.

    Convolutions are initialised by He's rule, on the fan-out, the classifier uniformly within
    +-1 / sqrt(num_classes).

    Args:
        rows: the stages, each a `Row` of (depth, channels, expansion, window, stride, fused): blocks, their
            channels, their widening, the window and the first block's stride of the convolution that sees
            more than one pixel, and whether they are `FusedMBConv`s.
        stem_channels: channels of the stem.
        head_channels: channels of the last convolution.
        squeeze: whether the blocks that are not fused have a `SqueezeExcitation`, down to a quarter of the
            channels that the block starts from.
        activation: a function of one array.
        norm: makes a normalisation from a number of channels.
        padding: None for (window - 1) // 2 on both sides, as torchvision has it, or "SAME", as TensorFlow has
            it, which differs at stride 2.
        dropout: rate of the Dropout before the classifier.
        drop_path: i * drop_path / blocks is the rate of the i-th block's DropPath, counted from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout or drop_path > 0.

    Raises:
        ValueError: no rows, a depth or size < 1, a rate outside [0, 1].
        TypeError: a dtype that is not floating.

    Example:
        >>> rows = (Row(1, 8, 1, 3, 1), Row(2, 16, 6, 5, 2))
        >>> tiny = EfficientNet(rows, 8, 32, num_classes=5, rngs=nnx.Rngs(0))
        >>> tiny(jnp.zeros((2, 24, 16, 3))).shape
        (2, 5)
    """

    def __init__(
        self,
        rows: Sequence[Row],
        stem_channels: int,
        head_channels: int,
        *,
        squeeze: bool = True,
        activation: Activation = nnx.silu,
        norm: Norm = BatchNorm,
        padding: Padding | None = None,
        dropout: float = 0.2,
        drop_path: float = 0.2,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        rows = tuple(Row(*row) for row in rows)
        if not rows or any(min(row[:5]) < 1 for row in rows):
            raise ValueError(f"EfficientNet: rows must have positive ints for every stage, got {rows}")
        check_number("EfficientNet", "drop_path", drop_path, minimum=0, maximum=1)
        options: dict[str, Any] = {"norm": norm, "activation": activation, "rngs": rngs}
        self.padding = padding
        self.stem = ConvNormAct(in_channels, stem_channels, 3, stride=2, padding=padding, **options)
        self.layers = nnx.List()
        current, count, total = stem_channels, 0, sum(row.depth for row in rows)
        for row in rows:
            blocks = nnx.List()
            for position in range(row.depth):
                block: Callable[..., nnx.Module] = FusedMBConv if row.fused else InvertedResidual
                if squeeze and not row.fused:
                    squeezed = max(1, current // 4)
                    excite = partial(SqueezeExcitation, squeezed=squeezed, activation=activation)
                    block = partial(block, excite=excite)
                blocks.append(
                    block(
                        current,
                        row.channels,
                        expanded=row.expansion * current,
                        window=row.window,
                        stride=row.stride if position == 0 else 1,
                        padding=padding,
                        drop_path=drop_path * count / total,
                        **options,
                    )
                )
                current, count = row.channels, count + 1
            self.layers.append(blocks)
        self.head = ConvNormAct(current, head_channels, 1, **options)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        # The limit of this distribution is sqrt(3 * scale / num_classes).
        uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        self.output = nnx.Linear(head_channels, num_classes, kernel_init=uniform, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the last convolution, the global mean and the logits."""
        return [
            ("stem", self.stem),
            *[(f"stage{i}", partial(chain, blocks)) for i, blocks in enumerate(self.layers, 1)],
            ("head", self.head),
            ("avg_pool", F.global_avg_pool),
            ("logits", lambda x: self.output(x if self.dropout is None else self.dropout(x))),
        ]


def efficientnet(
    name: str,
    *,
    dropout: float | None = None,
    drop_path: float = 0.2,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> EfficientNet:
    """A network of the two papers as torchvision has it, or EfficientNet-Lite0.

    Lite0 is B0 without squeeze-and-excitation, with relu6 in place of silu, and with TensorFlow's padding.

    Args:
        name: a key of `EFFICIENTNETS`, such as "efficientnet_b0", "efficientnet_v2_s", "efficientnet_lite0".
        dropout: rate of the Dropout before the classifier; None means the network's own, 0.2 to 0.5.
        drop_path: i * drop_path / blocks is the rate of the i-th block's DropPath, counted from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout or drop_path > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        Tan and Le 2019 and 2021; for Lite0 tensorflow/tpu, models/official/efficientnet/lite.

    Example:
        >>> model = nnx.eval_shape(lambda: efficientnet("efficientnet_b0", rngs=nnx.Rngs(0)))
        >>> model.taps[:3], model.taps[-4:]
        (('stem', 'stage1', 'stage2'), ('stage7', 'head', 'avg_pool', 'logits'))
    """
    architecture = choose("efficientnet", EFFICIENTNETS, name)
    return EfficientNet(
        architecture.rows,
        architecture.stem_channels,
        architecture.head_channels,
        dropout=architecture.dropout if dropout is None else dropout,
        drop_path=drop_path,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
        **architecture.options,
    )
