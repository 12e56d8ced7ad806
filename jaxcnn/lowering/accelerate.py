"""The switch: rewrites on or off for what is traced inside."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from jaxcnn.lowering.rules import register
from jaxcnn.lowering.tag import tagging

Function = TypeVar("Function", bound=Callable[..., Any])


class accelerate:
    """Compile every convolution and pooling traced inside with the rewrites of this package, or without.

    The functions of `jaxcnn.functional` ask for the rewrites by themselves; this asks for them on behalf of
    any other library. It is a context manager and a decorator:

        with jaxcnn.accelerate():
            loss, gradients = jax.jit(jax.value_and_grad(loss_of_a_flax_model))(parameters)

        @jaxcnn.accelerate(False)
        def as_jax_compiles_it(x): ...

    What counts is where a function is traced: one that was compiled ahead of time (`.lower().compile()`)
    outside, and a thread started inside, do not see it. A function jitted and called outside before is traced
    again inside. Values and derivatives stay the same up to rounding.

    With `onednn=False` the rewrites stay, but none becomes the instruction that XLA has for oneDNN: slower,
    and every program can be serialized. JAXCNN_ONEDNN=0 in the environment does that for a whole process.

    Args:
        enabled: False turns the rewrites off, in jaxcnn's own functions too, and wins over any True.
        onednn: False keeps oneDNN's instruction out, in jaxcnn's own functions too, and wins over any True.

    Raises:
        TypeError: enabled or onednn is not a bool.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, kernel = jnp.ones((1, 4, 8, 8)), jnp.ones((4, 1, 3, 3))
        >>> with accelerate():
        ...     y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", feature_group_count=4)
        >>> float(y[0, 0, 4, 4])
        9.0
    """

    def __init__(self, enabled: bool = True, *, onednn: bool = True) -> None:
        for name, value in (("enabled", enabled), ("onednn", onednn)):
            if not isinstance(value, bool):
                hint = "; as a decorator it is written @accelerate()" if callable(value) else ""
                raise TypeError(f"accelerate: {name} must be a bool, got {value!r}{hint}")
        self.enabled, self.onednn = enabled, onednn
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        register()
        context = tagging(rewrites=self.enabled, onednn=self.onednn)
        context.__enter__()
        self._entered.append(context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered.pop().__exit__(kind, error, traceback)

    def __call__(self, function: Function) -> Function:
        """The same function, every call of it inside."""

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with accelerate(self.enabled, onednn=self.onednn):
                return function(*args, **kwargs)

        return inside  # pyright: ignore[reportReturnType]
