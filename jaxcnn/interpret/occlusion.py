"""What a class' logit loses when a part of the image is covered."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, PerAxis, is_number, per_axis, window_of
from jaxcnn.interpret.evaluation import Classes, as_batch, as_classes, class_logits, in_evaluation
from jaxcnn.models.classifier import Classifier

# Covered images that the model sees at once: enough to keep a processor busy, few enough for its memory.
TOGETHER = 32


def occlusion(
    model: Classifier,
    x: Float[AnyArray, "batch height width channels"],
    classes: Classes,
    *,
    window: PerAxis,
    stride: PerAxis,
    fill: float | int = 0.0,
) -> Float[Array, "batch rows columns"]:
    """How far a class' logit falls when a window of the image is covered.

        m[b, r, q] = logit(x[b]) - logit(x[b] with fill at [r * stride : r * stride + window,
                                                            q * stride : q * stride + window])

    for the logit of the image's class. No gradient is taken. Zeiler and Fergus draw the class' probability;
    the logit also tells differences where the probability has come near 0 or 1, and is what the gradients
    of this package explain.

    Args:
        model: a classifier; it is looked at in evaluation mode and stays as it is.
        x: images (batch, height, width, channels), prepared as the model takes them.
        classes: one int for all images, or integers (batch,).
        window: pixels covered, an int or (height, width).
        stride: pixels between two positions, an int or (rows, columns).
        fill: what covers; 0 is the mean colour where images are normalised.

    Returns:
        (batch, rows, columns) in logits, (height - window) // stride + 1 positions on an axis: positive where
        the window covered what speaks for the class.

    Raises:
        ValueError: a window larger than the image, a window or stride < 1, a fill that is no finite number,
            images that the model does not take, a class that it does not have.
        TypeError: an x that is not floating, classes, a window or a stride that are no ints.

    Reference:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013, section 4.2.

    Example:
        >>> from flax import nnx
        >>> from jaxcnn.models import create_model
        >>> model = create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))
        >>> occlusion(model, jnp.ones((2, 32, 32, 1)), 3, window=8, stride=(6, 12)).shape
        (2, 5, 3)
    """
    function = "occlusion"
    graph, state = in_evaluation(function, model)
    x = as_batch(function, model, x)
    classes = as_classes(function, model, classes, x.shape[0])
    window = window_of(function, x, window)
    stride = per_axis(function, "stride", stride, 2, minimum=1)
    if len(window) != 2 or any(w > n for w, n in zip(window, x.shape[1:3], strict=True)):
        raise ValueError(
            f"{function}: window must be at most height and width of x {x.shape}, got window={window}"
        )
    if not is_number(fill) or not math.isfinite(fill):
        raise ValueError(f"{function}: fill must be a finite Python number, got {fill!r}")
    cover = jnp.asarray(fill, x.dtype)
    return _occlusion(graph, window, stride, state, x, classes, cover)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _occlusion(
    graph: Any,
    window: tuple[int, int],
    stride: tuple[int, int],
    state: Any,
    x: Array,
    classes: Array,
    cover: Array,
) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = F.output_size((height, width), window, stride=stride)
    corners = np.indices((rows, columns)).reshape(2, -1).T * stride
    together = min(max(1, TOGETHER // max(batch, 1)), len(corners))
    chunks = -(-len(corners) // together)
    corners = np.resize(corners, (chunks, together, 2))  # starts again from the first to fill the last chunk

    def logit(x: Array, classes: Array) -> Array:
        return class_logits(nnx.merge(graph, state)(x), classes)

    def covered(corners: Array) -> Array:
        inside = [
            (corners[:, axis, None] <= jnp.arange(n)[None])
            & (jnp.arange(n)[None] < corners[:, axis, None] + window[axis])
            for axis, n in enumerate((height, width))
        ]
        hidden = (inside[0][:, :, None] & inside[1][:, None, :])[:, None, :, :, None]
        images = jnp.where(hidden, cover, x).reshape(together * batch, height, width, channels)
        return logit(images, jnp.tile(classes, together)).reshape(together, batch)

    logits = lax.map(covered, jnp.asarray(corners)).reshape(chunks * together, batch)[: rows * columns]
    return (logit(x, classes)[None] - logits).T.reshape(batch, rows, columns)
