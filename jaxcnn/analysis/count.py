"""Parameters and multiply-accumulates of a model, without an array being made."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcnn.functional.checks import as_int
from jaxcnn.lowering.explain import explanation_of


def count_parameters(model: nnx.Module) -> int:
    """The number of trained values of a model, running statistics not among them.

    Args:
        model: a Flax NNX module, abstract (from nnx.eval_shape) or not.

    Returns:
        The sum of the sizes of its nnx.Param.

    Example:
        >>> from jaxcnn import models
        >>> count_parameters(nnx.eval_shape(lambda: models.create_model("resnet50", rngs=nnx.Rngs(0))))
        25557032
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def count_macs(model: nnx.Module, input_shape: tuple[int, ...]) -> int:
    """The multiply-accumulates of a model's convolutions and matrix products, in evaluation.

        convolution:      images * positions of y * taps * (channels_in / groups) * channels_out
        fully connected:  rows * features_in * features_out

    Padding counts as any other value; normalisation, activation and pooling count as nothing.

    Args:
        model: a Flax NNX module, abstract (from nnx.eval_shape) or not; it stays as it is.
        input_shape: the shape of x, with the batch: (1, 224, 224, 3).

    Returns:
        The number of multiply-accumulates; a GMAC is 1e9 of them.

    Raises:
        ValueError: a size < 1, or an x that the model refuses.

    Reference:
        The "GFLOPS" of torchvision's table of models, which are multiply-accumulates too.

    Example:
        >>> from jaxcnn import models
        >>> model = nnx.eval_shape(lambda: models.create_model("resnet50", rngs=nnx.Rngs(0)))
        >>> round(count_macs(model, (1, 224, 224, 3)) / 1e9, 3)
        4.089
    """
    shape = tuple(as_int("count_macs", "input_shape", size, minimum=1) for size in input_shape)
    graphdef, state = nnx.split(model)

    def logits(state: Any, x: jax.Array) -> Any:
        copy: Any = nnx.merge(graphdef, state)
        copy.eval()
        return copy(x)

    program = jax.make_jaxpr(logits)(state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return explanation_of(program).macs + sum(_matrix_products(program.jaxpr))


def _matrix_products(jaxpr: Any) -> Iterator[int]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            yield math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in summed)
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _matrix_products(inner)
