"""A model as a pure function of its weights and images, and the checks that all of interpret shares."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxcnn.functional.checks import as_images
from jaxcnn.models.classifier import Classifier

Classes = ArrayLike | Sequence[int]
"""A class for each image: one int for all of them, or as many as there are images."""


def in_evaluation(function: str, model: Classifier) -> tuple[Any, Any]:
    """The graph and the state of a copy of a model in evaluation mode; no array is copied.

    The graph can be hashed: it is the static argument of a jitted function, which keeps its program from call
    to call; the weights are an ordinary one.

    Raises:
        TypeError: a model that is no classifier or is abstract, or whose graph cannot be hashed.
    """
    if not isinstance(model, Classifier):
        raise TypeError(
            f"{function}: model must be a jaxcnn classifier, which names its stages, got {type(model)}"
        )
    copy: Any = nnx.merge(*nnx.split(model))
    copy.eval()
    graph, state = nnx.split(copy)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
        raise TypeError(f"{function}: model must hold arrays, got an abstract model (nnx.eval_shape)")
    try:
        hash(graph)
    except TypeError as error:
        raise TypeError(
            f"{function}: model must hold attributes that can be hashed, such as a tuple in place of a list, "
            f"got one that cannot: {error}"
        ) from None
    return graph, state


def as_tap(function: str, model: Classifier, tap: str) -> str:
    """The name of a stage, or an error with the names there are."""
    if tap not in model.taps:
        raise ValueError(f"{function}: unknown tap {tap!r}; this model has {', '.join(model.taps)}")
    return tap


def as_classes(function: str, model: Classifier, classes: Classes, batch: int) -> Array:
    """One class for each image of a batch: an int for all of them, or as many as there are images.

    Those that jax.jit traces have no values to be checked yet: see `class_logits`.
    """
    traced = isinstance(classes, Tracer)
    wanted: Any = classes if traced else np.asarray(classes)
    if not np.issubdtype(wanted.dtype, np.integer):
        raise TypeError(f"{function}: classes must be integers, got {classes!r} of dtype {wanted.dtype}")
    if wanted.shape not in ((), (batch,)):
        raise ValueError(
            f"{function}: classes must be one int or have shape ({batch},), one for each image, "
            f"got shape {wanted.shape}"
        )
    if not traced and wanted.size and not (0 <= wanted.min() and wanted.max() < model.num_classes):
        raise ValueError(
            f"{function}: classes must be in [0, {model.num_classes}), got {wanted.min()} to {wanted.max()}"
        )
    return jnp.broadcast_to(jnp.asarray(wanted, jnp.int32), (batch,))


def as_batch(function: str, model: Classifier, x: ArrayLike) -> Array:
    """Images (batch, height, width, channels) in the model's dtype."""
    images = as_images(function, x, 2)
    if images.shape[-1] != model.in_channels:
        raise ValueError(
            f"{function}: x must have {model.in_channels} channels (its last axis), got shape {images.shape}"
        )
    return images.astype(model.dtype)


def spatial_taps(
    graphdef: Any, state: Any, x: jax.Array | jax.ShapeDtypeStruct, taps: Sequence[str]
) -> tuple[str, ...]:
    """Those of the taps that are maps (batch, height, width, channels) of x, by abstract evaluation."""
    found = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state).features(x, taps), state, x)
    return tuple(name for name, value in found.items() if value.ndim == 4)


def class_logits(logits: Array, classes: Array) -> Array:
    """The logit of each image's class: (batch, num_classes) and (batch,) to (batch,); nan if it has none."""
    is_class = (classes >= 0) & (classes < logits.shape[1])
    found = jnp.take_along_axis(logits, jnp.where(is_class, classes, 0)[:, None], axis=1)[:, 0]
    # As a factor, and not by jnp.where, a nan reaches the gradient too.
    return found * jnp.where(is_class, 1, jnp.nan).astype(logits.dtype)
