"""What is asked of a shape: a function of two examples (x, kernel, dy), and the same by the reference."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import linen

from tests.fuzz.draw import Case
from tests.fuzz.reference import Reference
from tests.lowering.oracle import Problem

DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
SCALES = (1, 2, -1, 0.5)  # of the four examples of pmap: powers of two, so the reference is scaled exactly


class Form(NamedTuple):
    """Both functions take x, kernel, dy, and another x, kernel and dy."""

    convolutions: int  # and gradients of one
    function: Callable[..., Any]
    reference: Callable[..., tuple[Any, ...]]


def examples(case: Case) -> tuple[Any, ...]:
    """Two examples of x, kernel and dy."""
    first, second = (list(case.problem.arrays(seed, DTYPES[case.dtype])) for seed in (0, 1))
    if case.special:  # in one place of x, of the kernel or of dy
        array = first[case.operand]
        if array.size:
            array.flat[array.size // 2] = float(case.special)
    return (*first, *second)


def form(case: Case, name: str) -> Form:
    """The form of that name."""
    problem, exact = case.problem, Reference(case.problem)
    all_three = _three(exact)

    def dx(x, kernel, dy, *_):
        return jax.vjp(lambda x: problem.conv(x, kernel), x)[1](dy)

    def dkernel(x, kernel, dy, *_):
        return jax.vjp(lambda kernel: problem.conv(x, kernel), kernel)[1](dy)

    def jvp(x, kernel, _, x_dot, kernel_dot, __):
        return (jax.jvp(problem.conv, (x, kernel), (x_dot, kernel_dot))[1],)

    def jvp_reference(x, kernel, _, x_dot, kernel_dot, __):
        return (exact.y(x_dot, kernel) + exact.y(x, kernel_dot),)

    def squares(x, kernel, dy):
        """Half of |dx|^2 + |dkernel|^2, whose gradients are the three products of dx and of dkernel again."""
        _, dx, dkernel = problem.and_gradients(x, kernel, dy)
        return (jnp.sum(dx * dx) + jnp.sum(dkernel * dkernel)) / 2

    def second(x, kernel, dy, *_):
        return jax.grad(squares, (0, 1, 2))(x, kernel, dy)

    def second_reference(x, kernel, dy, *_):
        dx, dkernel = exact.dx(kernel, dy), exact.dkernel(x, dy)
        return exact.dx(dkernel, dy), exact.dkernel(dx, dy), exact.y(x, dkernel) + exact.y(dx, kernel)

    axes = {"x": (0, None, 0), "kernel": (None, 0, 0), "both": (0, 0, 0)}[case.mapped]

    def pairs(first, second, stack):
        return [
            stack(pair) if axis == 0 else pair[0] for axis, *pair in zip(axes, first, second, strict=True)
        ]

    def vmap(*six):
        return jax.vmap(problem.and_gradients, axes)(*pairs(six[:3], six[3:], jnp.stack))

    def vmap_reference(*six):
        other = [b if axis == 0 else a for axis, a, b in zip(axes, six[:3], six[3:], strict=True)]
        return tuple(np.stack(two) for two in zip(all_three(*six), all_three(*other), strict=True))

    def pmap_reference(xs, kernels, dys, *_):
        found = all_three(xs[0], kernels[0], dys[0])
        return tuple(
            np.stack([result * factor for factor in factors])
            for result, factors in zip(found, (SCALES, SCALES, [s * s for s in SCALES]), strict=True)
        )

    table = {
        "y": Form(1, lambda x, kernel, *_: (problem.conv(x, kernel),), lambda x, k, *_: (exact.y(x, k),)),
        "dx": Form(1, dx, lambda x, kernel, dy, *_: (exact.dx(kernel, dy),)),
        "dkernel": Form(1, dkernel, lambda x, kernel, dy, *_: (exact.dkernel(x, dy),)),
        "jvp": Form(2, jvp, jvp_reference),
        "vmap": Form(3, vmap, vmap_reference),
        "second": Form(6, second, second_reference),
        "pmap": Form(3, lambda x, kernel, dy, *_: problem.and_gradients(x, kernel, dy), pmap_reference),
        "flax": Form(3, _flax(problem), all_three),
    }
    return table[name]


def of_devices(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """One example for each of four devices: x and dy scaled, the kernel the same."""
    x, kernel, dy = (
        np.stack([array * np.asarray(scale, array.dtype) for scale in scales])
        for array, scales in zip(arrays[:3], (SCALES, (1,) * 4, SCALES), strict=True)
    )
    return x, kernel, dy


def _three(exact: Reference) -> Callable[..., tuple[Any, ...]]:
    return lambda x, kernel, dy, *_: (exact.y(x, kernel), exact.dx(kernel, dy), exact.dkernel(x, dy))


def _flax(problem: Problem) -> Callable[..., Any]:
    layer = linen.Conv(
        problem.channels_out,
        problem.window,
        problem.stride,
        problem.padding,
        problem.lhs_dilation,
        problem.dilation,
        problem.groups,
        use_bias=False,
    )

    def function(x, kernel, dy, *_):
        y, pull = jax.vjp(lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x), x, kernel)
        return y, *pull(dy)

    return function
