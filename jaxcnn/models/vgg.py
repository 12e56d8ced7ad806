"""VGG: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"."""

from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.models.classifier import Classifier, Stage, choose
from jaxcnn.nn import BatchNorm, Conv, Dropout
from jaxcnn.nn.blocks import he_fan_out

small_normal = jax.nn.initializers.normal(0.01)

# The paper's table 1, columns A, B, D and E: convolutions before each pooling, with these channels.
CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}

# Depths, and whether a batch normalisation follows each convolution (Ioffe and Szegedy 2015).
VGGS: dict[str, tuple[tuple[int, ...], bool]] = {
    **{name: (depths, False) for name, depths in DEPTHS.items()},
    **{f"{name}_bn": (depths, True) for name, depths in DEPTHS.items()},
}


class VGGLayer(nnx.Module):
    """A 3x3 convolution with bias, a batch normalisation where there is one, a relu.

    Args:
        channels_in: channels of x.
        channels_out: channels of the result.
        batch_norm: whether there is a batch normalisation.
        rngs: where the stream "params" comes from.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = nnx.eval_shape(lambda: VGGLayer(3, 8, batch_norm=True, rngs=nnx.Rngs(0)))
        >>> nnx.eval_shape(lambda layer: layer(jnp.zeros((2, 5, 7, 3))), layer).shape
        (2, 5, 7, 8)
    """

    def __init__(self, channels_in: int, channels_out: int, *, batch_norm: bool = False, rngs: nnx.Rngs):
        self.conv = Conv(channels_in, channels_out, 3, padding=1, kernel_init=he_fan_out, rngs=rngs)
        self.norm = BatchNorm(channels_out) if batch_norm else None

    def __call__(
        self, x: Float[AnyArray, "batch height width channels_in"]
    ) -> Float[Array, "batch height width channels_out"]:
        """Apply the layer.

        Args:
            x: images (batch, height, width, channels_in).

        Returns:
            Images (batch, height, width, channels_out).
        """
        y = self.conv(x)
        return nnx.relu(y if self.norm is None else self.norm(y))


class VGG(Classifier):
    """Groups of 3x3 convolutions, each with a max pooling behind it, two fully connected layers, the logits.

    The feature maps are averaged to 7 x 7 before the fully connected layers, so images of any size fit that
    the poolings can halve, from 32 x 32 for the paper's five; at 224 x 224 the maps have that size.
    Convolutions are initialised by He's rule, on the fan-out, fully connected layers with a standard
    deviation of 0.01, as in torchvision.

    Args:
        depths: number of convolutions in each group.
        channels: channels of each group.
        batch_norm: whether a batch normalisation stands between each convolution and its relu.
        hidden: channels of both fully connected layers.
        dropout: rate of the Dropout after each of the two; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: depths and channels of different lengths, a size < 1, a rate outside [0, 1]; when called,
            images that are too small.
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> tiny = nnx.eval_shape(lambda: VGG((1, 2), (8, 16), hidden=32, num_classes=5, rngs=nnx.Rngs(0)))
        >>> tiny.taps
        ('conv1_1', 'max_pool1', 'conv2_1', 'conv2_2', 'max_pool2', 'fc3', 'fc4', 'logits')
        >>> nnx.eval_shape(lambda model: model(jnp.zeros((2, 12, 8, 3))), tiny).shape
        (2, 5)
    """

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int] = CHANNELS,
        *,
        batch_norm: bool = False,
        hidden: int = 4096,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(depths) != len(channels) or not depths or min(depths) < 1:
            raise ValueError(
                "VGG: depths and channels must have one positive int for each group, "
                f"got depths={tuple(depths)}, channels={tuple(channels)}"
            )
        self.groups = nnx.List()
        current = in_channels
        for depth, width in zip(depths, channels, strict=True):
            layers = nnx.List()
            for _ in range(depth):
                layers.append(VGGLayer(current, width, batch_norm=batch_norm, rngs=rngs))
                current = width
            self.groups.append(layers)
        # On the whole map: a fully connected layer.
        self.hidden1 = Conv(current, hidden, 7, kernel_init=small_normal, rngs=rngs)
        self.hidden2 = nnx.Linear(hidden, hidden, kernel_init=small_normal, dtype=self.dtype, rngs=rngs)
        self.dropouts = nnx.List(Dropout(dropout, rngs=rngs) for _ in range(2) if dropout)
        self.output = nnx.Linear(hidden, num_classes, kernel_init=small_normal, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """conv1_1, ..., max_pool1, conv2_1, ..., max_pool5, fc6, fc7, logits, all after their relu.

        The fully connected layers are numbered on from the groups, so they are fc6 and fc7 in the paper's.
        """
        stages: list[Stage] = []
        for i, layers in enumerate(self.groups, 1):
            stages += [(f"conv{i}_{j}", layer) for j, layer in enumerate(layers, 1)]
            stages.append((f"max_pool{i}", lambda x: F.max_pool(x, 2)))
        number = len(self.groups) + 1
        return [
            *stages,
            (f"fc{number}", lambda x: self._hidden(0, self.hidden1(F.adaptive_avg_pool(x, 7))[:, 0, 0])),
            (f"fc{number + 1}", lambda x: self._hidden(1, self.hidden2(x))),
            ("logits", self.output),
        ]

    def _hidden(self, i: int, x: Array) -> Array:
        y = nnx.relu(x)
        return self.dropouts[i](y) if self.dropouts else y


def vgg(
    name: str,
    *,
    dropout: float = 0.5,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> VGG:
    """A network of the paper's table 1, with or without batch normalisation, as torchvision has it.

    Args:
        name: a key of `VGGS`, such as "vgg16" or "vgg16_bn".
        dropout: rate of the Dropout after each of the two fully connected layers; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, a rate outside [0, 1].

    Reference:
        Simonyan and Zisserman 2014.

    Example:
        >>> import jax.numpy as jnp
        >>> model = nnx.eval_shape(lambda: vgg("vgg11", rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 224, 224, 3))), model)
        >>> maps["conv1_1"].shape, maps["max_pool5"].shape, maps["fc7"].shape
        ((2, 224, 224, 64), (2, 7, 7, 512), (2, 4096))
    """
    depths, batch_norm = choose("vgg", VGGS, name)
    return VGG(
        depths,
        batch_norm=batch_norm,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
