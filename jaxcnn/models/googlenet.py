"""GoogLeNet: Szegedy et al. 2015, "Going Deeper with Convolutions"."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from string import ascii_lowercase
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage, chain
from jaxcnn.nn import BatchNorm, Conv, ConvNormAct, Dropout, MaxPool

# torchvision cuts this normal distribution at -2 and 2, two hundred standard deviations away.
small_normal = jax.nn.initializers.normal(0.01)

# Table 1 of the paper, the modules between two poolings on one line each: channels of the 1x1 branch, of the
# 3x3 branch's two convolutions, of the 5x5 branch's two, and of the convolution behind the pooling.
INCEPTIONS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Parallel(nnx.Module):
    """Several chains of layers on the same x, their results side by side in the channels.

    Args:
        channels_in: channels of x.
        branches: the name of each chain and its layers: convolutions, poolings, further `Parallel`s.

    Attributes:
        names: the names of the branches, in the order of their channels.
        channels_out: channels of the result.

    Example:
        >>> fork = Parallel(4, {"conv": [Conv(4, 8, 1, rngs=nnx.Rngs(0))], "pool": [MaxPool(1)]})
        >>> fork(jnp.zeros((2, 5, 7, 4))).shape, fork.channels_out
        ((2, 5, 7, 12), 12)
    """

    def __init__(self, channels_in: int, branches: Mapping[str, Sequence[Any]]):
        # Beside the list, because a Flax dict is sorted by its keys when it is merged.
        self.names = tuple(branches)
        self.branches = nnx.List(nnx.List(layers) for layers in branches.values())
        self.channels_out = sum(_channels_out(layers, channels_in) for layers in branches.values())

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Apply every branch to x.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, height_out, width_out, channels_out) of the size that the branches agree on.
        """
        return jnp.concatenate([chain(layers, jnp.asarray(x)) for layers in self.branches], axis=-1)


def _channels_out(layers: Sequence[Any], channels: int) -> int:
    for layer in layers:
        if isinstance(layer, Parallel):
            channels = layer.channels_out
        elif isinstance(layer, ConvNormAct | Conv):
            conv = layer.conv if isinstance(layer, ConvNormAct) else layer
            channels = conv.kernel.shape[-1]
    return channels


def inception(conv: Callable[..., ConvNormAct], channels_in: int, widths: Sequence[int]) -> Parallel:
    """The module of figure 2b, with a 3x3 convolution in place of the 5x5 one, as torchvision has it.

    Args:
        conv: makes a convolution from (channels_in, channels_out, window).
        channels_in: channels of x.
        widths: a row of `INCEPTIONS`.

    Returns:
        A module that keeps the size of its images.
    """
    conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, behind_pool = widths
    return Parallel(
        channels_in,
        {
            "1x1": [conv(channels_in, conv1x1, 1)],
            "3x3": [conv(channels_in, reduce3x3, 1), conv(reduce3x3, conv3x3, 3)],
            "5x5": [conv(channels_in, reduce5x5, 1), conv(reduce5x5, conv5x5, 3)],
            "pool": [MaxPool(3, stride=1, padding=1), conv(channels_in, behind_pool, 1)],
        },
    )


class AuxiliaryHead(nnx.Module):
    """The classifier that the paper's section 5 puts on an inner feature map while training.

    Means of 4 x 4 cells, a 1x1 convolution, a fully connected layer, dropout, the logits.

    Args:
        conv: makes a convolution from (channels_in, channels_out, window).
        channels_in: channels of the feature map.
        num_classes: number of logits.
        dropout: rate of the Dropout before the logits; 0 means none.
        dtype: floating dtype of the logits; None means the dtype of x.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.
    """

    def __init__(
        self,
        conv: Callable[..., ConvNormAct],
        channels_in: int,
        num_classes: int,
        *,
        dropout: float,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(channels_in, 128, 1)
        self.hidden = Conv(128, 1024, 4, kernel_init=small_normal, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = nnx.Linear(1024, num_classes, kernel_init=small_normal, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch num_classes"]:
        """The logits of a batch of feature maps.

        Args:
            x: feature maps (batch, height, width, channels_in).

        Returns:
            Logits (batch, num_classes).
        """
        y = self.conv(F.adaptive_avg_pool(x, 4))
        y = nnx.relu(self.hidden(y))[:, 0, 0]
        return self.output(y if self.dropout is None else self.dropout(y))


class GoogLeNet(Classifier):
    """GoogLeNet (Inception v1) with batch normalisation, as torchvision has it: 6,624,904 parameters.

    A stem of three convolutions, nine `inception` modules with poolings between them, the global mean, a
    linear classifier. Kernels are drawn with a standard deviation of 0.01. Published weights were trained on
    images from -1 to 1.

    With aux_heads there are two more classifiers, on the modules 4a and 4d, and 13,004,888 parameters. The
    model still returns the main logits alone, in training too; a loss asks for all three, with the paper's
    weight:

        found = model.features(x, taps=("logits", "aux1", "aux2"))
        main, aux1, aux2 = (cross_entropy(found[tap], labels) for tap in ("logits", "aux1", "aux2"))
        loss = main + 0.3 * (aux1 + aux2)

    Args:
        inceptions: six widths for each module, as in `INCEPTIONS`, in groups with a pooling between them.
        aux_heads: whether to have the auxiliary classifiers.
        dropout: rate of the Dropout before the logits; 0 means none.
        aux_dropout: rate of the Dropout in each auxiliary classifier; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if a rate is not 0.

    Raises:
        ValueError: a size < 1, a rate outside [0, 1], aux_heads where there are no modules 4a and 4d; when
            called, images of less than 15 x 15.
        TypeError: a dtype that is not floating.

    Example:
        >>> model = nnx.eval_shape(lambda: GoogLeNet(aux_heads=True, rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 224, 160, 3))), model)
        >>> maps["inception3b"].shape, maps["inception5b"].shape, maps["aux1"].shape
        ((2, 28, 20, 480), (2, 7, 5, 1024), (2, 1000))
    """

    def __init__(
        self,
        inceptions: Sequence[Sequence[Sequence[int]]] = INCEPTIONS,
        *,
        aux_heads: bool = False,
        dropout: float = 0.2,
        aux_dropout: float = 0.7,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if aux_heads and (len(inceptions) < 2 or len(inceptions[1]) < 4):
            raise ValueError(
                "GoogLeNet: auxiliary classifiers start from the modules 4a and 4d, so inceptions must have "
                f"4 modules or more in its second group, got groups of {[len(group) for group in inceptions]}"
            )
        norm = partial(BatchNorm, eps=0.001)
        conv = partial(ConvNormAct, norm=norm, kernel_init=small_normal, rngs=rngs)
        self.conv1 = conv(in_channels, 64, 7, stride=2)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.groups = nnx.List()
        current = 192
        for group in inceptions:
            self.groups.append(nnx.List())
            for widths in group:
                self.groups[-1].append(inception(conv, current, widths))
                current = self.groups[-1][-1].channels_out
        self.aux_heads = nnx.List(
            AuxiliaryHead(
                conv,
                self.groups[1][position].channels_out,
                num_classes,
                dropout=aux_dropout,
                dtype=self.dtype,
                rngs=rngs,
            )
            for position in ((0, 3) if aux_heads else ())
        )
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = nnx.Linear(current, num_classes, kernel_init=small_normal, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The stem's layers, inception3a, inception3b, max_pool3, ..., the global mean and the logits."""

        def max_pool(window: int) -> Callable[[Array], Array]:
            return lambda x: F.max_pool(x, window, stride=2, ceil_mode=True)

        stages: list[Stage] = [
            ("conv1", self.conv1),
            ("max_pool1", max_pool(3)),
            ("conv2", self.conv2),
            ("conv3", self.conv3),
            ("max_pool2", max_pool(3)),
        ]
        for number, group in enumerate(self.groups, 3):
            if number > 3:
                # The paper's table 1 has a 3x3 window everywhere; torchvision's fourth one is 2x2.
                stages.append((f"max_pool{number - 1}", max_pool(2 if number == 5 else 3)))
            modules = zip(ascii_lowercase, group, strict=False)
            stages += [(f"inception{number}{letter}", module) for letter, module in modules]
        return [*stages, ("avg_pool", F.global_avg_pool), ("logits", self._logits)]

    def branches(self) -> dict[str, Stage]:
        """aux1 and aux2, the logits of the auxiliary classifiers."""
        if not self.aux_heads:
            return {}
        first, second = self.aux_heads
        return {"inception4a": ("aux1", first), "inception4d": ("aux2", second)}

    def _logits(self, x: Array) -> Array:
        return self.output(x if self.dropout is None else self.dropout(x))
