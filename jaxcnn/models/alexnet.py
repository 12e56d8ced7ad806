"""AlexNet: Krizhevsky, Sutskever and Hinton 2012, in the version of Krizhevsky 2014, "One weird trick"."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.nn import Conv, Dropout

# Section 5 of the 2012 paper.
small_normal = jax.nn.initializers.normal(0.01)


class AlexNet(Classifier):
    """Five convolutions with three max poolings, two fully connected layers, a linear classifier.

    This is the network of "One weird trick for parallelizing convolutional neural networks", as torchvision
    has it: a single column of 61,100,840 parameters, without the local response normalisation of 2012.
    Feature maps are averaged to 6 x 6 before the fully connected layers, so images of any size from 63 x 63
    fit; at 224 x 224 the maps have that size.

    Kernels are drawn with a standard deviation of 0.01. Biases of the second, fourth and fifth convolution
    and of the fully connected layers before the classifier begin as ones, so that their relus pass something
    on (section 5 of the 2012 paper).

    Args:
        channels: channels of the five convolutions.
        hidden: channels of both fully connected layers.
        dropout: rate of the Dropout before each of the two; 0 means none.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: channels that are not five, a size < 1, a rate outside [0, 1]; when called, images that
            are too small.
        TypeError: a dtype that is not floating.

    Reference:
        Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"; Krizhevsky,
        Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

    Example:
        >>> model = nnx.eval_shape(lambda: AlexNet(rngs=nnx.Rngs(0)))  # allocates nothing
        >>> maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 224, 224, 3))), model)
        >>> maps["conv1"].shape, maps["max_pool5"].shape, maps["fc7"].shape
        ((2, 55, 55, 64), (2, 6, 6, 256), (2, 4096))
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        if len(channels) != 5:
            raise ValueError(f"AlexNet: channels must be 5 ints, got {tuple(channels)}")
        c1, c2, c3, c4, c5 = channels
        self.conv1 = Conv(in_channels, c1, 11, stride=4, padding=2, kernel_init=small_normal, rngs=rngs)
        self.conv2 = Conv(c1, c2, 5, padding=2, kernel_init=small_normal, rngs=rngs)
        self.conv3 = Conv(c2, c3, 3, padding=1, kernel_init=small_normal, rngs=rngs)
        self.conv4 = Conv(c3, c4, 3, padding=1, kernel_init=small_normal, rngs=rngs)
        self.conv5 = Conv(c4, c5, 3, padding=1, kernel_init=small_normal, rngs=rngs)
        # On the whole map: a fully connected layer.
        self.fc6 = Conv(c5, hidden, 6, kernel_init=small_normal, rngs=rngs)
        self.fc7 = nnx.Linear(hidden, hidden, kernel_init=small_normal, dtype=self.dtype, rngs=rngs)
        for layer in (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7):
            layer.bias = nnx.Param(jnp.ones(layer.kernel.shape[-1], jnp.float32))
        self.dropouts = nnx.List(Dropout(dropout, rngs=rngs) for _ in range(2) if dropout)
        self.output = nnx.Linear(hidden, num_classes, kernel_init=small_normal, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """conv1, max_pool1, conv2, max_pool2, conv3, conv4, conv5, max_pool5, fc6, fc7, logits."""
        return [
            ("conv1", lambda x: nnx.relu(self.conv1(x))),
            ("max_pool1", _max_pool),
            ("conv2", lambda x: nnx.relu(self.conv2(x))),
            ("max_pool2", _max_pool),
            ("conv3", lambda x: nnx.relu(self.conv3(x))),
            ("conv4", lambda x: nnx.relu(self.conv4(x))),
            ("conv5", lambda x: nnx.relu(self.conv5(x))),
            ("max_pool5", _max_pool),
            ("fc6", lambda x: nnx.relu(self.fc6(self._drop(0, F.adaptive_avg_pool(x, 6)))[:, 0, 0])),
            ("fc7", lambda x: nnx.relu(self.fc7(self._drop(1, x)))),
            ("logits", self.output),
        ]

    def _drop(self, i: int, x: Array) -> Array:
        return self.dropouts[i](x) if self.dropouts else x


def _max_pool(x: Array) -> Array:
    """Windows that overlap (section 3.4 of the 2012 paper)."""
    return F.max_pool(x, 3, stride=2)
