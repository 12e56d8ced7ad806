"""Random regularisation, the key first.

The key may be a batch of keys, one for each example. Then what an example meets depends on its own key
alone, and so not on how the batch is split over devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.functional.checks import (
    AnyArray,
    KeyOrKeys,
    as_floating,
    as_keys,
    check_one_or_per_example,
    check_rate,
)


def dropout(
    key: KeyOrKeys, x: Float[AnyArray, "batch *rest"], rate: float | int
) -> Float[Array, "batch *rest"]:
    """Set each element to zero with probability `rate` and scale the rest, so that the mean stays.

        y = x * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each element

    Args:
        key: one key, or one key for each example.
        x: (batch, ...).
        rate: probability of zero, in [0, 1]; a Python number.

    Returns:
        y, of x's shape and dtype.

    Raises:
        ValueError: a rate outside [0, 1] or a number of keys that is not the batch.
        TypeError: a key that is no key, an x that is not floating.

    Reference:
        Srivastava et al., "Dropout", 2014; torch.nn.functional.dropout.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> dropout(jax.random.key(1), jnp.ones((2, 4)), 0.5).tolist()
        [[..., ...]]
    """
    return _drop("dropout", key, x, rate, lambda shape: shape)


def drop_path(
    key: KeyOrKeys, x: Float[AnyArray, "batch *rest"], rate: float | int
) -> Float[Array, "batch *rest"]:
    """Set whole examples to zero with probability `rate` and scale the rest: stochastic depth.

        y[b] = x[b] * keep[b] / (1 - rate),  keep[b] ~ Bernoulli(1 - rate)

    Args:
        key: one key, or one key for each example.
        x: (batch, ...), the branch of a residual block.
        rate: probability of zero, in [0, 1]; a Python number.

    Returns:
        y, of x's shape and dtype.

    Raises:
        ValueError: a rate outside [0, 1] or a number of keys that is not the batch.
        TypeError: a key that is no key, an x that is not floating.

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", 2016; torchvision.ops.stochastic_depth with
        mode "row".

    Example:
        >>> import jax, jax.numpy as jnp
        >>> y = drop_path(jax.random.key(0), jnp.ones((8, 3)), 0.5)
        >>> bool(((y == 0).all(axis=1) | (y == 2).all(axis=1)).all())
        True
    """
    return _drop("drop_path", key, x, rate, lambda shape: (1,) * len(shape))


def _drop(
    function: str,
    key: Array,
    x: AnyArray,
    rate: float,
    mask_shape: Callable[[tuple[int, ...]], tuple[int, ...]],
) -> Array:
    """Drop with one decision for each element of `mask_shape(shape of an example)`."""
    key = as_keys(function, key)
    x = as_floating(function, "x", x)
    if x.ndim == 0:
        raise ValueError(f"{function}: x must have a batch axis, got a scalar")
    check_rate(function, rate)
    check_one_or_per_example(function, key, x.shape[0])
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    keep = 1 - rate
    shape = mask_shape(x.shape[1:])
    if key.ndim == 0:
        mask = jax.random.bernoulli(key, keep, (x.shape[0], *shape))
    else:
        mask = jax.vmap(lambda one: jax.random.bernoulli(one, keep, shape))(key)
    return jnp.where(jnp.broadcast_to(mask, x.shape), x / keep, 0)
