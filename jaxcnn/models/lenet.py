"""LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition")."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.nn import Conv


class LeNet5(Classifier):
    """LeNet-5 with the shapes of the paper's section II.B, for 32 x 32 images.

        C1 6@28x28 - S2 6@14x14 - C3 16@10x10 - S4 16@5x5 - C5 120@1x1 - F6 84 - logits

    Convolutions are 5x5, the subsamplings 2x2 means, the activation is the paper's f(a) = 1.7159 tanh(2a/3).
    Three things are simplified, as usual: C3 reads all of S2's maps (the paper's table I omits some), the
    subsamplings have no trained coefficient, and the output is linear instead of radial basis functions. With
    one input channel and 10 classes it has 61,706 parameters.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from.

    Raises:
        ValueError: num_classes or in_channels < 1; when called, images that are not 32 x 32.
        TypeError: a dtype that is not floating.

    Example:
        >>> maps = nnx.eval_shape(lambda: LeNet5(rngs=nnx.Rngs(0)).features(jnp.zeros((1, 32, 32, 1))))
        >>> maps["s2"].shape, maps["s4"].shape, maps["c5"].shape, maps["logits"].shape
        ((1, 14, 14, 6), (1, 5, 5, 16), (1, 1, 1, 120), (1, 10))
    """

    input_size = (32, 32)

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 1, dtype: DTypeLike | None = None, rngs: nnx.Rngs
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        self.c1 = Conv(in_channels, 6, 5, rngs=rngs)
        self.c3 = Conv(6, 16, 5, rngs=rngs)
        self.c5 = Conv(16, 120, 5, rngs=rngs)
        self.f6 = nnx.Linear(120, 84, dtype=self.dtype, rngs=rngs)
        self.output = nnx.Linear(84, num_classes, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The paper's layers, under its names."""
        return [
            ("c1", lambda x: _squash(self.c1(x))),
            ("s2", lambda x: F.avg_pool(x, 2)),
            ("c3", lambda x: _squash(self.c3(x))),
            ("s4", lambda x: F.avg_pool(x, 2)),
            ("c5", lambda x: _squash(self.c5(x))),
            ("f6", lambda x: _squash(self.f6(x.reshape(x.shape[0], 120)))),
            ("logits", self.output),
        ]


def _squash(a: Array) -> Array:
    """Appendix A of the paper: the constants make f(1) = 1 and f(-1) = -1."""
    return 1.7159 * jnp.tanh(2.0 / 3.0 * a)
