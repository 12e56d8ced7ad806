"""What the stages of a network make of an image, and the filters that look at it first."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray
from jaxcnn.interpret.evaluation import as_batch, as_tap, in_evaluation, spatial_taps
from jaxcnn.models.classifier import Classifier


def feature_maps(
    model: Classifier,
    x: Float[AnyArray, "batch height width in_channels"],
    taps: Sequence[str] | None = None,
) -> dict[str, Array]:
    """The values of a model's stages on images, in evaluation mode.

        maps[tap][b, i, j, c] = what channel c of the stage says about the surroundings of (i, j) in image b

    Args:
        model: a classifier; it stays as it is.
        x: images (batch, height, width, in_channels), normalised as the model expects.
        taps: names of stages, a subset of `model.taps`; None means those with spatial axes that the logits
            are made from.

    Returns:
        A dict from name to (batch, height, width, channels), or (batch, features) for a stage without spatial
        axes that was named, in the order of the model.

    Raises:
        ValueError: an unknown name, images of another shape than the model takes, taps None for a model that
            has no spatial stage.
        TypeError: a model that is no classifier, an x that is not floating, taps that are one str.

    Reference:
        Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks".

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxcnn import models
        >>> model = models.create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))
        >>> maps = feature_maps(model, jnp.zeros((1, 32, 32, 1)))
        >>> {tap: value.shape for tap, value in maps.items()}
        {'c1': (1, 28, 28, 6), 's2': (1, 14, 14, 6), 'c3': (1, 10, 10, 16),
         's4': (1, 5, 5, 16), 'c5': (1, 1, 1, 120)}
    """
    function = "feature_maps"
    graphdef, state = in_evaluation(function, model)
    images = as_batch(function, model, x)
    if isinstance(taps, str):
        raise TypeError(f"{function}: taps must be a tuple of names, such as ({taps!r},), got {taps!r}")
    if taps is None:
        # Without the branches: an auxiliary classifier may refuse an image that the chain takes.
        wanted = spatial_taps(graphdef, state, images, [name for name, _ in model.stages()])
        if not wanted:
            raise ValueError(
                f"{function}: this model has no stage with spatial axes; taps must name some of "
                f"{', '.join(model.taps)}, got None"
            )
    else:
        wanted = tuple(as_tap(function, model, tap) for tap in taps)
    found = _features(graphdef, state, images, wanted)
    return {tap: found[tap] for tap in model.taps if tap in found}  # jit has sorted them by name


def first_filters(model: Classifier) -> Float[Array, "window_height window_width in_channels filters"]:
    """The kernel of the convolution that a model runs first: filters that can be looked at as small images.

    Args:
        model: a classifier.

    Returns:
        (height, width, in_channels, filters), in_channels of one group if the convolution has several.

    Raises:
        ValueError: a model without a convolution, as an MLP.
        TypeError: a model that is no classifier.

    Reference:
        Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural
        Networks", figure 3.

    Example:
        >>> from jaxcnn import models
        >>> first_filters(models.create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))).shape
        (5, 5, 1, 6)
    """
    function = "first_filters"
    copy: Any = nnx.clone(nnx.merge(*in_evaluation(function, model)))  # with variables of its own
    read: list[Array] = []

    def remember(_: Any, kernel: Array) -> Array:
        read.append(kernel)
        return kernel

    # The graph lists layers by name, not in the order in which they run: a hook tells which kernel is read
    # first when the copy is evaluated, abstractly and no further than that.
    for _, node in nnx.iter_graph(copy):
        if isinstance(node, nnx.Param) and node.ndim == 4:
            node.set_metadata(on_get_value=remember)
    x = jax.ShapeDtypeStruct((1, *(model.input_size or (224, 224)), model.in_channels), model.dtype)
    for tap in model.taps:
        jax.eval_shape(partial(copy.features, taps=(tap,)), x)
        if read:
            return read[0]
    raise ValueError(f"{function}: model must have a convolution, this {type(model).__name__} has none")


@partial(jax.jit, static_argnums=(0, 3))
def _features(graphdef: Any, state: Any, x: Array, taps: tuple[str, ...]) -> dict[str, Array]:
    return nnx.merge(graphdef, state).features(x, taps)
