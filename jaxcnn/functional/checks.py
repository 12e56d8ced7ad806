"""Argument checks: a message names the function, the argument, what came and what was expected."""

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Key, UInt32

AnyArray = jax.Array | np.ndarray
"""What the functions take: a JAX array or a NumPy array."""

PerAxis = SupportsIndex | Sequence[SupportsIndex]
"""An option of a spatial window: one int for every spatial axis, or one int per axis."""

OneKey = Key[jax.Array, ""] | UInt32[jax.Array, "words"]
"""One random key; typed (jax.random.key) or raw (jax.random.PRNGKey)."""

KeyOrKeys = OneKey | Key[jax.Array, " batch"] | UInt32[jax.Array, "batch words"]
"""One random key, or one for each example."""

SPATIAL_RANKS = (1, 2, 3)


def as_floating(function: str, name: str, value: Any) -> jax.Array:
    """The argument as a JAX array of a floating dtype."""
    array = as_array(function, name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        images = name == "x" and jnp.issubdtype(array.dtype, jnp.integer)
        hint = "; convert it first, for images x.astype(jnp.float32) / 255" if images else ""
        raise TypeError(f"{function}: {name} must have a floating dtype, got {array.dtype}{hint}")
    if array.dtype.itemsize < 2:  # without an inf or without half of the numbers that the functions need
        raise TypeError(f"{function}: {name} must have at least 16 bits an element, got {array.dtype}")
    return array


def as_array(function: str, name: str, value: Any) -> jax.Array:
    """The argument as a JAX array; a list is refused, because its dtype would be a guess."""
    if not isinstance(value, AnyArray):
        hint = f"; its array is {name}[...]" if hasattr(value, "get_value") else ""  # a variable of Flax
        raise TypeError(f"{function}: {name} must be a JAX or NumPy array, got {type(value).__name__}{hint}")
    if isinstance(value, np.ndarray) and (value.dtype.kind in "OSUMm" or not value.dtype.isnative):
        raise TypeError(
            f"{function}: {name} must be an array of numbers that JAX has, got dtype {value.dtype}"
        )
    return jnp.asarray(value)


def as_images_and_window(
    function: str, x: Any, window: Any, *, name: str = "window"
) -> tuple[jax.Array, tuple[int, ...]]:
    """`x` as images with as many spatial axes as the window, or size, has; see `window_of`."""
    window = window_of(function, x, window, name=name)
    return as_images(function, x, len(window), because=f" (those of {name} {window})"), window


def as_images(function: str, x: Any, spatial_rank: int | None = None, *, because: str = "") -> jax.Array:
    """`x` as floating (batch, *spatial, channels) with that number of spatial axes, none of them empty."""
    x = as_floating(function, "x", x)
    check_images_shape(function, x, spatial_rank, because=because)
    return x


def check_images_shape(
    function: str, x: jax.Array, spatial_rank: int | None = None, *, because: str = ""
) -> None:
    """Refuse an `x` that is not (batch, *spatial, channels), or that has an empty spatial or channel axis."""
    ranks = SPATIAL_RANKS if spatial_rank is None else (spatial_rank,)
    if x.ndim - 2 not in ranks:
        axes = "1 to 3 spatial axes" if spatial_rank is None else f"{spatial_rank} spatial axes{because}"
        hint = "; a single image needs x[None]" if x.ndim - 1 in ranks else ""
        raise ValueError(
            f"{function}: x must have shape (batch, *spatial, channels) with {axes}, "
            f"got shape {x.shape}{hint}"
        )
    if 0 in x.shape[1:]:
        raise ValueError(
            f"{function}: x must have no empty spatial or channel axis (only the batch may be 0), "
            f"got shape {x.shape}"
        )


def widen(x: jax.Array) -> jax.Array:
    """The array in the dtype that sums and statistics are taken in: float64 stays, the rest is float32."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def check_same_dtype(function: str, **arrays: jax.Array | None) -> None:
    """Refuse arrays of different dtypes: which one the result should have would be a guess."""
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        came = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{function}: {', '.join(dtypes)} must share one dtype, got {came}")


def check_shape(function: str, name: str, array: jax.Array, expected: tuple[int, ...], meaning: str) -> None:
    """Refuse an array whose shape is not the expected one."""
    if array.shape != expected:
        raise ValueError(f"{function}: {name} must have shape {expected} ({meaning}), got {array.shape}")


def as_bool(function: str, name: str, value: Any) -> bool:
    """The argument as a bool: neither a word, which would be true, nor known at run time alone."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return bool(value)


def as_int(function: str, name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """The argument as an int of at least `minimum` and at most `maximum`."""
    number = _int_or_none(value)
    if number is None:
        raise TypeError(f"{function}: {name} must be an int, got {value!r}")
    if number < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{function}: {name} must be at most {maximum}, got {number}")
    return number


def per_axis(function: str, name: str, value: Any, rank: int, *, minimum: int) -> tuple[int, ...]:
    """One int for each of `rank` spatial axes, from an int (all the same) or a sequence of that length."""
    number = _int_or_none(value)
    numbers: list[int | None] = [number] * rank if number is not None else ints_or_nones(value)
    if len(numbers) != rank or None in numbers:
        raise (ValueError if numbers and None not in numbers else TypeError)(
            f"{function}: {name} must be an int or a tuple of {rank} ints (one per spatial axis), "
            f"got {value!r}"
        )
    result = tuple(n for n in numbers if n is not None)
    if min(result) < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value!r}")
    return result


def window_of(function: str, x: Any, window: Any, *, name: str = "window", of: str = "x") -> tuple[int, ...]:
    """A window as a tuple; an int says nothing about the number of axes and is taken for a 4-D `x` only."""
    if _int_or_none(window) is not None:
        shape = as_array(function, of, x).shape
        if len(shape) != 4:
            hint = f"; a single image needs {of}[None]" if len(shape) == 3 else ""
            raise ValueError(
                f"{function}: {name} must be a tuple with one int per spatial axis, unless {of} is a 4-D "
                f"batch of images, got {name}={window} for {of} of shape {shape}{hint}"
            )
    return canonical_window(function, window, name=name)


def canonical_window(function: str, window: Any, *, name: str = "window") -> tuple[int, ...]:
    """A window as a tuple of 1 to 3 ints, where no `x` is there to ask: an int means two spatial axes."""
    numbers = ints_or_nones(window)
    rank = 2 if _int_or_none(window) is not None else len(numbers)
    if rank not in SPATIAL_RANKS:
        raise (TypeError if elements(window) is None else ValueError)(
            f"{function}: {name} must be an int or a tuple of 1 to 3 ints, got {window!r}"
        )
    return per_axis(function, name, window, rank, minimum=1)


def as_keys(function: str, key: Any) -> jax.Array:
    """A typed random key, or typed keys, from typed or raw ones."""
    if not isinstance(key, jax.Array):
        raise TypeError(f"{function}: key must come from jax.random.key, got {type(key).__name__}")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    try:
        return jax.random.wrap_key_data(key)  # the uint32 words of jax.random.PRNGKey
    except TypeError:
        raise TypeError(
            f"{function}: key must come from jax.random.key, got {key.dtype} of shape {key.shape}"
        ) from None


def check_one_or_per_example(function: str, key: jax.Array, batch: int) -> None:
    """Refuse keys that are neither one nor one for each example."""
    if key.shape not in ((), (batch,)):
        raise ValueError(
            f"{function}: key must be one key or one for each of the {batch} examples, "
            f"got keys of shape {key.shape}"
        )


def check_rate(function: str, rate: Any) -> None:
    """Refuse a probability that is no number in [0, 1], or one that is known only at run time."""
    check_number(function, "rate", rate, minimum=0, maximum=1)


def check_number(
    function: str, name: str, value: Any, *, minimum: float | int, maximum: float | int = math.inf
) -> None:
    """Refuse what is no number, out of range, infinite, or known only at run time."""
    if not is_number(value) or not minimum <= value <= maximum or value == math.inf:
        range_ = f"of at least {minimum}" if maximum == math.inf else f"in [{minimum}, {maximum}]"
        raise ValueError(f"{function}: {name} must be a Python number {range_}, got {value!r}")


def as_floating_dtype(owner: str, dtype: DTypeLike) -> jnp.dtype:
    """The dtype to compute in."""
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise TypeError(f"{owner}: dtype must be a floating dtype or None, got {dtype!r}")
    return known


def check_eps(function: str, eps: Any) -> None:
    """Refuse an eps that would let a constant input divide by zero, rounded to float32 too."""
    if not is_number(eps):
        raise TypeError(f"{function}: eps must be a Python number, got {eps!r}")
    if not np.finfo(np.float32).tiny <= eps < float("inf"):
        raise ValueError(
            f"{function}: eps must be a positive number (a constant input has variance 0) that float32 "
            f"holds, got {eps!r}"
        )


def is_number(value: Any) -> bool:
    """Whether the value is a real number of Python or NumPy, and no bool."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def elements(value: Any) -> list[Any] | None:
    """The elements of a sequence or of an array with axes; None for all else, strings too."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def _int_or_none(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def ints_or_nones(value: Any) -> list[int | None]:
    """The elements of a sequence, None for one that is no int; nothing for what is no sequence."""
    return [_int_or_none(element) for element in elements(value) or []]
