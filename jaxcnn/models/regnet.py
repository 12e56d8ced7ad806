"""RegNet: Radosavovic, Kosaraju, Girshick, He and Dollár 2020, "Designing Network Design Spaces"."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, as_int
from jaxcnn.models.classifier import Classifier, Stage, chain, choose
from jaxcnn.nn import ConvNormAct, DropPath, SqueezeExcitation, round_channels

# Depth, w_0, w_a, w_m and group width of the paper's best networks, as precise as its authors' code has them;
# then the squeezed part of the channels, in the Y networks.
REGNETS: dict[str, tuple[int, int, float, float, int, float]] = {
    "regnet_x_400mf": (22, 24, 24.48, 2.54, 16, 0.0),
    "regnet_x_800mf": (16, 56, 35.73, 2.28, 16, 0.0),
    "regnet_x_1_6gf": (18, 80, 34.01, 2.25, 24, 0.0),
    "regnet_x_3_2gf": (25, 88, 26.31, 2.25, 48, 0.0),
    "regnet_x_8gf": (23, 80, 49.56, 2.88, 120, 0.0),
    "regnet_x_16gf": (22, 216, 55.59, 2.1, 128, 0.0),
    "regnet_x_32gf": (23, 320, 69.86, 2.0, 168, 0.0),
    "regnet_y_400mf": (16, 48, 27.89, 2.09, 8, 0.25),
    "regnet_y_800mf": (14, 56, 38.84, 2.4, 16, 0.25),
    "regnet_y_1_6gf": (27, 48, 20.71, 2.65, 24, 0.25),
    "regnet_y_3_2gf": (21, 80, 42.63, 2.66, 24, 0.25),
    "regnet_y_8gf": (17, 192, 76.82, 2.19, 56, 0.25),
    "regnet_y_16gf": (18, 200, 106.23, 2.48, 112, 0.25),
    "regnet_y_32gf": (20, 232, 115.89, 2.53, 232, 0.25),
    "regnet_y_128gf": (27, 456, 160.83, 2.52, 264, 0.25),
}


def stages_of(
    depth: int, w_0: int, w_a: float, w_m: float, group_width: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Depths and widths of the stages that follow from a RegNet's parameters.

    Block j = 0, 1, ... would have the width w_0 + w_a * j. It gets the nearest w_0 * w_m^s with an integer s
    (nearest in the logarithm), rounded to a multiple of 8 and then of the group width. Blocks of one width
    make a stage.

    A width half-way between two multiples of the group width goes up, as in torchvision; the authors' goes to
    the even one. So regnet_x_400mf ends with 400 channels for 384, and regnet_y_800mf has 144 and 784 for 128
    and 768; all others have the widths that the paper prints.

    Args:
        depth: number of blocks, the paper's d.
        w_0: width of the first block.
        w_a: what the width grows by from block to block.
        w_m: ratio of the widths of two stages.
        group_width: channels of a group; a stage narrower than that is one group.

    Returns:
        The depths and the widths, one of each for a stage.

    Raises:
        ValueError: depth < 1, w_0 < 8, w_a < 0, w_m <= 1.

    Reference:
        Radosavovic et al. 2020, section 3.3, eq. 2 to 4.

    Example:
        >>> stages_of(22, 24, 24.48, 2.54, 16)
        ((1, 2, 7, 12), (32, 64, 160, 400))
    """
    if depth < 1 or w_0 < 8 or w_a < 0 or w_m <= 1:
        raise ValueError(
            "stages_of: depth must be at least 1, w_0 at least 8, w_a at least 0 and w_m more than 1, "
            f"got depth={depth}, w_0={w_0}, w_a={w_a}, w_m={w_m}"
        )
    continuous = w_0 + w_a * np.arange(depth)
    steps = np.round(np.log(continuous / w_0) / np.log(w_m))
    quantised = 8 * np.round(w_0 * w_m**steps / 8)
    widths, depths = np.unique(quantised, return_counts=True)
    return (
        tuple(depths.tolist()),
        tuple(round_channels(width, multiple=min(int(width), group_width)) for width in widths.tolist()),
    )


class RegNetBlock(nnx.Module):
    """A bottleneck as wide inside as outside, the X block; with squeeze-and-excitation, the Y block.

        y = relu(shortcut(x) + drop_path(contract(excite(grouped(expand(x))))))

    `expand` and `contract` are 1x1 convolutions, `grouped` is a 3x3 one with the stride. The shortcut is x,
    or a 1x1 convolution where the shapes differ.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result and of what is between.
        group_width: channels of a group, at most channels_out.
        stride: elements between two positions of the 3x3 convolution.
        squeeze: squeezed channels of the squeeze-and-excitation as a part of channels_in; 0 means none.
        drop_path: rate of the DropPath at the end of the branch; 0 means none.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: a group width that does not divide channels_out, an option out of range.

    Reference:
        Radosavovic et al. 2020, figure 4 (X) and section 4 (Y).

    Example:
        >>> x = jnp.zeros((2, 14, 10, 16))
        >>> nnx.eval_shape(lambda: RegNetBlock(16, 24, 8, stride=2, squeeze=0.25, rngs=nnx.Rngs(0))(x)).shape
        (2, 7, 5, 24)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        group_width: int,
        *,
        stride: int = 1,
        squeeze: float = 0.0,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        groups, rest = divmod(channels_out, group_width)
        if rest:
            raise ValueError(
                "RegNetBlock: group_width must divide channels_out, "
                f"got group_width={group_width}, channels_out={channels_out}"
            )
        self.expand = ConvNormAct(channels_in, channels_out, 1, rngs=rngs)
        self.grouped = ConvNormAct(channels_out, channels_out, 3, stride=stride, groups=groups, rngs=rngs)
        self.excite = (
            SqueezeExcitation(channels_out, round(squeeze * channels_in), rngs=rngs) if squeeze else None
        )
        self.contract = ConvNormAct(channels_out, channels_out, 1, activation=None, rngs=rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs) if drop_path else None
        self.projection = (
            None
            if stride == 1 and channels_in == channels_out
            else ConvNormAct(channels_in, channels_out, 1, stride=stride, activation=None, rngs=rngs)
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
        branch = (self.expand, self.grouped, self.excite, self.contract, self.drop_path)
        y = chain((layer for layer in branch if layer is not None), jnp.asarray(x))
        return nnx.relu((x if self.projection is None else self.projection(x)) + y)


class RegNet(Classifier):
    """A stem of 32 channels, stages of equal blocks, the global mean, a linear classifier.

    The stem and the first block of every stage halve the image. Convolutions are initialised by He's rule, on
    the fan-out, and the classifier with a standard deviation of 0.01.

    Args:
        depths: number of blocks in each stage.
        widths: channels of each stage.
        group_width: channels of a group of the 3x3 convolutions; a stage narrower than that is one group.
        squeeze: squeezed channels of the squeeze-and-excitation as a part of the channels of a block's input,
            0.25 in the Y networks; 0 means none, the X networks.
        drop_path: rate of the last block's DropPath; the others' grow to it linearly from 0.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if drop_path > 0.

    Raises:
        ValueError: depths and widths of different lengths, a group width that does not divide a width, a size
            < 1, a rate outside [0, 1].
        TypeError: a dtype that is not floating.

    Example:
        >>> def maps():
        ...     return RegNet((1, 2), (16, 24), 8, rngs=nnx.Rngs(0)).features(jnp.zeros((2, 32, 24, 3)))
        >>> {name: value.shape for name, value in nnx.eval_shape(maps).items() if "stage" in name}
        {'stage1': (2, 8, 6, 16), 'stage2': (2, 4, 3, 24)}
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        group_width: int,
        *,
        squeeze: float = 0.0,
        drop_path: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(depths) != len(widths) or not depths or min(*depths, *widths) < 1:
            raise ValueError(
                "RegNet: depths and widths must have one positive int for each stage, "
                f"got depths={tuple(depths)}, widths={tuple(widths)}"
            )
        group_width = as_int("RegNet", "group_width", group_width, minimum=1)
        current = 32
        self.stem = ConvNormAct(in_channels, current, 3, stride=2, rngs=rngs)
        self.layers = nnx.List()
        rates = iter(np.linspace(0.0, drop_path, sum(depths)).tolist())
        for depth, width in zip(depths, widths, strict=True):
            blocks = nnx.List()
            for position in range(depth):
                blocks.append(
                    RegNetBlock(
                        current,
                        width,
                        min(group_width, width),
                        stride=2 if position == 0 else 1,
                        squeeze=squeeze,
                        drop_path=next(rates),
                        rngs=rngs,
                    )
                )
                current = width
            self.layers.append(blocks)
        self.output = nnx.Linear(
            current,
            num_classes,
            kernel_init=jax.nn.initializers.normal(0.01),
            dtype=self.dtype,
            rngs=rngs,
        )

    def stages(self) -> list[Stage]:
        """The stem, stage1, stage2, ..., the global mean and the logits."""
        layers = [(f"stage{i + 1}", partial(chain, blocks)) for i, blocks in enumerate(self.layers)]
        return [("stem", self.stem), *layers, ("avg_pool", F.global_avg_pool), ("logits", self.output)]


def regnet(
    name: str,
    *,
    drop_path: float = 0.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> RegNet:
    """A RegNetX or RegNetY, named by its multiply-adds at 224 x 224.

    Args:
        name: a key of `REGNETS`, such as "regnet_x_400mf" or "regnet_y_16gf".
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
        Radosavovic et al. 2020, "Designing Network Design Spaces"; regnet_y_128gf: Goyal et al. 2021,
        "Self-supervised Pretraining of Visual Features in the Wild".

    Example:
        >>> model = nnx.eval_shape(lambda: regnet("regnet_y_400mf", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> model.taps
        ('stem', 'stage1', 'stage2', 'stage3', 'stage4', 'avg_pool', 'logits')
    """
    depth, w_0, w_a, w_m, group_width, squeeze = choose("regnet", REGNETS, name)
    depths, widths = stages_of(depth, w_0, w_a, w_m, group_width)
    return RegNet(
        depths,
        widths,
        group_width,
        squeeze=squeeze,
        drop_path=drop_path,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
