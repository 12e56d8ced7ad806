"""JAX's lowering rules for tagged convolutions and pooling, and for their derivatives.

This is the one place that knows JAX's private tables: the rule that was in force before ours is looked up
there, and everything that is not tagged or not eligible is handed on to it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.interpreters import mlir

from jaxcnn.lowering import pooling
from jaxcnn.lowering.choice import lower
from jaxcnn.lowering.convolution import convolution_of, from_channels_last, to_channels_last
from jaxcnn.lowering.onednn.available import is_switched_off
from jaxcnn.lowering.tag import allows_onednn, is_forbidden, is_tagged, rewriting

PLATFORM = "cpu"


@functools.cache
def register() -> bool:
    """Put the rules in front of those in force; False, and nothing done, where JAX does not show them."""
    is_switched_off()  # the environment is read now
    rules: dict[Any, Callable[..., Any]] = {
        jax.lax.conv_general_dilated_p: _lower_convolution,
        jax.lax.reduce_window_max_p: _lower_pooling("reduce_window_max"),
        jax.lax.reduce_window_sum_p: _lower_pooling("reduce_window_sum"),
        jax.lax.select_and_scatter_add_p: _lower_pooling("select_and_scatter_add"),
    }
    try:
        in_force = {primitive: _rule_in_force(primitive) for primitive in rules}
    except (ImportError, AttributeError, KeyError):
        return False
    for primitive, rule in rules.items():
        mlir.register_lowering(primitive, functools.partial(rule, in_force[primitive]), platform=PLATFORM)
    return True


def _rule_in_force(primitive: Any) -> Callable[..., Any]:
    from jax._src.interpreters import mlir as private

    of_platform = private._platform_specific_lowerings[PLATFORM]
    entry = of_platform[primitive] if primitive in of_platform else private._lowerings[primitive]
    return entry.rule


def _lower_convolution(fallback: Callable[..., Any], ctx: Any, x: Any, kernel: Any, **params: Any) -> Any:
    if not _is_eligible(ctx):
        return fallback(ctx, x, kernel, **params)
    (x_aval, kernel_aval), (y_aval,) = ctx.avals_in, ctx.avals_out
    conv = convolution_of(
        x_aval,
        kernel_aval,
        y_aval,
        params,
        partitioned=_is_partitioned(ctx),
        onednn=allows_onednn(ctx.jaxpr_eqn_ctx.xla_metadata),
    )
    numbers = params["dimension_numbers"]

    def rewritten(x: jax.Array, kernel: jax.Array) -> jax.Array:
        with rewriting():
            y = lower(
                conv,
                to_channels_last(x.astype(conv.dtype), numbers.lhs_spec),
                to_channels_last(kernel.astype(conv.dtype), numbers.rhs_spec, kernel=True),
            )
            return from_channels_last(y.astype(y_aval.dtype), numbers.out_spec)

    return _lower_as(rewritten, ctx, x, kernel)


def _lower_pooling(kind: str) -> Callable[..., Any]:
    def rule(fallback: Callable[..., Any], ctx: Any, *operands: Any, **params: Any) -> Any:
        if not _is_eligible(ctx):
            return fallback(ctx, *operands, **params)
        (y_aval,) = ctx.avals_out
        pool = pooling.pooling_of(kind, ctx.avals_in, y_aval, params, partitioned=_is_partitioned(ctx))
        if pooling.choose(pool) is None:
            return fallback(ctx, *operands, **params)
        wide = _wide(*ctx.avals_in)

        def rewritten(*operands: jax.Array) -> jax.Array:
            with rewriting():
                return pooling.lower(pool, *(a.astype(wide) for a in operands)).astype(y_aval.dtype)

        return _lower_as(rewritten, ctx, *operands)

    return rule


def _wide(*avals: Any) -> Any:
    """The dtype to compute in."""
    return jnp.float64 if any(aval.dtype == jnp.float64 for aval in avals) else jnp.float32


def _lower_as(rewritten: Callable[..., jax.Array], ctx: Any, *operands: Any) -> Any:
    # Plain shapes: what a mesh says about the operands stands in the program around the equation.
    plain = [ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return mlir.lower_fun(rewritten, multiple_results=False)(ctx.replace(avals_in=plain), *operands)


def _is_eligible(ctx: Any) -> bool:
    eqn_ctx = ctx.jaxpr_eqn_ctx
    return eqn_ctx is not None and not fallback_reason(eqn_ctx.xla_metadata, (*ctx.avals_in, *ctx.avals_out))


def fallback_reason(metadata: Mapping[str, Any] | None, avals: Sequence[Any]) -> str | None:
    """Why an equation with this metadata and these operands and results is left to JAX; None if it is not."""
    if is_forbidden(metadata):
        return "accelerate(False) is around it"
    if not is_tagged(metadata):
        return "not tagged: no accelerate() is around it"
    return next(filter(None, map(_not_plain, avals)), None)


def _not_plain(aval: Any) -> str | None:
    floats: Sequence[Any] = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
    if not any(aval.dtype == dtype for dtype in floats):
        return f"{aval.dtype}: the rewrites are for real floating dtypes"
    if not all(isinstance(size, int) for size in aval.shape):
        return "its shape is not known when it is compiled"
    if 0 in aval.shape:
        return "nothing to compute: an axis is empty"
    if any(part is not None for part in getattr(aval.sharding, "spec", ())):
        return "an explicit mesh divides it over devices"
    return None


def _is_partitioned(ctx: Any) -> bool:
    """Whether XLA will divide the program over devices by itself (jit over a mesh, no shard_map).

    So may the one who reads an exported program; it may not hold a layout either, which JAX refuses to write.
    """
    module = ctx.module_context
    return module.lowering_parameters.for_export or getattr(module.axis_context, "num_devices", 1) != 1
