"""ResNet: He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition"."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import BasicBlock, Bottleneck, ConvNormAct

NARROW = (64, 128, 256, 512)
BROAD = (256, 512, 1024, 2048)

# Block, depths, channels. A bottleneck's 3x3 convolution has a quarter of the channels, a half in the wide
# ones; ResNeXt's has 32 or 64 groups, 32x4d: 32 groups of 4 channels in the first layer.
RESNETS: dict[str, tuple[Callable[..., nnx.Module], tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), NARROW),
    "resnet34": (BasicBlock, (3, 4, 6, 3), NARROW),
    "resnet50": (Bottleneck, (3, 4, 6, 3), BROAD),
    "resnet101": (Bottleneck, (3, 4, 23, 3), BROAD),
    "resnet152": (Bottleneck, (3, 8, 36, 3), BROAD),
    "wide_resnet50_2": (partial(Bottleneck, width=0.5), (3, 4, 6, 3), BROAD),
    "wide_resnet101_2": (partial(Bottleneck, width=0.5), (3, 4, 23, 3), BROAD),
    "resnext50_32x4d": (partial(Bottleneck, width=0.5, groups=32), (3, 4, 6, 3), BROAD),
    "resnext101_32x8d": (partial(Bottleneck, width=1.0, groups=32), (3, 4, 23, 3), BROAD),
    "resnext101_64x4d": (partial(Bottleneck, width=1.0, groups=64), (3, 4, 23, 3), BROAD),
}


class ResNet(Classifier):
    """A stem, layers of residual blocks, the global mean, a linear classifier.

    The first block of every layer but the first halves the image. Convolutions are initialised by He's rule,
    on the fan-out.

    Args:
        block: makes a block from (channels_in, channels_out, *, stride, drop_path, rngs): `BasicBlock` or
            `Bottleneck`, or a functools.partial that sets their other options.
        depths: number of blocks in each layer.
        channels: channels of each layer.
        stem_channels: channels of the stem; None means channels[0].
        small_images: the stem of the paper's section 4.2 for 32 x 32 images, a 3x3 convolution, instead of
            that of section 4.1 for 224 x 224, a 7x7 convolution and a 3x3 max pooling of stride 2 each.
        zero_init: whether the last gamma of each block starts at zero, so that a block begins as its shortcut
            (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1).
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: depths and channels of different lengths, a size < 1, a rate outside [0, 1].
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> tiny = ResNet(BasicBlock, (1, 1), (8, 16), num_classes=5, small_images=True, rngs=nnx.Rngs(0))
        >>> tiny(jnp.zeros((2, 12, 8, 3))).shape
        (2, 5)
    """

    def __init__(
        self,
        block: Callable[..., nnx.Module],
        depths: Sequence[int],
        channels: Sequence[int],
        *,
        stem_channels: int | None = None,
        small_images: bool = False,
        zero_init: bool = True,
        drop_path: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(depths) != len(channels) or not depths or min(depths) < 1:
            raise ValueError(
                "ResNet: depths and channels must have one positive int for each layer, "
                f"got depths={tuple(depths)}, channels={tuple(channels)}"
            )
        current = channels[0] if stem_channels is None else stem_channels
        self.small_images = small_images
        self.stem = ConvNormAct(
            in_channels, current, 3 if small_images else 7, stride=1 if small_images else 2, rngs=rngs
        )
        self.layers = nnx.List()
        rates = iter(np.linspace(0.0, drop_path, sum(depths)).tolist())
        for layer, (depth, width) in enumerate(zip(depths, channels, strict=True)):
            blocks = nnx.List()
            for position in range(depth):
                stride = 2 if layer > 0 and position == 0 else 1
                blocks.append(block(current, width, stride=stride, drop_path=next(rates), rngs=rngs))
                if zero_init:
                    last_gamma = blocks[-1].branch[-1].norm.scale
                    last_gamma.set_value(jnp.zeros_like(last_gamma[...]))
                current = width
            self.layers.append(blocks)
        self.output = nnx.Linear(current, num_classes, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem, its pooling for large images, layer1, layer2, ..., the global mean and the logits."""
        stem: list[Stage] = [("stem", self.stem)]
        if not self.small_images:
            stem.append(("max_pool", lambda x: F.max_pool(x, 3, stride=2, padding=1)))
        layers = [(f"layer{i + 1}", partial(chain, blocks)) for i, blocks in enumerate(self.layers)]
        return [*stem, *layers, ("avg_pool", F.global_avg_pool), ("logits", self.output)]


def resnet(
    name: str,
    *,
    small_images: bool = False,
    drop_path: float = 0.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ResNet:
    """A network of the paper's table 1, or one of its wide and grouped successors, as torchvision has it.

    Args:
        name: a key of `RESNETS`, such as "resnet50", "wide_resnet50_2" or "resnext50_32x4d".
        small_images: a 3x3 stem of stride 1 without pooling, for images of about 32 x 32.
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        He et al. 2015; Zagoruyko and Komodakis 2016, "Wide Residual Networks"; Xie et al. 2016, "Aggregated
        Residual Transformations for Deep Neural Networks".

    Example:
        >>> model = nnx.eval_shape(lambda: resnet("resnet18", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps
        ('stem', 'max_pool', 'layer1', 'layer2', 'layer3', 'layer4', 'avg_pool', 'logits')
    """
    block, depths, channels = choose("resnet", RESNETS, name)
    return ResNet(
        block,
        depths,
        channels,
        stem_channels=64,
        small_images=small_images,
        drop_path=drop_path,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )


def cifar_resnet(
    depth: int,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    drop_path: float = 0.0,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ResNet:
    """The ResNets of the paper's section 4.2 for 32 x 32 images: 3 layers of 2n convolutions, depth 6n + 2.

    Shortcuts have no parameters (option A). The paper's table 6 gives 0.27, 0.46, 0.66 and 0.85 million
    parameters for depths 20, 32, 44 and 56 with 10 classes.

    Args:
        depth: layers with weights, 6n + 2.
        num_classes: number of logits.
        in_channels: channels of the images.
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the streams "params" and "dropout" come from.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: a depth that is not 6n + 2, num_classes or in_channels < 1, a rate outside [0, 1].

    Example:
        >>> model = nnx.eval_shape(lambda: cifar_resnet(20, rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps
        ('stem', 'layer1', 'layer2', 'layer3', 'avg_pool', 'logits')
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"cifar_resnet: depth must be 6n + 2 (20, 32, 44, 56, ...), got {depth}")
    return ResNet(
        partial(BasicBlock, shortcut="pad"),
        (n, n, n),
        (16, 32, 64),
        small_images=True,
        zero_init=False,
        drop_path=drop_path,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
