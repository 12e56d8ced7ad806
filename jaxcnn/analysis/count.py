"""Parameters and multiply-accumulates of a model, without an array being made."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from jaxcnn.functional.checks import as_int
from jaxcnn.lowering.explain import POOLS, explanation_of

CONVOLUTION = "conv_general_dilated"


def count_parameters(model: nnx.Module) -> int:
    """The number of trained values of a model, running statistics not among them.

    Args:
        model: a Flax NNX module, abstract (from nnx.eval_shape) or not.

    Returns:
        The sum of the sizes of its nnx.Param.

    Raises:
        TypeError: a model that is no nnx.Module.

    Example:
        >>> from jaxcnn import models
        >>> count_parameters(nnx.eval_shape(lambda: models.create_model("resnet50", rngs=nnx.Rngs(0))))
        25557032
    """
    check_module("count_parameters", "model", model)
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
        TypeError: a model that is no nnx.Module, a size that is no int.
        ValueError: a size < 1, or an x that the model refuses.

    Reference:
        The "GFLOPS" of torchvision's table of models, which are multiply-accumulates too.

    Example:
        >>> from jaxcnn import models
        >>> model = nnx.eval_shape(lambda: models.create_model("resnet50", rngs=nnx.Rngs(0)))
        >>> round(count_macs(model, (1, 224, 224, 3)) / 1e9, 3)
        4.089
    """
    check_module("count_macs", "model", model)
    shape = as_shape("count_macs", input_shape)
    graphdef, state = nnx.split(model)

    def logits(state: Any, x: jax.Array) -> Any:
        copy: Any = nnx.merge(graphdef, state)
        copy.eval()
        return copy(x)

    program = jax.make_jaxpr(logits)(state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(macs for _, macs in macs_of(program))


def check_module(function: str, name: str, model: nnx.Module) -> None:
    """Refuse a model that is no Flax NNX module."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"{function}: {name} must be a Flax NNX module, got {type(model).__name__}")


def as_shape(function: str, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of x as ints of at least 1."""
    if not isinstance(input_shape, Iterable):
        raise TypeError(
            f"{function}: input_shape must be the shape of x, with the batch, such as (1, 224, 224, 3), "
            f"got {input_shape!r}"
        )
    return tuple(as_int(function, "input_shape", size, minimum=1) for size in input_shape)


def macs_of(program: ClosedJaxpr) -> Iterator[tuple[str, int]]:
    """The named scopes around each convolution and matrix product of a traced program, and its MACs.

    What is inside a scan counts once for each of its steps, what is inside a while loop once.
    """
    rows = iter(explanation_of(program))  # in the same order
    for eqn, scopes, times in _equations(program.jaxpr):
        if eqn.primitive.name == CONVOLUTION or eqn.primitive.name in POOLS:
            yield scopes, (next(rows).macs or 0) * times
        elif eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            yield scopes, times * math.prod((*eqn.outvars[0].aval.shape, *(left[axis] for axis in summed)))


def inner_programs(eqn: Any) -> Iterator[Any]:
    """The programs among an equation's parameters, open or closed, alone or in a tuple (cond's branches)."""
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            program = getattr(part, "jaxpr", part)
            if hasattr(program, "eqns"):
                yield program


def _equations(jaxpr: Any, scopes: str = "", times: int = 1) -> Iterator[tuple[Any, str, int]]:
    for eqn in jaxpr.eqns:
        here = f"{scopes}/{eqn.source_info.name_stack}"
        yield eqn, here, times
        if eqn.primitive.name not in POOLS:
            steps = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            for program in inner_programs(eqn):
                yield from _equations(program, here, times * steps)
