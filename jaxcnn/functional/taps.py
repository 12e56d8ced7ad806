"""Sums of a few elements of an axis with fixed weights: a sparse matrix along one axis.

Its transpose is another such matrix. JAX would derive it as a scatter, which XLA:CPU does element by element;
hence a primitive of its own, which is linear and gives its gradient by the transposed taps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


class Taps(NamedTuple):
    """What each output element reads: rows of positions, rows of weights, and the size of the axis."""

    positions: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    size: int

    @property
    def transposed(self) -> "Taps":
        """For each element of the axis, the output elements that read it."""
        readers: list[dict[int, float]] = [{} for _ in range(self.size)]
        for output, row in enumerate(zip(self.positions, self.weights, strict=True)):
            for position, weight in zip(*row, strict=True):
                if weight:
                    readers[position][output] = readers[position].get(output, 0.0) + weight
        width = max(1, *map(len, readers))
        rows = [[*read.items(), *[(0, 0.0)] * (width - len(read))] for read in readers]
        positions = tuple(tuple(output for output, _ in row) for row in rows)
        return Taps(positions, tuple(tuple(weight for _, weight in row) for row in rows), len(self.positions))


def taps_of(positions: np.ndarray, weights: np.ndarray, size: int) -> Taps:
    """From tables (outputs, taps)."""
    return Taps(tuple(map(tuple, positions.tolist())), tuple(map(tuple, weights.tolist())), size)


def weighted_sum(x: Array, taps: Taps, *, axis: int) -> Array:
    """One axis replaced by sum_t x[positions[:, t]] * weights[:, t]; what has weight 0 is not read."""
    return weighted_sum_p.bind(x, taps=taps, axis=axis)


def _gathered(x: Array, *, taps: Taps, axis: int) -> Array:
    positions, weights = np.array(taps.positions, np.int32).T, np.array(taps.weights, x.dtype).T
    shape = (*x.shape[:axis], len(taps.positions), *x.shape[axis + 1 :])
    # The axes before are batch axes of the gather: then XLA leaves the axes of the result in their order.
    before, after = tuple(range(axis)), tuple(range(axis + 1, x.ndim))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=after,
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=before,
        start_indices_batching_dims=before,
    )

    def read(position: Any) -> Array:
        places = lax.broadcast_in_dim(position, (*shape[: axis + 1], 1), (axis,))
        return lax.gather(x, places, numbers, (1,) * (axis + 1) + x.shape[axis + 1 :], mode="clip")

    def product(position: Any, weight: Any) -> Array:
        weight = lax.broadcast_in_dim(weight, shape, (axis,))
        return jnp.where(weight != 0, read(position) * weight, 0)

    def add(total: Array, tap: tuple[Any, Any]) -> tuple[Array, None]:
        return total + product(*tap), None

    if len(weights) == 1 and (weights == 1).all():
        return read(positions[0])
    # Tap by tap: XLA:CPU gathers all taps at once forty times slower. Few of them become no loop at all.
    rest = jnp.asarray(positions[1:]), jnp.asarray(weights[1:])
    return lax.scan(add, product(positions[0], weights[0]), rest, unroll=8)[0]


weighted_sum_p = Primitive("weighted_sum")


@weighted_sum_p.def_impl
def _compiled(x: Any, *, taps: Taps, axis: int) -> Array:
    return jax.jit(_gathered, static_argnames=("taps", "axis"))(x, taps=taps, axis=axis)


@weighted_sum_p.def_abstract_eval
def _result(x: Any, *, taps: Taps, axis: int) -> Any:
    return x.update(shape=(*x.shape[:axis], len(taps.positions), *x.shape[axis + 1 :]), weak_type=False)


def _transposed(dy: Any, x: Any, *, taps: Taps, axis: int) -> list[Any]:
    return [weighted_sum_p.bind(dy, taps=taps.transposed, axis=axis)]


def _batched(xs: Sequence[Array], places: Sequence[int], *, taps: Taps, axis: int) -> tuple[Array, int]:
    (x,), (place,) = xs, places
    return weighted_sum_p.bind(x, taps=taps, axis=axis + (place <= axis)), place


ad.deflinear2(weighted_sum_p, _transposed)
batching.primitive_batchers[weighted_sum_p] = _batched
mlir.register_lowering(weighted_sum_p, mlir.lower_fun(_gathered, multiple_results=False))
