"""Receptive fields and strides of every value of a traced program.

For each spatial axis of x let j be the distance, in elements of x, of two neighbours in a value (its stride),
and r the distance of the first and the last element of x that can change one of its elements (its reach, the
receptive field minus 1). A window of k taps that are `dilation` apart, moved by `stride`, gives

    r <- r + (k - 1) * dilation * j        j <- j * stride

(Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", equations 1 and
2). A transposed convolution first puts zeros between the elements, j <- j / stride. Where values meet, the
largest reach counts. What cannot be followed through an equation counts as the whole image, so that a field
is an upper bound, but for one thing: where a value lies is not followed, so that what slices, pads or a roll
have shifted against each other (x[:, 1:] - x[:, :-1]) counts as if it lay in the same place.
"""

import math
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.analysis.count import CONVOLUTION, inner_programs


class View(NamedTuple):
    """How a value sees one spatial axis of x."""

    axis: int | None
    """The value's axis that runs along it, if there is one."""
    reach: Fraction | float
    """From the first to the last element that is seen, in elements of x; inf is the whole image."""
    stride: Fraction | float
    near: Fraction | float = Fraction(0)
    grid: Fraction | float = Fraction(1)
    """What is finer than the value it was made of (by a transposed convolution) still sees whole elements of
    that one, `grid` apart, each with the reach `near`; between them the reach grows in fractions."""

    @property
    def field(self) -> float | int:
        """The number of elements that are seen."""
        if math.isinf(self.reach):
            return math.inf
        return math.floor(self.near + (self.reach - self.near) // self.grid * self.grid) + 1

    def window(self, taps: int, *, stride: int = 1, dilation: int = 1, spread: int = 1) -> "View":
        """The view of a window; spread: the elements are first put that far apart, with nothing between."""
        view = self if spread == 1 else self.refined()
        step = view.stride / spread
        return view._replace(reach=view.reach + (taps - 1) * dilation * step, stride=step * stride)

    def refined(self) -> "View":
        """The view from which a finer one is made."""
        on_grid = math.isfinite(self.reach) and math.isfinite(self.stride)
        if on_grid and (self.reach - self.near) % self.grid == 0 == self.stride % self.grid:
            return self._replace(near=self.reach, grid=self.stride)
        return self


Views = tuple[View, ...] | None
"""A view for each spatial axis of x, or None of a value that does not depend on x."""

# The parameters of equations that do more than act on each element.
AXES = ("axis", "axes", "dimension", "dimensions", "dimension_numbers", "fft_lengths")

WHOLE = View(None, math.inf, math.inf)


class Step(NamedTuple):
    """An equation, the named scopes around it, what it reads and what it gives."""

    eqn: Any
    scopes: str
    reads: list[Views]
    gives: Views


def views_of(rank: int) -> Views:
    """Those of x itself, (batch, *spatial, channels)."""
    return tuple(View(axis, Fraction(0), Fraction(1)) for axis in range(1, rank - 1))


def walk(jaxpr: Any, reads: Sequence[Views], scopes: str = "") -> Generator[Step, None, list[Views]]:
    """The equations of a program in their order, those of the programs it calls among them.

    Returns the views of the program's results.
    """
    known: dict[int, Views] = dict(zip(map(id, jaxpr.invars), reads, strict=True))
    for eqn in jaxpr.eqns:
        here = f"{scopes}/{eqn.source_info.name_stack}"
        given = [known.get(id(variable)) for variable in eqn.invars]
        programs = [] if eqn.primitive.name in RULES else list(inner_programs(eqn))
        results: list[Views] = [_whole(given) if programs else _seen_by(eqn, given)] * len(eqn.outvars)
        for program in programs:
            results_inside = yield from walk(program, _passed_on(eqn, program, given), here)
            if _is_call(eqn, program):
                results = results_inside
        if not programs:
            yield Step(eqn, here, given, results[0] if results else None)
        known |= dict(zip(map(id, eqn.outvars), results, strict=True))
    return [known.get(id(variable)) for variable in jaxpr.outvars]


def _is_call(eqn: Any, program: Any) -> bool:
    """Whether an equation runs a program once, on what it reads itself."""
    same = len(program.invars) == len(eqn.invars) and len(program.outvars) == len(eqn.outvars)
    return same and eqn.primitive.name not in ("scan", "while", "cond")


def _passed_on(eqn: Any, program: Any, given: list[Views]) -> list[Views]:
    if _is_call(eqn, program):
        return given
    # A loop sees more with every step, and which operand is which is its own matter: an upper bound.
    return [_whole(given)] * len(program.invars)


def _seen_by(eqn: Any, given: list[Views]) -> Views:
    """The views of an equation's results."""
    if not any(given):
        return None
    if rule := RULES.get(eqn.primitive.name):
        return rule(eqn, given)
    moves = any(name in eqn.params for name in AXES)
    return _whole(given) if moves else _element_by_element(eqn, given)


def _element_by_element(eqn: Any, given: list[Views]) -> Views:
    """Equal shapes, or axes of size 1 that stand for all positions; anything else cannot be followed."""
    shape = eqn.outvars[0].aval.shape
    found = []
    for variable, views in zip(eqn.invars, given, strict=True):
        size = variable.aval.shape
        if views and (
            len(size) != len(shape) or any(a not in (1, b) for a, b in zip(size, shape, strict=True))
        ):
            return _whole(given)
        found.append(
            _each(
                views, lambda view, axis, s=size: view if s[axis] == shape[axis] else view._replace(axis=None)
            )
        )
    return _together(found)


def _whole(given: list[Views]) -> Views:
    return next((tuple(WHOLE for _ in views) for views in given if views), None)


def _together(given: list[Views]) -> Views:
    """Where values meet: the largest reach of each, and the stride of what still runs along the axis."""
    views = [one for one in given if one]
    return tuple(map(_meet, zip(*views, strict=True))) if views else None


def _meet(views: Sequence[View]) -> View:
    axes = {view.axis for view in views} - {None}
    if len(axes) > 1:
        return WHOLE
    widest = max(views, key=lambda view: view.field)
    stride = max(view.stride for view in views if view.axis is not None or not axes)
    return widest._replace(axis=axes.pop() if axes else None, stride=stride)


def _each(views: Views, change: Callable[[View, int], View]) -> Views:
    """Views with those changed that have an axis; change(view, axis)."""
    return views and tuple(view if view.axis is None else change(view, view.axis) for view in views)


def _convolution(eqn: Any, given: list[Views]) -> Views:
    x, kernel = given
    if kernel:
        return _whole(given)
    params, taps = eqn.params, eqn.invars[1].aval.shape
    of_x, of_kernel, of_y = params["dimension_numbers"]

    def change(view: View, axis: int) -> View:
        if axis == of_x[0]:  # the batch
            return view._replace(axis=of_y[0])
        if axis == of_x[1]:  # the channels, which are summed
            return WHOLE
        place = of_x.index(axis)
        return view._replace(axis=of_y[place]).window(
            taps[of_kernel[place]],
            stride=params["window_strides"][place - 2],
            dilation=params["rhs_dilation"][place - 2],
            spread=params["lhs_dilation"][place - 2],
        )

    return _each(x, change)


def _pool(eqn: Any, given: list[Views]) -> Views:
    params = eqn.params

    def change(view: View, axis: int) -> View:
        return view.window(
            params["window_dimensions"][axis],
            stride=params["window_strides"][axis],
            dilation=params["window_dilation"][axis],
            spread=params["base_dilation"][axis],
        )

    return _each(_together(given), change)


def _reduction(eqn: Any, given: list[Views]) -> Views:
    params = eqn.params
    gone = next(params[name] for name in ("axes", "dimensions") if name in params)
    size = eqn.invars[0].aval.shape
    return _each(_together(given), lambda view, axis: _without(view, axis, gone, size))


def _without(view: View, axis: int, gone: Sequence[int], size: Sequence[int]) -> View:
    if axis not in gone:
        return view._replace(axis=axis - sum(other < axis for other in gone))
    return view._replace(axis=None) if size[axis] == 1 else WHOLE


def _matrix_product(eqn: Any, given: list[Views]) -> Views:
    summed, batch = eqn.params["dimension_numbers"]
    first_free = len(batch[0])
    found = []
    for operand, views, sums, batches in zip(eqn.invars, given, summed, batch, strict=True):
        size = operand.aval.shape
        free = [axis for axis in range(len(size)) if axis not in (*sums, *batches)]
        place = {axis: i for i, axis in enumerate(batches)}
        place |= {axis: first_free + i for i, axis in enumerate(free)}
        first_free += len(free)

        def change(view: View, axis: int, place: dict[int, int] = place, size: Any = size) -> View:
            if axis in place:
                return view._replace(axis=place[axis])
            return view._replace(axis=None) if size[axis] == 1 else WHOLE

        found.append(_each(views, change))
    return _together(found)


def _transpose(eqn: Any, given: list[Views]) -> Views:
    order = eqn.params["permutation"]
    return _each(given[0], lambda view, axis: view._replace(axis=order.index(axis)))


def _broadcast(eqn: Any, given: list[Views]) -> Views:
    to, size, shape = eqn.params["broadcast_dimensions"], eqn.invars[0].aval.shape, eqn.params["shape"]

    def change(view: View, axis: int) -> View:
        return view._replace(axis=to[axis] if size[axis] == shape[to[axis]] else None)

    return _each(given[0], change)


def _reshape(eqn: Any, given: list[Views]) -> Views:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    groups = list(_groups(before, after))
    runs_in = [view.axis for view in given[0] or ()]

    def change(view: View, axis: int) -> View:
        old, new = next((old, new) for old, new in groups if axis in old)
        if before[axis] == 1:
            return view._replace(axis=None)
        merged = [other for other in old if before[other] > 1]
        split = [other for other in new if after[other] > 1]
        if len(merged) == 1:  # (height) -> (height / f, f): its rows are f times as far apart
            inner = math.prod(after[other] for other in split[1:])
            return view._replace(axis=split[0]).window(inner)._replace(stride=view.stride * inner)
        if len(split) == 1 and axis == merged[0] and sum(other in runs_in for other in merged) == 1:
            # (height, f) -> (height * f), as in a pixel shuffle
            inner = math.prod(before[other] for other in merged[1:])
            return view._replace(axis=split[0]).window(inner, spread=inner)
        return WHOLE

    return _each(given[0], change)


def _groups(before: Sequence[int], after: Sequence[int]) -> Generator[tuple[range, range], None, None]:
    """The smallest runs of axes before and after a reshape that hold the same elements."""
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while (left := math.prod(before[start_i:i])) != (right := math.prod(after[start_j:j])):
            i, j = (i + 1, j) if left < right else (i, j + 1)
        yield range(start_i, i), range(start_j, j)


def _slice(eqn: Any, given: list[Views]) -> Views:
    steps = eqn.params["strides"] or [1] * len(eqn.invars[0].aval.shape)
    return _each(given[0], lambda view, axis: view._replace(stride=view.stride * steps[axis]))


def _pad(eqn: Any, given: list[Views]) -> Views:
    between = [interior for _, _, interior in eqn.params["padding_config"]]
    return _each(given[0], lambda view, axis: view.window(1, spread=between[axis] + 1))


def _stack(eqn: Any, given: list[Views]) -> Views:
    new = eqn.params["axis"]
    return _each(_together(given), lambda view, axis: view._replace(axis=axis + (axis >= new)))


def _weighted_sum(eqn: Any, given: list[Views]) -> Views:
    taps = eqn.params["taps"]
    rows = zip(taps.positions, taps.weights, strict=True)
    read = [[place for place, weight in zip(*row, strict=True) if weight] or row[0] for row in rows]
    first, last = (np.array([end(row) for row in read]) for end in (min, max))
    ratio = Fraction(taps.size, len(read))
    # From the first element that one row reads to the last one that the m-th row after it reads.
    reach = max(int((last[m:] - first[: len(read) - m]).max()) - m * ratio for m in range(len(read)))

    def change(view: View, axis: int) -> View:
        if axis != eqn.params["axis"]:
            return view
        view = view.refined()
        return view._replace(reach=view.reach + reach * view.stride, stride=view.stride * ratio)

    return _each(given[0], change)


def _unmoved(eqn: Any, given: list[Views]) -> Views:
    """The axes stay what they are."""
    return _together(given)


Rule = Callable[[Any, list[Views]], Views]
RULES: dict[str, Rule] = {
    CONVOLUTION: _convolution,
    "dot_general": _matrix_product,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reduction,
    "slice": _slice,
    "pad": _pad,
    "stack": _stack,
    "weighted_sum": _weighted_sum,
    **dict.fromkeys(("reduce_window", *(f"reduce_window_{of}" for of in ("max", "min", "sum"))), _pool),
    **dict.fromkeys(
        ("reduce", *(f"reduce_{of}" for of in ("sum", "max", "min", "prod", "and", "or"))), _reduction
    ),
    **dict.fromkeys(("argmax", "argmin"), _reduction),
    **dict.fromkeys(("concatenate", "split", "rev", "dynamic_slice"), _unmoved),
}
