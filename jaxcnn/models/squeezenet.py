"""SqueezeNet: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters"."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage, choose
from jaxcnn.nn import Conv, Dropout

he_uniform = jax.nn.initializers.he_uniform()

# Channels and window of conv1, then the squeezed channels of the fire modules, with a max pooling before each
# group: table 1 of the paper, and its authors' later version, which pools earlier and costs less than half.
SQUEEZENETS: dict[str, tuple[int, int, tuple[tuple[int, ...], ...]]] = {
    "squeezenet1_0": (96, 7, ((16, 16, 32), (32, 48, 48, 64), (64,))),
    "squeezenet1_1": (64, 3, ((16, 16), (32, 32), (48, 48, 64, 64))),
}


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 one side by side, each with bias and relu.

        s = relu(squeeze(x)),    y = concatenate(relu(expand1x1(s)), relu(expand3x3(s)))

    Args:
        channels_in: channels of x.
        squeezed: channels of s; each of the two expanding convolutions has four times as many.
        rngs: where the stream "params" comes from.

    Reference:
        Section 3.2 of the paper.

    Example:
        >>> fire = nnx.eval_shape(lambda: Fire(8, 2, rngs=nnx.Rngs(0)))
        >>> nnx.eval_shape(lambda fire: fire(jnp.zeros((2, 5, 7, 8))), fire).shape
        (2, 5, 7, 16)
    """

    def __init__(self, channels_in: int, squeezed: int, *, rngs: nnx.Rngs):
        self.squeeze = Conv(channels_in, squeezed, 1, kernel_init=he_uniform, rngs=rngs)
        self.expand1x1 = Conv(squeezed, 4 * squeezed, 1, kernel_init=he_uniform, rngs=rngs)
        self.expand3x3 = Conv(squeezed, 4 * squeezed, 3, padding=1, kernel_init=he_uniform, rngs=rngs)

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height width channels_out"]:
        """Squeeze and expand x.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, height, width, 8 * squeezed).
        """
        s = nnx.relu(self.squeeze(x))
        return nnx.relu(jnp.concatenate([self.expand1x1(s), self.expand3x3(s)], axis=-1))


class SqueezeNet(Classifier):
    """A convolution, fire modules, max poolings, and a 1x1 convolution to one map for each class.

    The logits are the means of these maps, after a relu: there is no fully connected layer, and no logit is
    negative. Kernels are initialised by He's rule, uniformly on the fan-in, that of the last convolution with
    a standard deviation of 0.01, as in torchvision.

    Args:
        stem_channels: channels of the first convolution.
        stem_window: taps of the first convolution per spatial axis; its stride is 2.
        fires: the squeezed channels of the fire modules in groups, with a pooling before each group.
        dropout: rate of the Dropout before the last convolution; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: no fires or an empty group of them, a size < 1, a rate outside [0, 1]; when called, images
            that are too small.
        TypeError: a dtype that is not floating.

    Example:
        >>> tiny = nnx.eval_shape(lambda: SqueezeNet(8, 3, ((2,), (2, 4)), num_classes=5, rngs=nnx.Rngs(0)))
        >>> tiny.taps
        ('conv1', 'max_pool1', 'fire2', 'max_pool2', 'fire3', 'fire4', 'conv5', 'logits')
        >>> nnx.eval_shape(lambda model: model(jnp.zeros((2, 23, 16, 3))), tiny).shape
        (2, 5)
    """

    def __init__(
        self,
        stem_channels: int,
        stem_window: int,
        fires: Sequence[Sequence[int]],
        *,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if not fires or not all(fires):
            raise ValueError(f"SqueezeNet: fires must be groups of one int or more, got {fires}")
        self.stem = Conv(in_channels, stem_channels, stem_window, stride=2, kernel_init=he_uniform, rngs=rngs)
        self.groups = nnx.List()
        current = stem_channels
        for group in fires:
            self.groups.append(nnx.List())
            for squeezed in group:
                self.groups[-1].append(Fire(current, squeezed, rngs=rngs))
                current = 8 * squeezed
        self.dropout = Dropout(dropout, rngs=rngs) if dropout else None
        self.output = Conv(current, num_classes, 1, kernel_init=jax.nn.initializers.normal(0.01), rngs=rngs)

    def stages(self) -> list[Stage]:
        """conv1, max_pool1, fire2, ..., fire9, conv10, logits, numbered as in the paper's table 1.

        A pooling has the number of the module that it follows; conv10 are the maps of the classes.
        """
        stages: list[Stage] = [("conv1", lambda x: nnx.relu(self.stem(x)))]
        number = 1
        for group in self.groups:
            stages.append((f"max_pool{number}", lambda x: F.max_pool(x, 3, stride=2, ceil_mode=True)))
            for fire in group:
                number += 1
                stages.append((f"fire{number}", fire))
        return [*stages, (f"conv{number + 1}", self._class_maps), ("logits", F.global_avg_pool)]

    def _class_maps(self, x: Array) -> Array:
        return nnx.relu(self.output(x if self.dropout is None else self.dropout(x)))


def squeezenet(
    name: str,
    *,
    dropout: float = 0.5,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> SqueezeNet:
    """The network of the paper's table 1, or its cheaper successor, as torchvision has them.

    Args:
        name: a key of `SQUEEZENETS`, "squeezenet1_0" or "squeezenet1_1".
        dropout: rate of the Dropout before the last convolution; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        Iandola et al. 2016.

    Example:
        >>> model = nnx.eval_shape(lambda: squeezenet("squeezenet1_1", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 224, 224, 3))), model)
        >>> maps["conv1"].shape, maps["fire9"].shape, maps["conv10"].shape
        ((2, 111, 111, 64), (2, 13, 13, 512), (2, 13, 13, 1000))
    """
    stem_channels, stem_window, fires = choose("squeezenet", SQUEEZENETS, name)
    return SqueezeNet(
        stem_channels,
        stem_window,
        fires,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
