"""A model layer by layer: shapes, parameters, multiply-accumulates, receptive fields."""

import math
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxcnn.analysis import receptive
from jaxcnn.analysis.count import as_shape, check_module, macs_of
from jaxcnn.analysis.layers import STAGE, Layer, in_evaluation

# Equations traced while a layer is called stand in a scope of that number, and its result has that name.
CALL = "jaxcnn_call_{}"
NUMBER = re.compile(CALL.format(r"(\d+)"))

POOLS = {
    "reduce_window_max": "max_pool",
    "reduce_window_min": "min_pool",
    "reduce_window_sum": "avg_pool",
    "reduce_window": "pool",
    "weighted_sum": "resample",
}
GLOBAL_POOLS = {"reduce_sum": "global_avg_pool", "reduce_max": "global_max_pool"}

HEAD = ("layer", "kind", "output", "parameters", "MACs", "share", "field", "stride")


class Row(NamedTuple):
    """A call of a layer."""

    path: str
    """Its attributes and positions from the model down, "layers.0.1.norm"; of a pooling function those of the
    module or stage that calls it."""
    kind: str
    """The name of its class or, of a pooling function, "max_pool", "avg_pool", "global_avg_pool", ..."""
    output: tuple[int, ...] | None
    """The shape of the (first) array it returns; None if evaluation does not call it."""
    parameters: int
    """Its own, those of the layers inside it not among them; 0 in its second call."""
    macs: int
    """Multiply-accumulates of its own."""
    receptive_field: tuple[int, ...] | None
    """How many elements of x, along each spatial axis, can change one element of the output."""
    stride: tuple[float | int, ...] | None
    """How many elements of x two neighbours of the output are apart; below 1 where the output is finer."""
    share: float
    """Of the model's multiply-accumulates, 0 to 1."""


@dataclass(frozen=True)
class Summary:
    """The layers of a model in the order in which they are done; str() is a table."""

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    macs: int

    def __str__(self) -> str:
        cells = [HEAD, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(_aligned, HEAD, row, widths)).rstrip() for row in cells]
        total = f"{self.model} of x {self.input_shape}: {self.parameters:,} parameters, {self.macs:,} MACs"
        return "\n".join([*lines, total])


def summarize(model: nnx.Module, input_shape: tuple[int, ...]) -> Summary:
    """A row for each layer of a model: shape, parameters, multiply-accumulates, receptive field, stride.

    Nothing is computed: the model is traced in evaluation. With r the receptive field, j the stride and
    r = j = 1 for x, a window of k taps gives

        r <- r + (k - 1) * dilation * j        j <- j * stride        j <- j / stride  (transposed)

    Where branches meet, the largest field counts. It is the theoretical one: the elements of x that could
    change an element of an image large enough, so that it may be larger than x. Whatever looks at all
    positions, as a global mean does (in a `SqueezeExcite` too), sees the whole image: its field and those of
    all layers after it are x's size. So are those after a layer that cannot be followed (a gather, a loop).
    Shifts of branches against each other are not counted: x[:, 1:] - x[:, :-1] has the field of x.

    Layers are the modules that call no other one, those with parameters of their own, and the pooling, over
    windows or global, that other modules do by a function. MACs are those of `count_macs`.

    Args:
        model: a Flax NNX module, abstract (from nnx.eval_shape) or not; it stays as it is.
        input_shape: the shape of x, with the batch: (1, 224, 224, 3).

    Returns:
        A Summary: rows, in the order in which the layers are done (those that evaluation does not call are
        the last); the model's parameters and macs, which are the sums of the rows'.

    Raises:
        TypeError: a model that is no nnx.Module, a size that is no int.
        ValueError: a size < 1, or an x that the model refuses.

    Reference:
        Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks".

    Example:
        >>> from jaxcnn import models
        >>> model = nnx.eval_shape(lambda: models.create_model("lenet5", rngs=nnx.Rngs(0)))
        >>> print(summarize(model, (1, 32, 32, 3)))
        layer   kind      output           parameters     MACs  share  field    stride
        c1      Conv      (1, 28, 28, 6)          456  352,800  48.0%  5 x 5    1 x 1
        s2      avg_pool  (1, 14, 14, 6)                               6 x 6    2 x 2
        c3      Conv      (1, 10, 10, 16)       2,416  240,000  32.7%  14 x 14  2 x 2
        s4      avg_pool  (1, 5, 5, 16)                                16 x 16  4 x 4
        c5      Conv      (1, 1, 1, 120)       48,120   48,000   6.5%  32 x 32  4 x 4
        f6      Linear    (1, 84)              10,164   10,080   1.4%  32 x 32  4 x 4
        output  Linear    (1, 1000)            85,000   84,000  11.4%  32 x 32  4 x 4
        LeNet5 of x (1, 32, 32, 3): 146,156 parameters, 734,880 MACs
    """
    check_module("summarize", "model", model)
    shape = as_shape("summarize", input_shape)
    graphdef, state = nnx.split(model)
    program, calls = _traced(graphdef, state, shape)
    macs = Counter[int]()
    for scopes, number in macs_of(program):
        macs[_innermost(scopes)] += number
    total = sum(macs.values())
    kinds = {path: type(module).__name__ for path, module in nnx.iter_modules(model) if callable(module)}
    parameters = _own_parameters(state, kinds)
    left = dict(parameters)  # what no row has yet

    rows: list[Row] = []
    seen = set[int]()
    for step in _steps(program, shape):
        marked = NUMBER.fullmatch(str(step.eqn.params.get("name")))
        if marked and (number := int(marked[1])) not in seen:  # a layer is done
            seen.add(number)
            path, kind = calls[number].layer.path, calls[number].layer.kind
            if calls[number].is_leaf or macs[number] or (kind != STAGE and path in parameters):
                own = left.pop(path, 0) if kind != STAGE else 0
                rows.append(_row(path, kind, step, own, macs[number], total, shape))
        elif (kind := _pooling(step)) and not calls[number := _innermost(step.scopes)].is_leaf:
            rows.append(_row(calls[number].layer.path, kind, step, 0, 0, total, shape))
    named = {_dotted(path): kind for path, kind in kinds.items()}
    rows += [Row(path, named[path], None, own, 0, None, None, 0.0) for path, own in left.items()]
    return Summary(type(model).__name__, shape, tuple(rows), sum(parameters.values()), total)


@dataclass
class _Call:
    layer: Layer
    is_leaf: bool
    """Whether no other layer is called inside it."""


def _traced(graphdef: Any, state: Any, shape: tuple[int, ...]) -> tuple[Any, list[_Call]]:
    """The program of a model, and the calls that its scopes and names are the numbers of."""
    calls: list[_Call] = []
    running: list[int] = []

    def around(layer: Layer, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        for number in running[-1:]:
            calls[number].is_leaf = False
        name = CALL.format(len(calls))
        running.append(len(calls))
        calls.append(_Call(layer, is_leaf=layer.kind != STAGE))
        try:
            with jax.named_scope(name):
                y = call(*args, **kwargs)
                return jax.tree.map(lambda y: checkpoint_name(y, name) if isinstance(y, jax.Array) else y, y)
        finally:
            running.pop()

    def results(state: Any, x: jax.Array) -> Any:
        return in_evaluation(graphdef, state, around)(x)

    return jax.make_jaxpr(results)(state, jax.ShapeDtypeStruct(shape, jnp.float32)), calls


def _innermost(scopes: str) -> int:
    return int(NUMBER.findall(scopes)[-1])


def _own_parameters(state: Any, modules: Container[tuple[Any, ...]]) -> dict[str, int]:
    """The parameters of each module that has any, by its path, those of the modules inside it left out."""
    found = Counter[str]()
    for path, variable in nnx.to_flat_state(state):
        if isinstance(variable, nnx.Param):
            owner = next((path[:i] for i in range(len(path), 0, -1) if path[:i] in modules), ())
            found[_dotted(owner)] += math.prod(variable.shape)
    return dict(found)


def _dotted(path: Iterable[Any]) -> str:
    return ".".join(map(str, path))


def _steps(program: Any, shape: tuple[int, ...]) -> Iterator[receptive.Step]:
    *of_state, _ = program.jaxpr.invars
    yield from receptive.walk(program.jaxpr, [*[None] * len(of_state), receptive.views_of(len(shape))])


def _pooling(step: receptive.Step) -> str | None:
    """The kind of pooling that an equation does, if it is one of what was made of x."""
    name = step.eqn.primitive.name
    if not any(step.reads):
        return None
    if name in GLOBAL_POOLS:
        before = [view.axis for views in step.reads for view in views or ()]
        after = [view.axis for view in step.gives or ()]
        size = step.eqn.invars[0].aval.shape
        gone = [a for a, b in zip(before, after, strict=True) if a is not None and b is None and size[a] > 1]
        return GLOBAL_POOLS[name] if gone else None
    return POOLS.get(name)


def _row(
    path: str, kind: str, step: receptive.Step, parameters: int, macs: int, total: int, shape: tuple[int, ...]
) -> Row:
    views = step.gives or ()
    sized = list(zip(views, shape[1:-1], strict=True)) if views else []  # the whole image has its size
    fields = [int(view.field) if view.field < math.inf else size for view, size in sized]
    strides = [float(view.stride) if view.stride < math.inf else size for view, size in sized]
    return Row(
        path=path,
        kind=kind,
        output=step.eqn.outvars[0].aval.shape,
        parameters=parameters,
        macs=macs,
        receptive_field=tuple(fields) if views else None,
        stride=tuple(int(n) if n == int(n) else n for n in strides) if views else None,
        share=macs / total if total else 0.0,
    )


def _cells(row: Row) -> tuple[str, ...]:
    def product(sizes: tuple[float | int, ...] | None) -> str:
        return "" if sizes is None else " x ".join(f"{size:g}" for size in sizes)

    output = "not called" if row.output is None else str(row.output)
    parameters, macs = (f"{number:,}" if number else "" for number in (row.parameters, row.macs))
    share = f"{row.share:.1%}" if row.macs else ""
    return (
        row.path,
        row.kind,
        output,
        parameters,
        macs,
        share,
        product(row.receptive_field),
        product(row.stride),
    )


def _aligned(head: str, cell: str, width: int) -> str:
    return cell.rjust(width) if head in ("parameters", "MACs", "share") else cell.ljust(width)
