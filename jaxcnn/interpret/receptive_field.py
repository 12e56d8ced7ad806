"""How far a unit really sees: the input pixels that its gradient reaches."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcnn.functional.checks import OneKey, as_int, as_keys, check_shape, per_axis, widen
from jaxcnn.interpret.evaluation import as_tap, in_evaluation, spatial_taps
from jaxcnn.models.classifier import Classifier


def effective_receptive_field(
    key: OneKey, model: Classifier, tap: str, *, shape: tuple[int, int], images: int = 32
) -> Float[Array, "height width"]:
    """The share that every pixel has in the gradient of a tap's central unit, over random images.

        field[i, j] = mean_n sum_c |d y_n / d x_n[i, j, c]| / Z        y_n = sum_k tap(x_n)[centre, k]

    where Z makes the sum over all pixels 1. The images x_n are standard normal noise, the centre of a map of
    height H and width W is (H // 2, W // 2), and the field is that of all its channels together. The
    theoretical receptive field counts all pixels alike that any path through the network reaches; most of the
    effective one lies in the middle, much like a Gaussian, because far more paths start there.

    Args:
        key: the random key that the images come from.
        model: a classifier; it stays as it is and is looked at in evaluation mode.
        tap: a spatial stage, one of `model.taps`.
        shape: height and width of the images in pixels.
        images: how many images the mean is taken over; one at a time is in memory.

    Returns:
        (height, width), not negative, with the sum 1; zeros if the unit depends on no pixel of any image, as
        a relu that is never active.

    Raises:
        ValueError: an unknown tap or one without spatial axes, a size or a number of images < 1.

    Reference:
        Luo, Li, Urtasun and Zemel 2016, "Understanding the Effective Receptive Field in Deep Convolutional
        Neural Networks", sections 2 and 3: a gradient of 1 at the centre, 0 elsewhere, propagated back.

    Example:
        >>> from jaxcnn import models
        >>> model = models.create_model("lenet5", rngs=nnx.Rngs(0))
        >>> field = effective_receptive_field(jax.random.key(0), model, "c1", shape=(32, 32), images=2)
        >>> rows = jnp.nonzero(field.sum(1))[0]  # a 5x5 kernel whose window begins at 28 // 2
        >>> field.shape, rows.tolist()
        ((32, 32), [14, 15, 16, 17, 18])
    """
    function = "effective_receptive_field"
    graphdef, state = in_evaluation(function, model)
    tap = as_tap(function, model, tap)
    height, width = per_axis(function, "shape", shape, 2, minimum=1)
    count = as_int(function, "images", images, minimum=1)
    key = as_keys(function, key)
    check_shape(function, "key", key, (), "one key")
    x = jax.ShapeDtypeStruct((1, height, width, model.in_channels), model.dtype)
    if not spatial_taps(graphdef, state, x, (tap,)):
        raise ValueError(f"{function}: tap must be a stage with spatial axes, got {tap!r}")
    return _field(graphdef, state, jax.random.split(key, count), tap, x.shape)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _field(graphdef: Any, state: Any, keys: Array, tap: str, shape: tuple[int, ...]) -> Array:
    def centre(x: Array) -> Array:
        maps = nnx.merge(graphdef, state).features(x, (tap,))[tap]
        return widen(maps[0, maps.shape[1] // 2, maps.shape[2] // 2]).sum()

    def influence(key: Array) -> Array:
        x = jax.random.normal(key, shape, nnx.merge(graphdef, state).dtype)
        return jnp.abs(widen(jax.grad(centre)(x)))[0].sum(-1)

    field = jax.lax.map(influence, keys).mean(0)
    total = field.sum()
    return field / jnp.where(total > 0, total, 1)
