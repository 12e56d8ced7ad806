"""Inception v3: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.models.googlenet import Parallel
from jaxcnn.nn import AvgPool, BatchNorm, ConvNormAct, Dropout, MaxPool

# torchvision cuts these normal distributions at -2 and 2, twenty standard deviations away or more.
normal = jax.nn.initializers.normal

MakeConv = Callable[..., ConvNormAct]
"""Makes a convolution from (channels_in, channels_out, window); it keeps the size unless padding=0."""


def grid35(conv: MakeConv, channels_in: int, *, behind_pool: int) -> Parallel:
    """Figure 5: a 5x5 convolution, and two of 3x3 in place of another."""
    return Parallel(
        channels_in,
        {
            "1x1": [conv(channels_in, 64, 1)],
            "5x5": [conv(channels_in, 48, 1), conv(48, 64, 5)],
            "3x3dbl": [conv(channels_in, 64, 1), conv(64, 96, 3), conv(96, 96, 3)],
            "pool": [AvgPool(3, stride=1, padding=1), conv(channels_in, behind_pool, 1)],
        },
    )


def reduce35(conv: MakeConv, channels_in: int) -> Parallel:
    """Figure 10: halves the image by convolutions and a pooling side by side."""
    return Parallel(
        channels_in,
        {
            "3x3": [conv(channels_in, 384, 3, stride=2, padding=0)],
            "3x3dbl": [conv(channels_in, 64, 1), conv(64, 96, 3), conv(96, 96, 3, stride=2, padding=0)],
            "pool": [MaxPool(3, stride=2)],
        },
    )


def grid17(conv: MakeConv, channels_in: int, *, inner: int) -> Parallel:
    """Figure 6: a 7x7 convolution, and then two of them, as pairs of 1x7 and 7x1."""
    row, column = (1, 7), (7, 1)
    return Parallel(
        channels_in,
        {
            "1x1": [conv(channels_in, 192, 1)],
            "7x7": [conv(channels_in, inner, 1), conv(inner, inner, row), conv(inner, 192, column)],
            "7x7dbl": [
                conv(channels_in, inner, 1),
                conv(inner, inner, column),
                conv(inner, inner, row),
                conv(inner, inner, column),
                conv(inner, 192, row),
            ],
            "pool": [AvgPool(3, stride=1, padding=1), conv(channels_in, 192, 1)],
        },
    )


def reduce17(conv: MakeConv, channels_in: int) -> Parallel:
    """Figure 10's idea again, with a 7x7 convolution before the second branch's 3x3 one."""
    return Parallel(
        channels_in,
        {
            "3x3": [conv(channels_in, 192, 1), conv(192, 320, 3, stride=2, padding=0)],
            "7x7x3": [
                conv(channels_in, 192, 1),
                conv(192, 192, (1, 7)),
                conv(192, 192, (7, 1)),
                conv(192, 192, 3, stride=2, padding=0),
            ],
            "pool": [MaxPool(3, stride=2)],
        },
    )


def grid8(conv: MakeConv, channels_in: int) -> Parallel:
    """Figure 7: 1x3 and 3x1 convolutions side by side instead of one after the other."""

    def fork() -> Parallel:
        return Parallel(384, {"a": [conv(384, 384, (1, 3))], "b": [conv(384, 384, (3, 1))]})

    return Parallel(
        channels_in,
        {
            "1x1": [conv(channels_in, 320, 1)],
            "3x3": [conv(channels_in, 384, 1), fork()],
            "3x3dbl": [conv(channels_in, 448, 1), conv(448, 384, 3), fork()],
            "pool": [AvgPool(3, stride=1, padding=1), conv(channels_in, 192, 1)],
        },
    )


# Table 1 of the paper, with the names and widths of its authors' code.
MODULES: dict[str, Callable[[MakeConv, int], Parallel]] = {
    "5b": partial(grid35, behind_pool=32),
    "5c": partial(grid35, behind_pool=64),
    "5d": partial(grid35, behind_pool=64),
    "6a": reduce35,
    "6b": partial(grid17, inner=128),
    "6c": partial(grid17, inner=160),
    "6d": partial(grid17, inner=160),
    "6e": partial(grid17, inner=192),
    "7a": reduce17,
    "7b": grid8,
    "7c": grid8,
}


class AuxiliaryHead(nnx.Module):
    """The classifier of figure 8, on the last 17 x 17 feature map: means, two convolutions, the logits.

    Args:
        conv: makes a convolution from (channels_in, channels_out, window).
        channels_in: channels of the feature map.
        num_classes: number of logits.
        dtype: floating dtype of the logits; None means the dtype of x.
        rngs: where the stream "params" comes from.
    """

    def __init__(
        self,
        conv: MakeConv,
        channels_in: int,
        num_classes: int,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = conv(channels_in, 128, 1)
        # The authors' deviation. torchvision sets it on the block, where its initialisation does not look.
        self.conv2 = conv(128, 768, 5, padding=0, kernel_init=normal(0.01))
        self.output = nnx.Linear(768, num_classes, kernel_init=normal(0.001), dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch num_classes"]:
        """The logits of a batch of feature maps.

        Args:
            x: feature maps (batch, height, width, channels_in).

        Returns:
            Logits (batch, num_classes).

        Raises:
            ValueError: feature maps of less than 17 x 17.
        """
        if min(x.shape[1:3]) < 17:
            raise ValueError(
                "InceptionV3: the auxiliary classifier takes feature maps of 17 x 17 or more, so images of "
                f'299 x 299 or more, got a map of {x.shape[1]} x {x.shape[2]}; leave out the tap "aux"'
            )
        y = self.conv2(self.conv1(F.avg_pool(x, 5, stride=3)))
        return self.output(F.global_avg_pool(y))


class InceptionV3(Classifier):
    """Inception v3, as torchvision has it: 27,161,264 parameters.

    A stem of five convolutions and two poolings, eleven modules of parallel convolutions, the global mean, a
    linear classifier. Kernels are drawn with a standard deviation of 0.1. Published weights were trained on
    images of 299 x 299 pixels from -1 to 1; 75 x 75 is the least.

    With aux_heads there is one more classifier, on the module 6e, for images of 299 x 299 or more; without it
    the parameters are 23,834,568. The model still returns the main logits alone, in training too; a loss asks
    for both, with the weight of the authors' code:

        found = model.features(x, taps=("logits", "aux"))
        loss = cross_entropy(found["logits"], labels) + 0.4 * cross_entropy(found["aux"], labels)

    Args:
        modules: the name of each module and what makes it from (conv, channels_in), as in `MODULES`.
        aux_heads: whether to have the auxiliary classifier.
        dropout: rate of the Dropout before the logits; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: a size < 1, a rate outside [0, 1], aux_heads where there is no module 6e; when called,
            images of less than 75 x 75, or of less than 299 x 299 if the tap "aux" is asked for.
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> model = nnx.eval_shape(lambda: InceptionV3(rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 299, 331, 3))), model)
        >>> maps["mixed5d"].shape, maps["mixed6e"].shape, maps["mixed7c"].shape, maps["aux"].shape
        ((2, 35, 39, 288), (2, 17, 19, 768), (2, 8, 9, 2048), (2, 1000))
    """

    def __init__(
        self,
        modules: Mapping[str, Callable[[MakeConv, int], Parallel]] = MODULES,
        *,
        aux_heads: bool = True,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if aux_heads and "6e" not in modules:
            raise ValueError(
                "InceptionV3: the auxiliary classifier starts from the module 6e, so modules must have it, "
                f"got {', '.join(modules)}"
            )
        norm = partial(BatchNorm, eps=0.001)
        conv = partial(ConvNormAct, norm=norm, kernel_init=normal(0.1), rngs=rngs)
        self.conv1a = conv(in_channels, 32, 3, stride=2, padding=0)
        self.conv2a = conv(32, 32, 3, padding=0)
        self.conv2b = conv(32, 64, 3)
        self.conv3b = conv(64, 80, 1)
        self.conv4a = conv(80, 192, 3, padding=0)
        self.names = tuple(modules)
        self.mixed = nnx.List()
        current = 192
        for make in modules.values():
            self.mixed.append(make(conv, current))
            current = self.mixed[-1].channels_out
        if aux_heads:
            start = self.mixed[self.names.index("6e")].channels_out
            self.aux = AuxiliaryHead(conv, start, num_classes, dtype=self.dtype, rngs=rngs)
        else:
            self.aux = None
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = nnx.Linear(current, num_classes, kernel_init=normal(0.1), dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem's layers, mixed5b, mixed5c, ..., mixed7c, the global mean and the logits."""
        max_pool = partial(F.max_pool, window=3, stride=2)
        return [
            ("conv1a", self.conv1a),
            ("conv2a", self.conv2a),
            ("conv2b", self.conv2b),
            ("max_pool1", max_pool),
            ("conv3b", self.conv3b),
            ("conv4a", self.conv4a),
            ("max_pool2", max_pool),
            *[(f"mixed{name}", module) for name, module in zip(self.names, self.mixed, strict=True)],
            ("avg_pool", F.global_avg_pool),
            ("logits", self._logits),
        ]

    def branches(self) -> dict[str, Stage]:
        """aux, the logits of the auxiliary classifier."""
        return {} if self.aux is None else {"mixed6e": ("aux", self.aux)}

    def _logits(self, x: Array) -> Array:
        return self.output(x if self.dropout is None else self.dropout(x))
