"""Where a class is seen: the feature maps of one stage, weighted by what they mean for its logit."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray
from jaxcnn.interpret.evaluation import Classes, as_batch, as_classes, class_logits, in_evaluation
from jaxcnn.models.classifier import Classifier, chain


def grad_cam(
    model: Classifier,
    x: Float[AnyArray, "batch height width channels"],
    classes: Classes,
    *,
    tap: str,
) -> Float[Array, "batch height width"]:
    """Where in an image the feature maps of one stage speak for a class.

        m[b] = resize(relu(sum_k w[b, k] * A[b, :, :, k])),
        w[b, k] = mean_ij d logit[b, class[b]] / d A[b, i, j, k]

    with A the value of the stage `tap`. The last one with spatial axes is the usual choice: it says most
    about classes, and least about places.

    Args:
        model: a classifier; it is looked at in evaluation mode and stays as it is.
        x: images (batch, height, width, channels), prepared as the model takes them.
        classes: one int for all images, or integers (batch,).
        tap: the name of a stage whose value is a batch of maps, one of `model.taps`.

    Returns:
        (batch, height, width) of the images, no value negative, resized bilinearly and not normalised: in
        logits, as w[k] * A[k] is.

    Raises:
        ValueError: an unknown tap, one beside the chain of stages (an auxiliary classifier) or one without
            spatial axes, images that the model does not take, a class that it does not have.
        TypeError: an x that is not floating, classes that are no integers.

    Reference:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        2016, section 3.

    Example:
        >>> from flax import nnx
        >>> from jaxcnn.models import create_model
        >>> model = create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))
        >>> grad_cam(model, jnp.ones((2, 32, 32, 1)), [3, 8], tap="s4").shape
        (2, 32, 32)
    """
    function = "grad_cam"
    graph, state = in_evaluation(function, model)
    stages = [name for name, _ in model.stages()]
    if tap not in stages:
        kind = "a branch beside them" if tap in model.taps else "none of them"
        raise ValueError(
            f"{function}: tap must be a stage that the logits are made from, {', '.join(stages)}; "
            f"got {tap!r}, {kind}"
        )
    x = as_batch(function, model, x)
    classes = as_classes(function, model, classes, x.shape[0])
    return _grad_cam(function, graph, tap, state, x, classes)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _grad_cam(function: str, graph: Any, tap: str, state: Any, x: Array, classes: Array) -> Array:
    model = nnx.merge(graph, state)
    names, stages = zip(*model.stages(), strict=True)
    maps = model.features(x, (tap,))[tap]
    if maps.ndim != 4:
        raise ValueError(
            f"{function}: tap must be a stage with maps (batch, height, width, channels), "
            f"got {tap!r} of shape {maps.shape}"
        )
    after = stages[names.index(tap) + 1 :]
    gradient = jax.grad(lambda maps: class_logits(chain(after, maps), classes).sum())(maps)
    weights = gradient.mean(axis=(1, 2))
    evidence = jax.nn.relu(jnp.einsum("bk,bijk->bij", weights, maps))
    return F.resize(evidence[..., None], x.shape[1:3])[..., 0]
