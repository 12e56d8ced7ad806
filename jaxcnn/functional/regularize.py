"""Random regularisation, the key first.

The key may be a batch of keys, one for each example. Then what an example meets depends on its own key
alone, and so not on how the batch is split over devices.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.functional.checks import (
    AnyArray,
    KeyOrKeys,
    PerAxis,
    as_floating,
    as_images_and_window,
    as_keys,
    check_images_shape,
    check_one_or_per_example,
    check_rate,
    widen,
)
from jaxcnn.functional.pool import max_pool


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
        >>> y = dropout(jax.random.key(1), jnp.ones((2, 100)), 0.5)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]
    """
    key, x = _operands("dropout", key, x, rate)
    return _drop(key, x, rate, x.shape[1:])


def channel_dropout(
    key: KeyOrKeys, x: Float[AnyArray, "batch *spatial channels"], rate: float | int
) -> Float[Array, "batch *spatial channels"]:
    """Set whole channels of an example to zero with probability `rate` and scale the rest.

        y[b, i, c] = x[b, i, c] * keep[b, c] / (1 - rate),  keep[b, c] ~ Bernoulli(1 - rate)

    Neighbouring pixels of a channel say nearly the same, so that `dropout` of single ones removes little.

    Args:
        key: one key, or one key for each example.
        x: images (batch, *spatial, channels).
        rate: probability of zero, in [0, 1]; a Python number.

    Returns:
        y, of x's shape and dtype.

    Raises:
        ValueError: a rate outside [0, 1], a wrong shape or a number of keys that is not the batch.
        TypeError: a key that is no key, an x that is not floating.

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015, section 3.2;
        torch.nn.functional.dropout1d, dropout2d and dropout3d.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> y = channel_dropout(jax.random.key(0), jnp.ones((2, 4, 3, 8)), 0.5)
        >>> bool(((y == 0).all(axis=(1, 2)) | (y == 2).all(axis=(1, 2))).all())
        True
    """
    key, x = _operands("channel_dropout", key, x, rate)
    check_images_shape("channel_dropout", x)
    return _drop(key, x, rate, (*(1,) * (x.ndim - 2), x.shape[-1]))


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
    key, x = _operands("drop_path", key, x, rate)
    return _drop(key, x, rate, (1,) * (x.ndim - 1))


def drop_block(
    key: KeyOrKeys, x: Float[AnyArray, "batch *spatial channels"], rate: float | int, block: PerAxis
) -> Float[Array, "batch *spatial channels"]:
    """Set blocks of each channel to zero, about `rate` of all elements, and scale the rest of the example.

    A block starts, channel by channel, at each place where it fits, with probability

        gamma = rate * prod(size) / (prod(block) * prod(size - block + 1))

    for spatial axes of `size` elements, and what is kept is scaled so that the mean stays,

        y[b] = x[b] * keep[b] * keep[b].size / sum(keep[b])

    Blocks overlap, so less than `rate` is dropped on average, the less the larger the rate.

    Args:
        key: one key, or one key for each example.
        x: images (batch, *spatial, channels).
        rate: the part to drop, in [0, 1]; a Python number.
        block: size of a block: a tuple with one int per spatial axis; an int for a batch of 2-D images.

    Returns:
        y, of x's shape and dtype. An example that is dropped as a whole is zero.

    Raises:
        ValueError: a rate outside [0, 1], a block larger than the image, a wrong shape or a number of keys
            that is not the batch.
        TypeError: a key that is no key, an x that is not floating.

    Reference:
        Ghiasi, Lin and Le, "DropBlock", 2018; torchvision.ops.drop_block2d and drop_block3d, which scale by
        what the whole batch keeps. Here each example has its own scale, so that with a key for each example
        the result does not depend on how a batch is split.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> y = drop_block(jax.random.key(3), jnp.ones((1, 4, 5, 1)), 0.2, 2)
        >>> print(y[0, ..., 0])
        [[0.   0.   1.25 1.25 1.25]
         [0.   0.   1.25 1.25 1.25]
         [1.25 1.25 1.25 1.25 1.25]
         [1.25 1.25 1.25 1.25 1.25]]
    """
    function = "drop_block"
    key, x = _operands(function, key, x, rate)
    x, block = as_images_and_window(function, x, block, name="block")
    size = x.shape[1:-1]
    places = tuple(n - b + 1 for n, b in zip(size, block, strict=True))
    if min(places) < 1:
        raise ValueError(f"{function}: block must fit into the spatial size {size} of x, got {block}")
    if rate == 0:
        return x
    gamma = rate * math.prod(size) / (math.prod(block) * math.prod(places))
    starts = _bernoulli(key, gamma, x.shape[0], (*places, x.shape[-1]))
    # An element falls if a block starts at most block - 1 before it.
    reach = tuple((b - 1, b - 1) for b in block)
    keep = max_pool(starts.astype(x.dtype), block, stride=1, padding=reach) == 0
    kept = keep.sum(axis=range(1, x.ndim), keepdims=True, dtype=jnp.float32)
    wide = widen(x)
    scale = math.prod(x.shape[1:]) / jnp.maximum(kept, 1)
    return jnp.where(keep, wide * scale.astype(wide.dtype), 0).astype(x.dtype)


def _operands(function: str, key: Array, x: AnyArray, rate: float | int) -> tuple[Array, Array]:
    key = as_keys(function, key)
    x = as_floating(function, "x", x)
    if x.ndim == 0:
        raise ValueError(f"{function}: x must have a batch axis, got a scalar")
    check_rate(function, rate)
    check_one_or_per_example(function, key, x.shape[0])
    return key, x


def _drop(key: Array, x: Array, rate: float | int, mask_shape: tuple[int, ...]) -> Array:
    """Drop with one decision for each element of an example's mask, which is broadcast."""
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    keep = 1 - rate
    mask = _bernoulli(key, keep, x.shape[0], mask_shape)
    return jnp.where(jnp.broadcast_to(mask, x.shape), widen(x) / keep, 0).astype(x.dtype)


def _bernoulli(key: Array, probability: float, batch: int, shape: tuple[int, ...]) -> Array:
    """True with that probability, (batch, *shape), from one key or from one for each example."""
    if key.ndim == 0:
        return jax.random.bernoulli(key, probability, (batch, *shape))
    return jax.vmap(lambda one: jax.random.bernoulli(one, probability, shape))(key)
