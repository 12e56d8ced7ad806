"""The train state: everything that a training step changes, as plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import PyTree

Merge = Callable[[Any, Any], nnx.Module]
"""merge(params, batch_stats) -> the model that holds them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a training step changes, a pytree of arrays.

    Attributes:
        step: the number of steps taken, an int32 scalar.
        params: the model's `nnx.Param` values, a nested dict.
        batch_stats: the model's `nnx.BatchStat` values (running means and variances), a nested dict.
        opt_state: the state of the optax optimizer.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree


def create_train_state(
    model: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[Merge, TrainState]:
    """Split a model into the function that rebuilds it and the state that training changes.

    The variables are split by type first, because a nested dict of arrays no longer knows which entry is a
    parameter. `merge` matches by position, so give it only dicts that came from this very model: its state
    after any number of steps, or a checkpoint restored with this state as the target.

    Args:
        model: any NNX module whose variables are `nnx.Param`, `nnx.BatchStat` and random keys.
        optimizer: an optax optimizer.

    Returns:
        merge, with merge(state.params, state.batch_stats) the model again, and the state at step 0.

    Raises:
        ValueError: the model holds a variable of another type, whose changes a training step would lose.

    Example:
        >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> merge, state = create_train_state(model, optax.sgd(0.1))
        >>> int(state.step), state.params["kernel"].shape
        (0, (3, 2))
        >>> merge(state.params, state.batch_stats)(jnp.ones((4, 3))).shape
        (4, 2)
    """
    graphdef, params, batch_stats, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    for path, variable in nnx.to_flat_state(rest):
        if not isinstance(variable, nnx.RngState):
            raise ValueError(
                f"create_train_state: model.{'.'.join(map(str, path))} is a variable of type "
                f"{type(variable).__name__}, expected nnx.Param, nnx.BatchStat or a random key"
            )
    params, batch_stats, random_keys = map(nnx.to_pure_dict, (params, batch_stats, rest))

    def merge(params: PyTree, batch_stats: PyTree) -> nnx.Module:
        return nnx.merge(graphdef, params, batch_stats, random_keys)

    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
    )
    return merge, state
