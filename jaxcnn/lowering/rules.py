"""JAX's lowering rules for marked convolutions and pooling gradients.

This is the one place that knows JAX's private tables: the rule that was in force before ours is looked up
there, and everything that is not marked or not eligible is handed on to it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import mlir

from jaxcnn.lowering.choice import lower
from jaxcnn.lowering.convolution import convolution_of, from_channels_last, to_channels_last
from jaxcnn.lowering.mark import is_marked, rewriting

PLATFORM = "cpu"


@functools.cache
def register() -> bool:
    """Put the rules in front of those in force; False, and nothing done, where JAX does not show them."""
    primitives = (jax.lax.conv_general_dilated_p,)
    try:
        in_force = {primitive: _rule_in_force(primitive) for primitive in primitives}
    except (ImportError, AttributeError, KeyError):
        return False
    mlir.register_lowering(
        jax.lax.conv_general_dilated_p,
        functools.partial(_lower_convolution, in_force[jax.lax.conv_general_dilated_p]),
        platform=PLATFORM,
    )
    return True


def _rule_in_force(primitive: Any) -> Callable[..., Any]:
    from jax._src.interpreters import mlir as private

    of_platform = private._platform_specific_lowerings[PLATFORM]
    entry = of_platform[primitive] if primitive in of_platform else private._lowerings[primitive]
    return entry.rule


def _lower_convolution(handed_on: Callable[..., Any], ctx: Any, x: Any, kernel: Any, **params: Any) -> Any:
    if not _is_eligible(ctx):
        return handed_on(ctx, x, kernel, **params)
    (x_aval, kernel_aval), (y_aval,) = ctx.avals_in, ctx.avals_out
    conv = convolution_of(x_aval, kernel_aval, y_aval, params, partitioned=_is_partitioned(ctx))
    numbers = params["dimension_numbers"]
    wide = jnp.float64 if jnp.float64 in (x_aval.dtype, kernel_aval.dtype, y_aval.dtype) else jnp.float32

    def rewritten(x: jax.Array, kernel: jax.Array) -> jax.Array:
        with rewriting():
            y = lower(
                conv,
                to_channels_last(x.astype(wide), numbers.lhs_spec),
                to_channels_last(kernel.astype(wide), numbers.rhs_spec, kernel=True),
            )
            return from_channels_last(y.astype(y_aval.dtype), numbers.out_spec)

    return _lower_as(rewritten, ctx, x, kernel)


def _lower_as(rewritten: Callable[..., jax.Array], ctx: Any, *operands: Any) -> Any:
    # Plain shapes: what a mesh says about the operands stands in the program around the equation.
    plain = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return mlir.lower_fun(rewritten, multiple_results=False)(ctx.replace(avals_in=plain), *operands)


def _is_eligible(ctx: Any) -> bool:
    """Marked, of real floating dtypes that CPUs compute with, of known shape, no axis divided explicitly."""
    if ctx.jaxpr_eqn_ctx is None or not is_marked(ctx.jaxpr_eqn_ctx.xla_metadata):
        return False
    return all(_is_plain(aval) for aval in (*ctx.avals_in, *ctx.avals_out))


def _is_plain(aval: Any) -> bool:
    floats: Sequence[Any] = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
    known = all(isinstance(size, int) and size > 0 for size in aval.shape)
    divided = any(part is not None for part in getattr(aval.sharding, "spec", ()))
    return known and not divided and any(aval.dtype == dtype for dtype in floats)


def _is_partitioned(ctx: Any) -> bool:
    """Whether XLA will divide the program over devices by itself (jit over a mesh, no shard_map)."""
    context = ctx.module_context.axis_context
    return getattr(context, "num_devices", 1) != 1
