"""Pooling and its gradients as folds over the taps of the window.

One tap of all windows is a strided slice of the padded x, and so

    y = op(op(x_0, x_1), x_2) ...,        x_t[j] = x[j * stride + t * dilation - low],

with the taps in row-major order, is one elementwise loop over slices.

The gradient of max pooling goes to the element that wins this fold by the rule "stay if greater or equal": of
equal elements to the first, after a NaN, which compares with nothing, to whatever comes next, and into the
padding where that wins as -inf. So does XLA's select_and_scatter, whose code for CPUs sorts the winners out
and adds them one by one. Here the number of the winning tap is written down for each window, and elements
r + stride * q of the padded x, for one remainder r (a phase) after the other, gather

    dx[r + stride * q] = sum_m (dy[q - m] if winner[q - m] == r + stride * m else 0)

from the few windows that read them; the phases are then interleaved. The gradient of a sum is another one,
of dy with zeros between its elements.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.arrays import divisor
from jaxcnn.lowering.convolution import Pairs

# Taps that are written out as one loop, and at all: beyond, compiling takes longer than it saves.
TOGETHER, TAPS = 16, 64
# Bytes of temporary arrays that are still worth a loop over the whole batch, and those of one block of images
# otherwise: they stay in the cache, and their memory is used again.
LARGE, BLOCK = 16 << 20, 4 << 20


@dataclass(frozen=True)
class Pooling:
    """One reduce_window or one derivative of it, over any axes of x; of each field one entry per axis."""

    kind: str  # the name of JAX's primitive
    size: tuple[int, ...]
    output: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    base_dilation: tuple[int, ...]
    of_maximum: bool = True  # where a derivative could be that of a minimum
    partitioned: bool = False  # XLA divides the arrays over devices: loops over images would gather them

    @property
    def taps(self) -> int:
        """The number of elements of the window."""
        return math.prod(self.window)

    @property
    def padded(self) -> tuple[int, ...]:
        """The size of x with its padding."""
        return tuple(n + low + high for n, (low, high) in zip(self.size, self.padding, strict=True))

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(map(any, self.padding))

    @property
    def sharing(self) -> tuple[int, ...]:
        """Windows that can read one element, per axis."""
        return tuple(-(-w // s) for w, s in zip(self.window, self.stride, strict=True))

    @property
    def temporaries(self) -> int:
        """Bytes, in float32, of what is written on the way."""
        copy = 4 * math.prod(self.padded) if self.is_padded else 0
        shared = self.kind == "select_and_scatter_add" and max(self.sharing) > 1
        return copy + (10 * math.prod(self.output) if shared else 0)


class Choice(NamedTuple):
    """A rewrite of a kind of pooling, and why it is taken."""

    name: str
    rewrite: Callable[..., Array]
    reason: str


def pooling_of(
    kind: str, avals_in: Sequence[Any], aval_out: Any, params: Mapping[str, Any], *, partitioned: bool = False
) -> Pooling:
    """What an equation of the primitive named `kind` does, from its operands, result and parameters."""
    x = avals_in[-1]  # the gradient of a maximum has dy before it
    ones = (1,) * len(x.shape)
    return Pooling(
        kind=kind,
        size=tuple(x.shape),
        output=tuple((avals_in[0] if kind == "select_and_scatter_add" else aval_out).shape),
        window=tuple(params["window_dimensions"]),
        stride=tuple(params["window_strides"]),
        padding=tuple((low, high) for low, high in params["padding"]),
        dilation=tuple(params.get("window_dilation", ones)),
        base_dilation=tuple(params.get("base_dilation", ones)),
        of_maximum=params.get("select_prim", lax.ge_p) is lax.ge_p,
        partitioned=partitioned,
    )


def choose(pooling: Pooling) -> Choice | None:
    """The rewrite for this pooling; None where XLA's own is not slower, or nothing else is known."""
    unusual = max(pooling.base_dilation) > 1 or not pooling.of_maximum or min(map(min, pooling.padding)) < 0
    only_last = all(w == 1 for w in pooling.window[:-1])  # single channels of a vector: shifted ones are slow
    one_window = all(n == 1 for n, w in zip(pooling.output, pooling.window, strict=True) if w > 1)
    if unusual or (pooling.kind == "reduce_window_sum" and (only_last or one_window)):
        return None
    fits = pooling.taps <= TAPS if pooling.kind == "select_and_scatter_add" else sum(pooling.window) <= TAPS
    return CHOICES.get(pooling.kind) if fits else None


def lower(pooling: Pooling, *operands: Array) -> Array:
    """The operands of the equation pooled as `choose` says."""
    choice = choose(pooling)
    assert choice is not None
    untouched = pooling.window[0] == pooling.stride[0] == 1 and pooling.padding[0] == (0, 0)
    batch = pooling.size[0]
    if pooling.partitioned or not untouched or pooling.temporaries <= LARGE:
        return choice.rewrite(pooling, *operands)
    images = divisor(batch, max(1, BLOCK * batch // pooling.temporaries))
    part = replace(pooling, size=(images, *pooling.size[1:]), output=(images, *pooling.output[1:]))
    blocks = [a.reshape(batch // images, images, *a.shape[1:]) for a in operands]
    # Without the barrier a block's slice out of the batch becomes part of every slice of the taps.
    y = lax.map(lambda block: choice.rewrite(part, *lax.optimization_barrier(block)), tuple(blocks))
    return y.reshape(batch, *y.shape[2:])


def _fold(pooling: Pooling, x: Array, *, op: Callable[[Array, Array], Array], start: float) -> Array:
    x = _padded(pooling, x, start)
    axes = [
        axis
        for axis, (w, s) in enumerate(zip(pooling.window, pooling.stride, strict=True))
        if (w, s) != (1, 1)
    ]
    # A large window is folded axis by axis, the last one first: w + w slices in place of w * w.
    for part in [axes] if pooling.taps <= TOGETHER else [[axis] for axis in reversed(axes)]:
        window, stride, output = [1] * x.ndim, [1] * x.ndim, [*x.shape]
        for axis in part:
            window[axis], stride[axis] = pooling.window[axis], pooling.stride[axis]
            output[axis] = pooling.output[axis]
        taps = itertools.product(*map(range, window))
        x = lax.optimization_barrier(
            reduce(op, (_strided(x, _place(pooling, tap), output, stride) for tap in taps))
        )
    return x


def _gradient(pooling: Pooling, dy: Array, x: Array) -> Array:
    winner = _winner(pooling, x)
    sharing = pooling.sharing
    # Elements of each phase: they reach from the first of the padded x to the last of x itself.
    counts = [
        -(-(low + n) // s)
        for n, s, (low, _) in zip(pooling.size, pooling.stride, pooling.padding, strict=True)
    ]
    around = [(m - 1, count - n, 0) for m, count, n in zip(sharing, counts, pooling.output, strict=True)]
    dy = lax.pad(dy, np.zeros((), dy.dtype), around)
    winner = lax.pad(winner, np.array(-1, winner.dtype), around)
    phases = [
        _phase(pooling, remainders, counts, dy, winner)
        for remainders in itertools.product(*map(range, pooling.stride))
    ]
    for axis in reversed(range(dy.ndim)):
        phases = _interleaved(phases, pooling.stride[axis], axis)
    start = [low for low, _ in pooling.padding]
    return _strided(phases[0], start, pooling.size, (1,) * x.ndim)


def _winner(pooling: Pooling, x: Array) -> Array:
    """The number of the tap that wins each window."""
    x = _padded(pooling, x, -np.inf)
    slices = [
        _strided(x, _place(pooling, tap), pooling.output, pooling.stride)
        for tap in itertools.product(*map(range, pooling.window))
    ]
    largest, winner = slices[0], jnp.zeros(pooling.output, np.int8)
    for number, element in enumerate(slices[1:], 1):
        stays = largest >= element
        largest = jnp.where(stays, largest, element)
        winner = jnp.where(stays, winner, np.int8(number))
    return winner


def _phase(
    pooling: Pooling, remainders: tuple[int, ...], counts: Sequence[int], dy: Array, winner: Array
) -> Array:
    """The gradient of the elements at `remainders` + stride * q."""
    total = jnp.zeros(counts, dy.dtype)
    for back in itertools.product(*map(range, pooling.sharing)):
        tap = [r + s * m for r, s, m in zip(remainders, pooling.stride, back, strict=True)]
        if any(t >= w for t, w in zip(tap, pooling.window, strict=True)):
            continue
        start = [n - 1 - m for n, m in zip(pooling.sharing, back, strict=True)]
        from_window, won = (_strided(a, start, counts, (1,) * dy.ndim) for a in (dy, winner))
        number = np.ravel_multi_index(tap, pooling.window)
        total = total + jnp.where(won == np.int8(number), from_window, 0)
    return total


def _interleaved(phases: list[Array], period: int, axis: int) -> list[Array]:
    """Each run of `period` arrays as one: array r of a run holds every period-th element from r on."""
    if period == 1:
        return phases
    runs = [phases[first : first + period] for first in range(0, len(phases), period)]
    return [jnp.stack(run, axis + 1).reshape(*_with(run[0].shape, axis, period)) for run in runs]


def _with(shape: tuple[int, ...], axis: int, times: int) -> tuple[int, ...]:
    return (*shape[:axis], shape[axis] * times, *shape[axis + 1 :])


def _padded(pooling: Pooling, x: Array, value: float) -> Array:
    """The padded x: written once, so that the taps read it without a test at the edges."""
    if not pooling.is_padded:
        return x
    config = [(low, high, 0) for low, high in pooling.padding]
    return lax.optimization_barrier(lax.pad(x, np.array(value, x.dtype), config))


def _place(pooling: Pooling, tap: Sequence[int]) -> tuple[int, ...]:
    """Where in the padded x the tap of the first window lies."""
    return tuple(t * d for t, d in zip(tap, pooling.dilation, strict=True))


def _strided(x: Array, start: Sequence[int], count: Sequence[int], stride: Sequence[int]) -> Array:
    """`count` elements of every axis, `stride` apart."""
    limit = [first + (n - 1) * s + 1 for first, n, s in zip(start, count, stride, strict=True)]
    return lax.slice(x, start, limit, stride)


CHOICES = {
    "reduce_window_max": Choice(
        "shifted maxima",
        partial(_fold, op=lax.max, start=-np.inf),
        "one elementwise loop over shifted slices, where XLA has a loop over the window inside",
    ),
    "reduce_window_sum": Choice(
        "shifted sums",
        partial(_fold, op=lax.add, start=0.0),
        "one elementwise loop over shifted slices, where XLA has a scalar one",
    ),
    "select_and_scatter_add": Choice(
        "winning taps",
        _gradient,
        "every element gathers from the windows it wins, where XLA scatters one by one",
    ),
}
"""By the name of JAX's primitive; forward-mode derivatives (select_and_gather_add) are left to XLA."""
