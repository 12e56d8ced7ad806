"""The first layer in which two models part."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from jaxcnn.analysis.count import check_module
from jaxcnn.analysis.layers import Layer, in_evaluation
from jaxcnn.functional.checks import AnyArray, check_number


class Difference(NamedTuple):
    """The first layer in which two models part; str() is a sentence."""

    path: str
    """Its attributes and positions from the model down, "layers.0.1.norm", or the name of a stage."""
    kind: str
    """The name of its class, or "stage" for a function among a classifier's stages."""
    what: Literal["structure", "shape", "dtype", "values"]
    """What differs; "structure": model_b calls another layer here, `other`."""
    other: tuple[str, str]
    """The path and the kind of model_b's layer: those above, unless the structure differs."""
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Of the (first) array that each returns."""
    absolute: float
    """The largest |a - b| of two elements, inf where only one is nan; nan if it is not the values that
    differ."""
    relative: float
    """`absolute` over the largest |a|."""
    reads_the_same: bool
    """Whether both layers are given equal arrays. If not, the models part in what the module around this
    layer computes before it, outside of its layers."""

    def __str__(self) -> str:
        layer, other = (
            f"{path or 'the model'} ({kind})" for path, kind in ((self.path, self.kind), self.other)
        )
        if self.what == "structure":
            return f"the models part where model_a is done with {layer} and model_b with {other}"
        told = {
            "shape": f"its shape is {self.shapes[0]} in model_a and {self.shapes[1]} in model_b",
            "dtype": "its dtype is another one",
            "values": f"by up to {self.absolute:.3g}, relative to the largest element {self.relative:.3g}",
        }[self.what]
        before = (
            "" if self.reads_the_same else "; what it reads differs already, after equal layers before it"
        )
        return f"the first result that differs is that of {layer}: {told}{before}"


def first_difference(
    model_a: nnx.Module, model_b: nnx.Module, x: AnyArray, *, tolerance: float | int = 0.0
) -> Difference | None:
    """The first layer, in the order in which layers are done, whose result is not the same in two models.

    Both models run in evaluation, operation by operation: compiled as a whole, a layer that is the same in
    both could be rounded differently because of one that is not. A layer is done after those inside it, so
    that the innermost one is named. What has no effect on the results for this x is no difference.

    Args:
        model_a: a Flax NNX module; it stays as it is.
        model_b: another one.
        x: what both are called with, such as images (batch, height, width, channels).
        tolerance: how large max |a - b| / max |a| of a layer's result may be, so that a model and a converted
            one can be compared (1e-5, say); 0 asks for equal values (nan equals nan).

    Returns:
        A Difference, or None if all layers agree.

    Raises:
        TypeError: a model that is no nnx.Module or is abstract; a call inside jax.jit or another
            transformation, where there are no values to compare.
        ValueError: a tolerance < 0.
        Exception: what a model that refuses x raises, unless a layer differs before that.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxcnn import models
        >>> a, b = (models.create_model("lenet5", rngs=nnx.Rngs(0)) for _ in range(2))
        >>> x = jnp.ones((1, 32, 32, 3))
        >>> print(first_difference(a, b, x))
        None
        >>> b.c3.bias[...] += 1.0
        >>> difference = first_difference(a, b, x)
        >>> difference.path, difference.kind, round(difference.absolute, 6)
        ('c3', 'Conv', 1.0)
    """
    for name, model in (("model_a", model_a), ("model_b", model_b)):
        check_module("first_difference", name, model)
        leaves = jax.tree.leaves((nnx.state(model), x))
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            raise TypeError(
                f"first_difference: {name} and x must hold values, got some that are traced; call it outside "
                "of jax.jit and other transformations"
            )
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
            raise TypeError(
                f"first_difference: {name} must hold arrays, got an abstract model (nnx.eval_shape)"
            )
    check_number("first_difference", "tolerance", tolerance, minimum=0)
    calls_a, refused_a = _calls(model_a, x)
    calls_b, refused_b = _calls(model_b, x)
    # Whatever a model refuses comes after the layers that it has called.
    for a, b in zip(calls_a, calls_b, strict=False):
        if difference := _difference(a, b, tolerance):
            return difference
    if refused := refused_a or refused_b:
        raise refused
    return None


_NONE = np.empty(0)


class _Call(NamedTuple):
    layer: Layer
    reads: list[Any]
    results: list[Any]


def _calls(model: nnx.Module, x: AnyArray) -> tuple[list[_Call], Exception | None]:
    """The calls of a model's layers, in the order in which they are done, and the error that ended them."""
    calls: list[_Call] = []

    def around(layer: Layer, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        y = call(*args, **kwargs)
        results = _arrays(y)
        # In a part that the model itself has traced (as nnx.remat does) there are no values to compare.
        if not any(isinstance(leaf, Tracer) for leaf in results):
            calls.append(_Call(layer, _arrays((args, kwargs)), results))
        return y

    try:
        in_evaluation(*nnx.split(model), around)(x)
    except Exception as refused:
        return calls, refused
    return calls, None


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, AnyArray)]


def _difference(a: _Call, b: _Call, tolerance: float | int) -> Difference | None:
    names = [(call.layer.path, call.layer.kind) for call in (a, b)]
    pairs = list(zip(a.results, b.results, strict=False))
    # The results that are told of: the first ones whose shapes differ, or the first of all.
    one, other = next(
        (pair for pair in pairs if pair[0].shape != pair[1].shape), pairs[0] if pairs else (_NONE, _NONE)
    )
    absolute = relative = math.nan
    if names[0] != names[1] or len(a.results) != len(b.results):
        what = "structure"
    elif one.shape != other.shape:
        what = "shape"
    elif any(y.dtype != z.dtype for y, z in pairs):
        what = "dtype"
    else:
        what = "values"
        absolute, relative = max(map(_apart, pairs), default=(0.0, 0.0), key=lambda found: found[1])
        if relative <= tolerance:
            return None
    reads = list(zip(a.reads, b.reads, strict=False))
    reads_the_same = len(a.reads) == len(b.reads) and all(
        y.shape == z.shape and _apart((y, z))[1] <= tolerance for y, z in reads
    )
    return Difference(*names[0], what, names[1], (one.shape, other.shape), absolute, relative, reads_the_same)


def _apart(pair: tuple[Any, Any]) -> tuple[float, float]:
    """The largest |a - b|, and that over the largest |a|."""
    a, b = map(_as_numbers, pair)
    with np.errstate(invalid="ignore"):  # inf - inf
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    absolute = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
    largest = float(np.abs(a).max(initial=0.0, where=np.isfinite(a)))
    return absolute, absolute / largest if largest else (math.inf if absolute else 0.0)


def _as_numbers(y: Any) -> np.ndarray:
    """An array of any dtype, a random key among them, in double precision."""
    if jnp.issubdtype(y.dtype, jax.dtypes.prng_key):
        y = jax.random.key_data(y)
    return np.asarray(y).astype(np.complex128 if jnp.iscomplexobj(y) else np.float64)
