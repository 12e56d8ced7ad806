"""The multilayer perceptron: the baseline that a CNN has to beat."""

import math
from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxcnn.functional.checks import as_int, per_axis
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.nn import Dropout


class MLP(Classifier):
    """Fully connected layers on the flattened pixels, a relu and optionally dropout after each hidden one.

    Args:
        hidden: the width of each hidden layer; () gives the linear classifier.
        dropout: rate of the dropout after each hidden layer; 0 means none.
        input_size: height and width of the images.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; the parameters are float32.
        rngs: where the stream "params" comes from, and "dropout" if dropout > 0.

    Raises:
        ValueError: a size or width < 1, a rate outside [0, 1]; when called, images of another size.
        TypeError: a dtype that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> model = MLP(hidden=(64,), input_size=(8, 8), num_classes=10, in_channels=1, rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((5, 8, 8, 1))).shape
        (5, 10)
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (512, 512),
        dropout: float = 0.0,
        input_size: tuple[int, int] = (28, 28),
        num_classes: int = 10,
        in_channels: int = 1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_classes=num_classes, in_channels=in_channels, dtype=dtype)
        height, width = per_axis("MLP", "input_size", input_size, 2, minimum=1)
        self.input_size = (height, width)
        widths = [as_int("MLP", "hidden", size, minimum=1) for size in hidden]
        sizes = [math.prod(self.input_size) * in_channels, *widths]
        self.hidden = nnx.List(
            nnx.Linear(
                fan_in, fan_out, kernel_init=jax.nn.initializers.he_normal(), dtype=self.dtype, rngs=rngs
            )
            for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.dropouts = nnx.List(Dropout(dropout, rngs=rngs) for _ in widths if dropout)
        self.output = nnx.Linear(sizes[-1], num_classes, dtype=self.dtype, rngs=rngs)

    def stages(self) -> list[Stage]:
        """The flattened pixels, hidden1, hidden2, ... and the logits."""
        hidden = [(f"hidden{i + 1}", partial(self._hidden, i)) for i in range(len(self.hidden))]
        return [("flatten", lambda x: x.reshape(x.shape[0], -1)), *hidden, ("logits", self.output)]

    def _hidden(self, i: int, x: Array) -> Array:
        y = jax.nn.relu(self.hidden[i](x))
        return self.dropouts[i](y) if self.dropouts else y
