"""ConvNeXt: Liu et al. 2022, "A ConvNet for the 2020s", and Woo et al. 2023, "ConvNeXt V2"."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import Conv, DropPath, GlobalResponseNorm, LayerNorm

# The papers' truncated normal distribution is cut at -2 and 2, a hundred standard deviations away.
small_normal = jax.nn.initializers.normal(0.02)

THIN = (96, 192, 384, 768)
BROAD = (128, 256, 512, 1024)
BROADER = (192, 384, 768, 1536)

# Depths, channels, rate of the last DropPath, whether it is the second version. The first version has
# torchvision's rates. The second has none: its paper trains a masked autoencoder first, which drops nothing.
CONVNEXTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], float, bool]] = {
    "convnext_tiny": ((3, 3, 9, 3), THIN, 0.1, False),
    "convnext_small": ((3, 3, 27, 3), THIN, 0.4, False),
    "convnext_base": ((3, 3, 27, 3), BROAD, 0.5, False),
    "convnext_large": ((3, 3, 27, 3), BROADER, 0.5, False),
    "convnextv2_atto": ((2, 2, 6, 2), (40, 80, 160, 320), 0.0, True),
    "convnextv2_femto": ((2, 2, 6, 2), (48, 96, 192, 384), 0.0, True),
    "convnextv2_pico": ((2, 2, 6, 2), (64, 128, 256, 512), 0.0, True),
    "convnextv2_nano": ((2, 2, 8, 2), (80, 160, 320, 640), 0.0, True),
    "convnextv2_tiny": ((3, 3, 9, 3), THIN, 0.0, True),
    "convnextv2_base": ((3, 3, 27, 3), BROAD, 0.0, True),
    "convnextv2_large": ((3, 3, 27, 3), BROADER, 0.0, True),
    "convnextv2_huge": ((3, 3, 27, 3), (352, 704, 1408, 2816), 0.0, True),
}


class ConvNeXtBlock(nnx.Module):
    """A depthwise 7x7 convolution, a normalisation, two layers on the channels of each position, and x.

        y = project(gelu(expand(norm(depthwise(x)))))    x + drop_path(layer_scale * y)      ConvNeXt
        y = project(grn(gelu(expand(norm(depthwise(x))))))    x + drop_path(y)               ConvNeXt V2

    `expand`, to four times the channels, and `project` are 1x1 convolutions. `layer_scale`, one factor for
    each channel, is initially 1e-6 (Touvron et al. 2021, "Going deeper with Image Transformers", section 2).

    Args:
        channels: channels of x.
        grn: the second version, with a `GlobalResponseNorm` in place of `layer_scale`.
        drop_path: rate of the DropPath at the end of the branch; 0 means none.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: channels < 1, a rate outside [0, 1].

    Reference:
        Liu et al. 2022, figure 4; Woo et al. 2023, figure 5.

    Example:
        >>> block = lambda: ConvNeXtBlock(8, grn=True, rngs=nnx.Rngs(0))
        >>> nnx.eval_shape(lambda: block()(jnp.zeros((2, 9, 5, 8)))).shape
        (2, 9, 5, 8)
    """

    def __init__(self, channels: int, *, grn: bool = False, drop_path: float = 0.0, rngs: nnx.Rngs):
        conv = partial(Conv, kernel_init=small_normal, rngs=rngs)
        self.depthwise = conv(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels, eps=1e-6)
        self.expand = conv(channels, 4 * channels, 1)
        self.grn = GlobalResponseNorm(4 * channels) if grn else None
        self.project = conv(4 * channels, channels, 1)
        self.layer_scale = None if grn else nnx.Param(jnp.full(channels, 1e-6, jnp.float32))
        self.drop_path = DropPath(drop_path, rngs=rngs) if drop_path else None

    def __call__(
        self, x: Float[AnyArray, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Apply the block.

        Args:
            x: images (batch, height, width, channels).

        Returns:
            Images of x's shape.
        """
        y = nnx.gelu(self.expand(self.norm(self.depthwise(x))), approximate=False)
        y = self.project(y if self.grn is None else self.grn(y))
        if self.layer_scale is not None:
            y *= self.layer_scale[None, None, None].astype(y.dtype)
        return jnp.add(x, y if self.drop_path is None else self.drop_path(y))


class ConvNeXt(Classifier):
    """A stem that cuts the image into patches of 4 x 4, stages of `ConvNeXtBlock`s, a linear classifier.

    Every stage but the first begins with a normalisation and a 2x2 convolution that halves the image; the
    global mean is normalised before the classifier. Kernels are drawn with a standard deviation of 0.02.

    Args:
        depths: number of blocks in each stage.
        channels: channels of each stage.
        grn: the blocks of the second version.
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: depths and channels of different lengths, a size < 1, a rate outside [0, 1]; when called,
            images of less than 4 * 2 ** (stages - 1) pixels a side.
        TypeError: a dtype that is not floating.

    Example:
        >>> tiny = lambda: ConvNeXt((1, 1), (8, 16), num_classes=5, rngs=nnx.Rngs(0))
        >>> maps = nnx.eval_shape(lambda: tiny().features(jnp.zeros((2, 24, 16, 3))))
        >>> maps["stage1"].shape, maps["stage2"].shape, maps["logits"].shape
        ((2, 6, 4, 8), (2, 3, 2, 16), (2, 5))
    """

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        *,
        grn: bool = False,
        drop_path: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(depths) != len(channels) or not depths or min(depths) < 1:
            raise ValueError(
                "ConvNeXt: depths and channels must have one positive int for each stage, "
                f"got depths={tuple(depths)}, channels={tuple(channels)}"
            )
        conv = partial(Conv, kernel_init=small_normal, rngs=rngs)
        norm = partial(LayerNorm, eps=1e-6)
        stem = nnx.List([conv(in_channels, channels[0], 4, stride=4), norm(channels[0])])
        self.downsample = nnx.List([stem])
        for current, width in pairwise(channels):
            self.downsample.append(nnx.List([norm(current), conv(current, width, 2, stride=2)]))
        rates = iter(np.linspace(0.0, drop_path, sum(depths)).tolist())
        self.layers = nnx.List()
        for depth, width in zip(depths, channels, strict=True):
            block = partial(ConvNeXtBlock, width, grn=grn, rngs=rngs)
            self.layers.append(nnx.List([block(drop_path=next(rates)) for _ in range(depth)]))
        self.norm = norm(channels[-1])
        self.output = nnx.Linear(
            channels[-1], num_classes, kernel_init=small_normal, dtype=self.dtype, rngs=rngs
        )

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the global mean, its normalisation and the logits."""
        first, *others = self.layers
        later = [[*pair, *blocks] for pair, blocks in zip(self.downsample[1:], others, strict=True)]
        return [
            ("stem", self._stem),
            *[(f"stage{i}", partial(chain, layers)) for i, layers in enumerate([first, *later], 1)],
            ("avg_pool", F.global_avg_pool),
            ("norm", self.norm),
            ("logits", self.output),
        ]

    def _stem(self, x: Array) -> Array:
        height, width = x.shape[1:3]
        least = 4 * 2 ** (len(self.layers) - 1)
        if min(height, width) < least:
            raise ValueError(f"ConvNeXt: images must be at least {least} x {least}, got {height} x {width}")
        return chain(self.downsample[0], x)


def convnext(
    name: str,
    *,
    drop_path: float | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ConvNeXt:
    """A network of one of the two papers, as torchvision and the second one's authors have it.

    Args:
        name: a key of `CONVNEXTS`, such as "convnext_tiny" or "convnextv2_atto".
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0. None means
            torchvision's, from 0.1 (tiny) to 0.5 (base and large), and 0 for the second version.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters are float32.
        rngs: where the streams "params" and "dropout" come from.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        Liu et al. 2022, section 3; Woo et al. 2023, table 15 of the appendix.

    Example:
        >>> model = nnx.eval_shape(lambda: convnext("convnext_tiny", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps
        ('stem', 'stage1', 'stage2', 'stage3', 'stage4', 'avg_pool', 'norm', 'logits')
    """
    depths, channels, rate, grn = choose("convnext", CONVNEXTS, name)
    return ConvNeXt(
        depths,
        channels,
        grn=grn,
        drop_path=rate if drop_path is None else drop_path,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
