"""Which known images a network sees as similar."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxcnn.functional.checks import AnyArray, as_int, widen
from jaxcnn.interpret.evaluation import as_batch, as_tap, in_evaluation
from jaxcnn.models.classifier import Classifier

BATCH = 64  # images in memory at a time; those of the last batch that are missing are zeros


def nearest_images(
    model: Classifier,
    x: Float[AnyArray, "batch height width in_channels"],
    images: Float[AnyArray, "images image_height image_width in_channels"],
    *,
    tap: str,
    count: int = 5,
) -> tuple[Int[Array, "batch count"], Float[Array, "batch count"]]:
    """The images whose features are nearest to those of x.

        distance(b, n) = |f(x_b) - f(images_n)|_2

    where f is the tap, its mean over space if it has spatial axes.

    The stage before the logits, such as "avg_pool", is the usual choice: two images are near there when they
    show the same things, though no pixel of the one is like that of the other. The mean over space makes it
    irrelevant where things are, and allows images of another size than x where the model does.

    Args:
        model: a classifier; it stays as it is and is looked at in evaluation mode.
        x: images (batch, height, width, in_channels), normalised as the model expects.
        images: the images to choose from, such as the training set, normalised likewise. They go through the
            model in batches, from where they are: a NumPy array is not copied as a whole.
        tap: the stage whose features are compared.
        count: how many of the images to return for each image of x.

    Returns:
        Indices into `images` and distances, both (batch, count), the nearest first; of equally near images
        the one with the smaller index.

    Raises:
        ValueError: an unknown tap, a count < 1 or larger than the number of images, images of another shape
            than the model takes.
        TypeError: a model that is no classifier, an x or images that are not floating.

    Reference:
        Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural
        Networks", figure 4.

    Example:
        >>> from jaxcnn import models
        >>> model = models.create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))
        >>> images = jax.random.normal(jax.random.key(0), (7, 32, 32, 1))
        >>> indices, distances = nearest_images(model, images[3:4] + 0.1, images, tap="f6", count=2)
        >>> indices.shape, int(indices[0, 0])
        ((1, 2), 3)
    """
    function = "nearest_images"
    graphdef, state = in_evaluation(function, model)
    tap = as_tap(function, model, tap)
    x = as_batch(function, model, x)
    _check_images(function, model, images)
    count = as_int(function, "count", count, minimum=1, maximum=len(images))
    of_x, of_images = _features(graphdef, state, x, tap), _features(graphdef, state, images, tap)
    return _nearest(of_x, of_images, count)


def _check_images(function: str, model: Classifier, images: AnyArray) -> None:
    if not isinstance(images, AnyArray):
        raise TypeError(f"{function}: images must be a JAX or NumPy array, got {type(images).__name__}")
    if images.ndim != 4 or images.shape[-1] != model.in_channels or 0 in images.shape:
        raise ValueError(
            f"{function}: images must have shape (images, height, width, {model.in_channels}), none of them "
            f"0, got shape {images.shape}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{function}: images must have a floating dtype, got {images.dtype}")


def _features(graphdef: Any, state: Any, images: AnyArray, tap: str) -> Array:
    """The features of all images; every batch has the same shape, so that one program serves them all."""
    size = max(1, min(BATCH, len(images)))
    batches = []
    for start in range(0, max(1, len(images)), size):  # no image is a batch of missing ones
        batch = images[start : start + size]
        missing = [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)]
        batches.append(_batch_features(graphdef, state, jnp.pad(batch, missing), tap)[: len(batch)])
    return jnp.concatenate(batches)


@partial(jax.jit, static_argnums=(0, 3))
def _batch_features(graphdef: Any, state: Any, images: Array, tap: str) -> Array:
    value = widen(nnx.merge(graphdef, state).features(images, (tap,))[tap])
    return value.mean(tuple(range(1, value.ndim - 1)))


@partial(jax.jit, static_argnums=2)
def _nearest(of_x: Array, of_images: Array, count: int) -> tuple[Array, Array]:
    def nearest(feature: Array) -> tuple[Array, Array]:
        # The differences themselves: |a|^2 - 2 ab + |b|^2 would lose the digits of small distances.
        distances = jnp.sqrt(((of_images - feature[None]) ** 2).sum(-1))
        found, indices = jax.lax.top_k(-distances, count)
        return indices, -found

    return jax.lax.map(nearest, of_x)
