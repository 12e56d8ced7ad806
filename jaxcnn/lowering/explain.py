"""What the convolutions and pooling of a program are compiled to, why, and how much they compute."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxcnn.lowering import rules
from jaxcnn.lowering.choice import chosen
from jaxcnn.lowering.convolution import Convolution, convolution_of

XLA = "XLA's own"
POOLS = {
    "reduce_window_max": "max pool",
    "reduce_window_min": "min pool",
    "reduce_window_sum": "sum pool",
    "reduce_window": "pool",
    "select_and_scatter_add": "max pool gradient",
    "select_and_scatter": "pool gradient",
    "select_and_gather_add": "max pool tangent",
}
# What only moves the elements of a kernel, or changes their dtype: its taps keep their order.
MOVES = {"reshape", "transpose", "squeeze", "broadcast_in_dim", "convert_element_type", "copy"}

HEAD = ("kind", "x", "kernel", "y", "options", "times", "MACs", "lowering", "why")


class Row(NamedTuple):
    """One convolution or pooling of a program.

    Shapes are those of the arrays as they are, in the order of axes that the program uses. For a gradient x,
    kernel and y are what the equation reads and writes: a kernel's gradient reads x and dy, and writes a kernel.
    """

    kind: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    """The kernel, or the window of a pool."""
    y: tuple[int, ...]
    options: str
    lowering: str
    reason: str
    macs: int
    """Multiply-accumulates of one time; 0 for pooling, which multiplies nothing."""
    times: int | None
    """How often it runs: the length of the scans around it; None inside a while loop."""


class Explanation(tuple[Row, ...]):
    """The rows of a program in its order; str() is a table."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the program, what is inside a while loop (and each branch) counted once."""
        return sum(row.macs * (1 if row.times is None else row.times) for row in self)

    def __str__(self) -> str:
        if not self:
            return "no convolution and no pooling"
        cells = [HEAD, *map(_cells, self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(_aligned, HEAD, row, widths)).rstrip() for row in cells]
        return "\n".join([*lines, f"total of {len(self)}: {self.macs:,} MACs"])

    def __repr__(self) -> str:
        return f"<Explanation of {len(self)} convolutions and pools, {self.macs} MACs>"


def explain(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Print, and return, a row for each convolution and pooling that `fn(*args, **kwargs)` runs.

    Nothing is computed: fn is traced, as jax.jit does, and what it calls is walked too (jit, scan, cond, while,
    remat, shard_map, ...). The gradients' convolutions have rows of their own where fn takes a gradient.

    A convolution's multiply-accumulates (MACs) are

        images * positions * taps * (channels_in / groups) * channels_out,

    the same for a convolution and for both of its gradients: positions are those of its output, padding
    included, or of its input where that is the one that is spread out (a transposed convolution), so that no
    zero between elements is counted.

    Args:
        fn: any function of JAX arrays, jitted or not.
        *args: its arguments, as for a call. In place of an array, a jax.ShapeDtypeStruct will do.
        **kwargs: its keyword arguments.

    Returns:
        An Explanation: a tuple of rows with the fields kind, x, kernel, y, options, lowering, reason, macs and
        times. str() of it is the table, and its macs is the sum.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import jax, jaxcnn
        >>> import jaxcnn.functional as F
        >>> x, kernel = jax.ShapeDtypeStruct((8, 56, 56, 144), "float32"), jax.numpy.ones((3, 3, 1, 144))
        >>> explanation = jaxcnn.explain(F.depthwise_conv, x, kernel, padding=1)  # doctest: +ELLIPSIS
        kind         x                 kernel          y                 ...
        convolution  (8, 56, 56, 144)  (3, 3, 1, 144)  (8, 56, 56, 144)  ...
        total of 1: 32,514,048 MACs
        >>> explanation[0].lowering
        'shifted products'
    """
    if not callable(fn):
        raise TypeError(
            f"explain: fn must be callable, got {type(fn).__name__}; "
            "a function and its arguments are given apart, explain(fn, x)"
        )
    explanation = explanation_of(_traced(fn, args, kwargs))
    print(explanation)
    return explanation


def explanation_of(program: ClosedJaxpr) -> Explanation:
    """The rows of a traced program (jax.make_jaxpr), not printed."""
    return Explanation(_rows(program.jaxpr, stack="", times=1))


def _traced(fn: Callable[..., Any], args: Any, kwargs: Any) -> ClosedJaxpr:
    """fn's program; all that is no array stays what it is, as in a call."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = {place: leaf for place, leaf in enumerate(leaves) if _is_array(leaf)}

    def call(arrays: dict[int, Any]) -> Any:
        args, kwargs = tree.unflatten(arrays.get(place, leaf) for place, leaf in enumerate(leaves))
        # Whatever is returned that is no array is no part of the program.
        return [leaf for leaf in jax.tree.leaves(fn(*args, **kwargs)) if _is_array(leaf)]

    return jax.make_jaxpr(call)(arrays)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _rows(jaxpr: Any, *, stack: str, times: int | None) -> Iterator[Row]:
    made_by = {id(variable): eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        here = f"{stack}/{eqn.source_info.name_stack}"
        if name == "conv_general_dilated":
            yield _convolution(eqn, _is_flipped(eqn, made_by), _is_backward(here), times)
        elif name in POOLS:
            yield _pool(eqn, _is_backward(here), times)
        else:
            inside = _times_inside(eqn, times)
            for part in _jaxprs(eqn.params.values()):
                yield from _rows(part, stack=here, times=inside)


def _times_inside(eqn: Any, times: int | None) -> int | None:
    if eqn.primitive.name == "while" or times is None:
        return None
    return times * eqn.params["length"] if eqn.primitive.name == "scan" else times


def _jaxprs(values: Any) -> Iterator[Any]:
    """The programs among an equation's parameters, open or closed, alone or in a tuple (cond's branches)."""
    for value in values:
        program = getattr(value, "jaxpr", value)
        if hasattr(program, "eqns"):
            yield program
        elif isinstance(value, (tuple, list)):
            yield from _jaxprs(value)


def _is_backward(stack: str) -> bool:
    """Whether JAX made the equation by transposing another; remat's second forward pass is no such one."""
    return "transpose(" in stack.rpartition("rematted_computation")[2]


def _is_flipped(eqn: Any, made_by: dict[int, Any]) -> bool:
    """Whether the taps of the kernel stand in opposite order: so JAX writes the gradient of the input."""
    kernel = eqn.invars[1]
    while (maker := made_by.get(id(kernel))) is not None and maker.primitive.name in MOVES:
        kernel = maker.invars[0]
    spatial = eqn.params["dimension_numbers"].rhs_spec[2:]
    return (
        maker is not None
        and maker.primitive.name == "rev"
        and len(maker.params["dimensions"]) == len(spatial)
    )


def _convolution(eqn: Any, flipped: bool, backward: bool, times: int | None) -> Row:
    (x, kernel), y = (variable.aval for variable in eqn.invars), eqn.outvars[0].aval
    conv = convolution_of(x, kernel, y, eqn.params)
    kind = _kind(eqn, conv, flipped, backward)
    positions, taps = _positions_and_taps(kind, conv, flipped, spread=_is_spread(eqn))
    pairs = conv.batch // conv.batch_groups * conv.group_in * conv.channels_out
    macs = pairs * math.prod(positions) * math.prod(taps)
    lowering, reason = _lowering(eqn, conv)
    options = _options(
        stride=eqn.params["window_strides"],
        padding=eqn.params["padding"],
        spread=eqn.params["lhs_dilation"],
        dilation=eqn.params["rhs_dilation"],
        groups=(conv.groups,),
        batch_groups=(conv.batch_groups,),
    )
    return Row(kind, x.shape, kernel.shape, y.shape, options, lowering, reason, macs, times)


def _kind(eqn: Any, conv: Convolution, flipped: bool, backward: bool) -> str:
    if backward and flipped:
        return "input gradient"
    numbers = eqn.params["dimension_numbers"]
    # To sum over the images JAX reads the batch as channels, and the channels as batch.
    exchanged = numbers.lhs_spec[0] > numbers.lhs_spec[1]
    if backward and (exchanged or conv.is_kernel_gradient):
        return "kernel gradient"
    return "transposed convolution" if _is_spread(eqn) else "convolution"


def _positions_and_taps(
    kind: str, conv: Convolution, flipped: bool, *, spread: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the convolution's positions, and those of its taps, whichever array has them here."""
    if kind == "kernel gradient":  # the window is as large as dy, and the output as small as a window
        return conv.size if spread else conv.window, conv.output
    if kind == "input gradient":  # x is dy; where that is strided, the convolution was a transposed one
        return conv.output if not spread and max(conv.stride, default=1) > 1 else conv.size, conv.window
    if spread:
        return conv.size, conv.window
    if flipped:  # perhaps a transposed convolution of stride 1: then x has fewer positions than y
        return min(conv.size, conv.output, key=math.prod), conv.window
    return conv.output, conv.window


def _is_spread(eqn: Any) -> bool:
    return max(eqn.params["lhs_dilation"], default=1) > 1


def _lowering(eqn: Any, conv: Convolution) -> tuple[str, str]:
    avals = [variable.aval for variable in (*eqn.invars, *eqn.outvars)]
    reason = rules.handed_on_because(eqn.ctx.xla_metadata, avals)
    if reason is None and jax.default_backend() != rules.PLATFORM:
        reason = f"the rewrites are for {rules.PLATFORM}"
    if reason is None and not rules.register():
        reason = "this version of JAX does not show its lowering rules"
    if reason is not None:
        return XLA, reason
    choice = chosen(conv)
    return choice.name, choice.reason


def _pool(eqn: Any, backward: bool, times: int | None) -> Row:
    name, params = eqn.primitive.name, eqn.params
    kind = POOLS[name] + (" gradient" if backward and name == "reduce_window_sum" else "")
    # select_and_scatter_add reads (dy, x); select_and_gather_add the tangent and x; a variadic pool many arrays.
    x = eqn.invars[1 if name.startswith("select") else 0].aval
    window = tuple(params["window_dimensions"])
    options = _options(
        stride=params["window_strides"],
        padding=params["padding"],
        spread=params.get("base_dilation", ()),
        dilation=params.get("window_dilation", ()),
    )
    return Row(
        kind, x.shape, window, eqn.outvars[0].aval.shape, options, XLA, "no rewrite is known", 0, times
    )


def _options(**options: Sequence[Any]) -> str:
    """The options that are not trivial, one number where all axes have the same."""
    trivial = {"padding": (0, 0)}
    told = []
    for name, value in options.items():
        values = [tuple(v) if isinstance(v, (tuple, list)) else v for v in value]
        if all(v == trivial.get(name, 1) for v in values):
            continue
        pairs = name == "padding" and all(low == high for low, high in values)
        values = [low for low, _ in values] if pairs else values
        same = len(set(values)) == 1
        told.append(f"{name.replace('_', ' ')} {values[0] if same else tuple(values)}")
    return ", ".join(told)


def _cells(row: Row) -> tuple[str, ...]:
    times = "?" if row.times is None else str(row.times)
    shapes = [str(tuple(shape)) for shape in (row.x, row.kernel, row.y)]
    macs = f"{row.macs:,}" if row.macs else ""
    return (row.kind, *shapes, row.options, times, macs, row.lowering, row.reason)


def _aligned(head: str, cell: str, width: int) -> str:
    return cell.rjust(width) if head in ("times", "MACs") else cell.ljust(width)
