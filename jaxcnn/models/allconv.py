"""All-CNN: Springenberg et al. 2014, "Striving for Simplicity: The All Convolutional Net"."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx
from jax.typing import DTypeLike

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage, chain
from jaxcnn.nn import Conv, Dropout


class AllConvNet(Classifier):
    """Nothing but convolutions and relus: All-CNN-C of the paper's tables 1 and 2, for 32 x 32 images.

        3x3, 3x3, 3x3 with stride 2    96 channels, 32x32 to 16x16
        3x3, 3x3, 3x3 with stride 2    192 channels, 16x16 to 8x8
        3x3 without padding, 1x1       192 channels, 6x6
        1x1                            one map for each class; its mean is the logit

    Convolutions of stride 2 stand in place of poolings, a mean in place of fully connected layers. The last
    convolution has its relu too, so no logit is negative. Three channels and 10 classes give 1,369,738
    parameters; larger images fit as well. Kernels are initialised by He's rule, on the fan-in.

    Args:
        channels: channels before each convolution of stride 2.
        input_dropout: rate of the Dropout on the images; 0 means none.
        dropout: rate of the Dropout after each convolution of stride 2; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if a rate is not 0.

    Raises:
        ValueError: no channels, a size < 1, a rate outside [0, 1]; when called, images that are too small.
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> model = nnx.eval_shape(lambda: AllConvNet(rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 32, 32, 3))), model)
        >>> maps["conv3"].shape, maps["conv6"].shape, maps["conv9"].shape, maps["logits"].shape
        ((2, 16, 16, 96), (2, 8, 8, 192), (2, 6, 6, 10), (2, 10))
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (96, 192),
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        num_classes: int = 10,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if not channels:
            raise ValueError("AllConvNet: channels must be one int or more, got none")
        conv = partial(Conv, kernel_init=jax.nn.initializers.he_normal(), rngs=rngs)
        self.convs = nnx.List()
        current = in_channels
        for width in channels:
            self.convs.append(conv(current, width, 3, padding=1))
            self.convs.append(conv(width, width, 3, padding=1))
            self.convs.append(conv(width, width, 3, stride=2, padding=1))
            current = width
        self.convs.append(conv(current, current, 3))
        self.convs.append(conv(current, current, 1))
        self.input_dropout = Dropout(input_dropout, rngs=rngs) if input_dropout else None
        self.dropouts = nnx.List(Dropout(dropout, rngs=rngs) for _ in channels if dropout)
        self.output = conv(current, num_classes, 1)

    def stages(self) -> list[Stage]:
        """conv1, conv2, ..., conv9, logits; conv9 are the maps of the classes."""
        stages: list[Stage] = []
        dropouts = iter(self.dropouts)
        for number, conv in enumerate([*self.convs, self.output], 1):
            before = self.input_dropout if number == 1 else None
            after = next(dropouts, None) if conv.stride == (2, 2) else None
            layers = [layer for layer in (before, conv, nnx.relu, after) if layer is not None]
            stages.append((f"conv{number}", partial(chain, layers)))
        return [*stages, ("logits", F.global_avg_pool)]
