"""What the convolutions and pooling of a program are compiled to, why, and how much they compute."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from jaxcnn.lowering import pooling, rules
from jaxcnn.lowering.choice import lowering_of
from jaxcnn.lowering.convolution import Convolution, convolution_of
from jaxcnn.lowering.tag import allows_onednn

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
    kernel and y are what the equation reads and writes: a kernel's gradient reads x and dy and writes a
    kernel.
    """

    kind: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    """The kernel, or the window of a pool."""
    y: tuple[int, ...]
    options: str
    lowering: str
    reason: str
    macs: int | None
    """Multiply-accumulates of one time; 0 for pooling, None where a shape is not known."""
    times: int | None
    """How often it runs: the length of the scans around it; None inside a while loop."""


class Explanation(tuple[Row, ...]):
    """The rows of a program in its order; str() is a table."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the program, what is inside a while loop (and each branch) counted once."""
        return sum((row.macs or 0) * (1 if row.times is None else row.times) for row in self)

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

    Nothing is computed: fn is traced, as jax.jit does, and what it calls is walked too (jit, scan, cond,
    while, remat, shard_map, ...). Where fn takes a gradient, the gradients' convolutions have their own rows.

    A convolution's multiply-accumulates (MACs) are

        images * positions * taps * (channels_in / groups) * channels_out,

    the same for a convolution and for both of its gradients: positions are those of its output, padding
    included, or of its input where that one is lhs-dilated (a transposed convolution), so that no
    zero between elements is counted. The gradients of a transposed convolution of stride 1, where nothing is
    dilated, are counted as those of any other convolution.

    Args:
        fn: any function of JAX arrays, jitted or not.
        *args: its arguments, as for a call. In place of an array, a jax.ShapeDtypeStruct will do.
        **kwargs: its keyword arguments.

    Returns:
        An Explanation: a tuple of rows with the fields kind, x, kernel, y, options, lowering, reason, macs
        and times. str() of it is the table, and its macs is the sum.

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
        >>> explanation[0].kind, explanation.macs
        ('convolution', 32514048)
    """
    if not callable(fn):
        raise TypeError(
            f"explain: fn must be callable, got {type(fn).__name__}; "
            "a function and its arguments are given apart, explain(fn, x)"
        )
    program, divided = _traced(fn, args, kwargs)
    explanation = explanation_of(program, partitioned=divided)
    print(explanation)
    return explanation


def explanation_of(program: ClosedJaxpr, *, partitioned: bool = False) -> Explanation:
    """The rows of a traced program (jax.make_jaxpr); partitioned if a mesh divides its arrays."""
    return Explanation(_rows(program.jaxpr, _Place(stack="", times=1, partitioned=partitioned)))


class _Place(NamedTuple):
    """Where in a program an equation stands."""

    stack: str  # the transformations that made it, from outermost to innermost
    times: int | None
    partitioned: bool

    @property
    def transposed(self) -> int:
        """How often JAX transposed here, to go backward; what remat computes again was not."""
        return self.stack.rpartition("rematted_computation")[2].count("transpose(")

    def at(self, eqn: Any) -> "_Place":
        """The place of an equation of this program."""
        return self._replace(stack=f"{self.stack}/{eqn.source_info.name_stack}")

    def inside(self, eqn: Any) -> "_Place":
        """The place of the programs that an equation at this place calls."""
        name, params = eqn.primitive.name, eqn.params
        times = None if name == "while" or self.times is None else self.times * params.get("length", 1)
        over_a_mesh = self.partitioned or any(map(_is_divided, params.get("in_shardings", ())))
        return self._replace(times=times, partitioned=over_a_mesh and name != "shard_map")


def _traced(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[ClosedJaxpr, bool]:
    """The program of a call, and whether a mesh divides its arrays; all that is no array stays what it is."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = {place: leaf for place, leaf in enumerate(leaves) if _is_array(leaf)}

    def call(arrays: dict[int, Any]) -> Any:
        args, kwargs = tree.unflatten(arrays.get(place, leaf) for place, leaf in enumerate(leaves))
        # Whatever is returned that is no array is no part of the program.
        return [leaf for leaf in jax.tree.leaves(fn(*args, **kwargs)) if _is_array(leaf)]

    divided = any(_is_divided(getattr(array, "sharding", None)) for array in arrays.values())
    return jax.make_jaxpr(call)(arrays), divided


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _is_divided(sharding: Any) -> bool:
    return len(getattr(sharding, "device_set", ())) > 1


def _rows(jaxpr: Any, around: _Place) -> Iterator[Row]:
    made_by = {id(variable): eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
    for eqn in jaxpr.eqns:
        here = around.at(eqn)
        if eqn.primitive.name == "conv_general_dilated":
            yield _convolution(eqn, here, flipped=_is_flipped(eqn, made_by))
        elif eqn.primitive.name in POOLS:
            yield _pool(eqn, here)
        else:
            for part in _jaxprs(eqn.params.values()):
                yield from _rows(part, here.inside(eqn))


def _jaxprs(values: Any) -> Iterator[Any]:
    """The programs among an equation's parameters, open or closed, alone or in a tuple (cond's branches)."""
    for value in values:
        program = getattr(value, "jaxpr", value)
        if hasattr(program, "eqns"):
            yield program
        elif isinstance(value, (tuple, list)):
            yield from _jaxprs(value)


def _is_flipped(eqn: Any, made_by: dict[int, Any]) -> bool:
    """Whether the taps of the kernel stand in opposite order: so JAX writes the gradient of the input."""
    kernel = eqn.invars[1]
    spatial = eqn.params["dimension_numbers"].rhs_spec[2:]
    while (maker := made_by.get(id(kernel))) is not None:
        called = maker.params["jaxpr"].eqns if maker.primitive.name == "jit" else ()  # such as jnp.flip
        does = called[0] if len(called) == 1 else maker
        if does.primitive.name == "rev":
            return len(does.params["dimensions"]) == len(spatial)
        if does.primitive.name not in MOVES:
            break
        kernel = maker.invars[0]
    return False


def _convolution(eqn: Any, place: _Place, *, flipped: bool) -> Row:
    x, kernel, y = avals = [variable.aval for variable in (*eqn.invars, *eqn.outvars)]
    # A size that is not known stands as 1.
    known_x, known_kernel, known_y = (
        jax.ShapeDtypeStruct([n if isinstance(n, int) else 1 for n in aval.shape], aval.dtype)
        for aval in avals
    )
    conv = convolution_of(
        known_x,
        known_kernel,
        known_y,
        eqn.params,
        partitioned=place.partitioned,
        onednn=allows_onednn(eqn.ctx.xla_metadata),
    )
    kind = _kind(eqn, conv, flipped, place.transposed)
    dilated, strided = map(_is_over_one, (eqn.params["lhs_dilation"], eqn.params["window_strides"]))
    positions, taps = _positions_and_taps(kind, conv, flipped, dilated=dilated, strided=strided)
    pairs = conv.batch // conv.batch_groups * conv.group_in * conv.channels_out
    known = all(isinstance(n, int) for aval in avals for n in aval.shape)
    options = _options(
        stride=eqn.params["window_strides"],
        padding=eqn.params["padding"],
        lhs_dilation=eqn.params["lhs_dilation"],
        dilation=eqn.params["rhs_dilation"],
        groups=(conv.groups,),
        batch_groups=(conv.batch_groups,),
    )
    reason = _fallback_reason(eqn)
    lowering, reason = (XLA, reason) if reason else lowering_of(conv)
    return Row(
        kind=kind,
        x=x.shape,
        kernel=kernel.shape,
        y=y.shape,
        options=options,
        lowering=lowering,
        reason=reason,
        macs=pairs * math.prod(positions) * math.prod(taps) if known else None,
        times=place.times,
    )


def _kind(eqn: Any, conv: Convolution, flipped: bool, transposed: int) -> str:
    if transposed and flipped:
        return "input gradient"
    numbers = eqn.params["dimension_numbers"]
    # To sum over the images JAX reads the batch as channels and the channels as batch; back again, if the
    # gradient of a gradient is a convolution of images.
    exchanged = numbers.lhs_spec[0] > numbers.lhs_spec[1]
    if transposed == 1 or (transposed and (exchanged or conv.is_kernel_gradient)):
        return "kernel gradient"
    return "transposed convolution" if _is_over_one(eqn.params["lhs_dilation"]) else "convolution"


def _positions_and_taps(
    kind: str, conv: Convolution, flipped: bool, *, dilated: bool, strided: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the convolution's positions, and those of its taps, whichever array has them here."""
    if kind == "kernel gradient":  # the window is as large as dy, and the output as small as a window
        return conv.size if dilated else conv.window, conv.output
    if kind == "input gradient":  # x is dy; where that is strided, the convolution was a transposed one
        return conv.output if strided and not dilated else conv.size, conv.window
    if dilated:
        return conv.size, conv.window
    if flipped:  # perhaps a transposed convolution of stride 1: then x has fewer positions than y
        return min(conv.size, conv.output, key=math.prod), conv.window
    return conv.output, conv.window


def _is_over_one(steps: Sequence[int]) -> bool:
    return max(steps, default=1) > 1


def _fallback_reason(eqn: Any) -> str | None:
    avals = [variable.aval for variable in (*eqn.invars, *eqn.outvars)]
    if reason := rules.fallback_reason(eqn.ctx.xla_metadata, avals):
        return reason
    if jax.default_backend() != rules.PLATFORM:
        return f"the rewrites are for {rules.PLATFORM}"
    return None if rules.register() else "this version of JAX does not show its lowering rules"


def _pool(eqn: Any, place: _Place) -> Row:
    name, params = eqn.primitive.name, eqn.params
    avals, y = [variable.aval for variable in eqn.invars], eqn.outvars[0].aval
    reason = _fallback_reason(eqn)
    choice = None
    if reason is None and name in pooling.CHOICES:
        choice = pooling.choose(pooling.pooling_of(name, avals, y, params, partitioned=place.partitioned))
    # The derivatives read dy, or the tangent, before x.
    x = avals[1 if name.startswith("select") else 0]
    return Row(
        kind=POOLS[name] + (" gradient" if place.transposed and name == "reduce_window_sum" else ""),
        x=x.shape,
        kernel=tuple(params["window_dimensions"]),
        y=y.shape,
        options=_options(
            stride=params["window_strides"],
            padding=params["padding"],
            base_dilation=params.get("base_dilation", ()),
            dilation=params.get("window_dilation", ()),
        ),
        lowering=choice.name if choice else XLA,
        reason=choice.reason if choice else reason or "XLA's code is the fastest known",
        macs=0,
        times=place.times,
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
    macs = "?" if row.macs is None else f"{row.macs:,}" if row.macs else ""
    return (row.kind, *shapes, row.options, times, macs, row.lowering, row.reason)


def _aligned(head: str, cell: str, width: int) -> str:
    return cell.rjust(width) if head in ("times", "MACs") else cell.ljust(width)
