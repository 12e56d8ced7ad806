"""ShuffleNet V2 (Ma et al. 2018, "Practical Guidelines for Efficient CNN Architecture Design")."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import ConvNormAct

# The paper's table 5: channels of the stem, of stages 2 to 4, of the last convolution.
SHUFFLENETS_V2: dict[str, tuple[int, ...]] = {
    "shufflenet_v2_x0_5": (24, 48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (24, 116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (24, 176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (24, 244, 488, 976, 2048),
}


class ShuffleBlock(nnx.Module):
    """Half of the channels pass, the other half is convolved, and the two are shuffled.

        y = shuffle(left, conv(depthwise(conv(right))))    where left, right = halves of x

    With a stride of 2 nothing passes unchanged: left is conv(depthwise(x)) and right is x. All of these are
    followed by a normalisation, the 1x1 convolutions by a relu too, the depthwise 3x3 ones not.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result, even; at stride 1 those of x.
        stride: elements between two positions of the depthwise convolutions.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: an odd channels_out, another one than channels_in at stride 1.

    Reference:
        Ma et al. 2018, figure 3 (c) and (d).

    Example:
        >>> x = jnp.zeros((2, 14, 9, 8))
        >>> nnx.eval_shape(lambda: ShuffleBlock(8, 24, stride=2, rngs=nnx.Rngs(0))(x)).shape
        (2, 7, 5, 24)
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, rngs: nnx.Rngs):
        if channels_out % 2 or (stride == 1 and channels_in != channels_out):
            raise ValueError(
                "ShuffleBlock: channels_out must be even, and at stride 1 equal to channels_in, "
                f"got channels_in={channels_in}, channels_out={channels_out}, stride={stride}"
            )
        half = channels_out // 2
        conv = partial(ConvNormAct, rngs=rngs)

        def depthwise(channels: int) -> ConvNormAct:
            return conv(channels, channels, 3, stride=stride, groups=channels, activation=None)

        self.left = None if stride == 1 else nnx.List([depthwise(channels_in), conv(channels_in, half, 1)])
        first = conv(half if stride == 1 else channels_in, half, 1)
        self.right = nnx.List([first, depthwise(half), conv(half, half, 1)])

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Apply the block.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, ceil(height / stride), ceil(width / stride), channels_out).
        """
        x = jnp.asarray(x)
        left, right = jnp.split(x, 2, axis=-1) if self.left is None else (chain(self.left, x), x)
        return _shuffle(left, chain(self.right, right))


class ShuffleNetV2(Classifier):
    """A stem and a max pooling of stride 2 each, stages of `ShuffleBlock`s, a 1x1 convolution, a classifier.

    The first block of every stage halves the image. Kernels are initialised by He's rule on the fan-out.

    Args:
        depths: number of blocks in each stage.
        channels: channels of the stem, of each stage and of the last convolution.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: channels that are not two more than depths, a depth < 1, a stage of odd channels,
            num_classes or in_channels < 1.
        TypeError: a dtype that is not floating.

    Example:
        >>> build = lambda: ShuffleNetV2((2, 1), (4, 8, 12, 16), num_classes=5, rngs=nnx.Rngs(0))
        >>> nnx.eval_shape(lambda: build()(jnp.zeros((2, 24, 16, 3)))).shape  # allocates nothing
        (2, 5)
    """

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(channels) != len(depths) + 2 or not depths or min(depths) < 1:
            raise ValueError(
                "ShuffleNetV2: depths must have one positive int for each stage and channels two more, for "
                f"the stem and the last convolution, got depths={tuple(depths)}, channels={tuple(channels)}"
            )
        current, *widths, last = channels
        self.stem = ConvNormAct(in_channels, current, 3, stride=2, rngs=rngs)
        self.layers = nnx.List()
        for depth, width in zip(depths, widths, strict=True):
            first = ShuffleBlock(current, width, stride=2, rngs=rngs)
            self.layers.append(
                nnx.List([first, *(ShuffleBlock(width, width, rngs=rngs) for _ in range(depth - 1))])
            )
            current = width
        self.conv = ConvNormAct(current, last, 1, rngs=rngs)
        self.output = nnx.Linear(last, num_classes, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem, its pooling, stage2, stage3, ..., the last convolution, the global mean and logits."""
        return [
            ("stem", self.stem),
            ("max_pool", lambda x: F.max_pool(x, 3, stride=2, padding=1)),
            *[(f"stage{i}", partial(chain, blocks)) for i, blocks in enumerate(self.layers, 2)],
            ("conv", self.conv),
            ("avg_pool", F.global_avg_pool),
            ("logits", self.output),
        ]


def shufflenet_v2(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ShuffleNetV2:
    """A network of the paper's table 5, as torchvision has it.

    Args:
        name: a key of `SHUFFLENETS_V2`, such as "shufflenet_v2_x1_0".
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1.

    Reference:
        Ma et al. 2018.

    Example:
        >>> model = nnx.eval_shape(lambda: shufflenet_v2("shufflenet_v2_x1_0", rngs=nnx.Rngs(0)))
        >>> model.taps  # eval_shape allocates nothing
        ('stem', 'max_pool', 'stage2', 'stage3', 'stage4', 'conv', 'avg_pool', 'logits')
    """
    channels = choose("shufflenet_v2", SHUFFLENETS_V2, name)
    return ShuffleNetV2(
        (4, 8, 4), channels, num_classes=num_classes, in_channels=in_channels, dtype=dtype, rngs=rngs
    )


def _shuffle(left: Array, right: Array) -> Array:
    """The channels of two maps in turn: left 0, right 0, left 1, right 1, ..."""
    *image, half = left.shape
    return jnp.stack((left, right), axis=-1).reshape(*image, 2 * half)
