"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift.

Statistics are taken in float32 or wider and in two passes over differences from one element of the data.
E[x^2] - E[x]^2, the usual single pass, loses all digits of the variance where |mean| is much larger than the
standard deviation; so does a plain sum of many large values.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxcnn.functional.checks import (
    SPATIAL_RANKS,
    AnyArray,
    as_array,
    as_floating,
    as_images,
    as_int,
    check_eps,
    check_shape,
    ints_or_nones,
    widen,
)


def batch_stats(
    x: Float[AnyArray, "batch *spatial channels"],
    *,
    axis_name: str | None = None,
    mask: Bool[AnyArray, "batch *spatial"] | None = None,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"], Float[Array, ""]]:
    """Mean and biased variance of every channel, over the batch and all positions.

        mean[c] = sum_{b, i} x[b, i, c] / n        var[c] = sum_{b, i} (x[b, i, c] - mean[c])^2 / n

    Args:
        x: (batch, *spatial, channels); no spatial axis is needed.
        axis_name: a mapped axis of pmap, vmap or shard_map over which the statistics are pooled as well.
        mask: (batch, *spatial) of bools; what is False does not count, whatever stands there.

    Returns:
        mean and var (channels,) and the count n, all in float32 or wider. The unbiased variance that running
        statistics keep is var * n / (n - 1). A mask that is False everywhere gives zeros.

    Raises:
        ValueError: a wrong shape, or a single value per channel, whose variance says nothing.
        TypeError: an x that is not floating or a mask that is not bool.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1; Chan, Golub and LeVeque, "Algorithms for
        Computing the Sample Variance", 1983, for the shift and the second pass.

    Example:
        >>> import jax.numpy as jnp
        >>> mean, var, count = batch_stats(jnp.array([[1.0, 0.0], [3.0, 8.0]]))
        >>> mean.tolist(), var.tolist(), count.item()
        ([2.0, 4.0], [1.0, 16.0], 2.0)
    """
    function = "batch_stats"
    x = _as_features(function, x)
    size = math.prod(x.shape[:-1])
    devices = 1 if axis_name is None else _devices(function, axis_name)
    if size * devices < 2:
        raise ValueError(
            f"{function}: x must have more than one value per channel, got shape {x.shape}, that is {size}"
        )
    rows = widen(x).reshape(size, x.shape[-1])
    pool = (lambda total: total) if axis_name is None else partial(lax.psum, axis_name=axis_name)

    if mask is None:
        count = jnp.asarray(size * devices, rows.dtype)
        pivot = pool(rows[0]) / devices
        # The mean is a constant here, and what is left of it a remainder near 0: E[x^2] - E[x]^2 then loses
        # nothing, and both sums, and their gradients, are taken in one pass.
        centre = lax.stop_gradient(pivot + pool((rows - pivot[None]).sum(axis=0)) / count)
        shifted = rows - centre[None]
        sums = pool((shifted.sum(axis=0), jnp.square(shifted).sum(axis=0)))
        mean, square = (total / count for total in sums)
        var = square - jnp.square(mean)
        return centre + mean, jnp.where(var < 0, 0, var), count  # below 0 by rounding

    mask = as_array(function, "mask", mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"{function}: mask must have dtype bool, got {mask.dtype}")
    check_shape(function, "mask", mask, x.shape[:-1], "x without its channels")
    inside = mask.reshape(size, 1)
    rows = jnp.where(inside, rows, 0)  # first of all, so that inf and nan under the mask reach no gradient
    count = pool(inside.sum(dtype=rows.dtype))
    divisor = jnp.maximum(count, 1)
    first = jnp.argmax(inside[:, 0])  # the pivot is the mean over the devices of the first value that counts
    holders = pool(inside[first, 0].astype(rows.dtype))
    pivot = lax.stop_gradient(pool(rows[first]) / jnp.maximum(holders, 1))
    shifted = jnp.where(inside, rows - pivot[None], 0)
    mean = pool(shifted.sum(axis=0)) / divisor
    var = pool(jnp.where(inside, jnp.square(shifted - mean[None]), 0).sum(axis=0)) / divisor
    return pivot + mean, var, count


def batch_norm(
    x: Float[AnyArray, "batch *spatial channels"],
    mean: Float[AnyArray, " channels"],
    var: Float[AnyArray, " channels"],
    scale: Float[AnyArray, " channels"] | None = None,
    bias: Float[AnyArray, " channels"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "batch *spatial channels"]:
    """Normalise every channel with the given statistics.

        y[b, i, c] = (x[b, i, c] - mean[c]) / sqrt(var[c] + eps) * scale[c] + bias[c]

    Args:
        x: (batch, *spatial, channels); no spatial axis is needed.
        mean: (channels,), from `batch_stats` in training or a running mean in evaluation.
        var: (channels,), the biased variance of the batch or a running variance.
        scale: (channels,), 1 by default.
        bias: (channels,), 0 by default.
        eps: added to the variance.

    Returns:
        x normalised, computed in the widest dtype of all arguments and at least float32, of x's dtype.

    Raises:
        ValueError: wrong shapes or an eps that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; torch.nn.functional.batch_norm.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (4, 6, 5, 3)) * 2 + 1
        >>> mean, var, _ = batch_stats(x)
        >>> bool(abs(batch_norm(x, mean, var).std() - 1) < 1e-3)
        True
    """
    function = "batch_norm"
    x = _as_features(function, x)
    check_eps(function, eps)
    optional = {name: value for name, value in {"scale": scale, "bias": bias}.items() if value is not None}
    arguments = {"mean": mean, "var": var} | optional
    given = {name: per_channel(function, name, value, x) for name, value in arguments.items()}
    # Cast by hand: strict promotion refuses to mix the dtypes of x and of wider statistics.
    dtype = np.result_type(*(widen(value).dtype for value in (x, *given.values())))
    given = {name: value.astype(dtype) for name, value in given.items()}
    factor = lax.rsqrt(given["var"] + eps)
    if "scale" in given:
        factor = factor * given["scale"]
    y = (x.astype(dtype) - given["mean"]) * factor
    if "bias" in given:
        y = y + given["bias"]
    return y.astype(x.dtype)


def layer_norm(
    x: Float[AnyArray, "batch *rest"],
    scale: Float[AnyArray, "*normalized"] | None = None,
    bias: Float[AnyArray, "*normalized"] | None = None,
    *,
    axes: int | Sequence[int] = -1,
    eps: float = 1e-5,
) -> Float[Array, "batch *rest"]:
    """Normalise each example over the given axes, by default over the channels of each position.

        y = (x - mean(x, axes)) / sqrt(var(x, axes) + eps) * scale + bias

    Args:
        x: (batch, *spatial, channels); no spatial axis is needed.
        scale: of the shape of x's normalised axes, 1 by default.
        bias: of the shape of x's normalised axes, 0 by default.
        axes: the normalised axes, not the batch.
        eps: added to the variance.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: wrong axes or shapes, or an eps that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Ba, Kiros and Hinton, "Layer Normalization", 2016; torch.nn.functional.layer_norm, which normalises
        trailing axes.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 16))
        >>> bool(abs(layer_norm(x).mean(axis=-1)).max() < 1e-6)
        True
    """
    function = "layer_norm"
    x = _as_features(function, x)
    check_eps(function, eps)
    normalized = _normalized_axes(function, axes, x)
    scale = _over_axes(function, "scale", scale, x, normalized)
    bias = _over_axes(function, "bias", bias, x, normalized)
    return _affine(_standardize(x, normalized, eps), scale, bias, x)


def rms_norm(
    x: Float[AnyArray, "batch *rest"],
    scale: Float[AnyArray, "*normalized"] | None = None,
    *,
    axes: int | Sequence[int] = -1,
    eps: float = 1e-6,
) -> Float[Array, "batch *rest"]:
    """Divide each example by its root mean square over the given axes, by default over the channels.

        y = x / sqrt(mean(x^2, axes) + eps) * scale

    Args:
        x: (batch, *spatial, channels); no spatial axis is needed.
        scale: of the shape of x's normalised axes, 1 by default.
        axes: the normalised axes, not the batch.
        eps: added to the mean square.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: wrong axes or shapes, or an eps that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; torch.nn.functional.rms_norm, which
        normalises trailing axes and whose eps is by default that of the dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> y = rms_norm(jnp.array([[1.0, 7.0]]))  # the root mean square is 5
        >>> round(y[0, 1].item(), 4)
        1.4
    """
    function = "rms_norm"
    x = _as_features(function, x)
    check_eps(function, eps)
    normalized = _normalized_axes(function, axes, x)
    scale = _over_axes(function, "scale", scale, x, normalized)
    wide = widen(x)
    factor = lax.rsqrt(jnp.square(wide).mean(normalized, keepdims=True) + eps)
    return _affine(wide * factor, scale, None, x)


def group_norm(
    x: Float[AnyArray, "batch *spatial channels"],
    groups: int,
    scale: Float[AnyArray, " channels"] | None = None,
    bias: Float[AnyArray, " channels"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "batch *spatial channels"]:
    """Normalise each example over its positions and each of `groups` equal runs of channels.

        y[b, i, c] = (x[b, i, c] - mean[b, g]) / sqrt(var[b, g] + eps) * scale[c] + bias[c],
        g = c // (channels // groups)

    Args:
        x: (batch, *spatial, channels); no spatial axis is needed.
        groups: runs of channels; 1 normalises the whole example, `channels` is `instance_norm`.
        scale: (channels,), 1 by default.
        bias: (channels,), 0 by default.
        eps: added to the variance.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: groups that do not divide the channels, a single value per group, wrong shapes, or an eps
            that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Wu and He, "Group Normalization", 2018; torch.nn.functional.group_norm.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 16))
        >>> bool(abs(group_norm(x, 4)[..., :4].mean(axis=(1, 2, 3))).max() < 1e-6)
        True
    """
    return _group_norm("group_norm", x, groups, scale, bias, eps)


def instance_norm(
    x: Float[AnyArray, "batch *spatial channels"],
    scale: Float[AnyArray, " channels"] | None = None,
    bias: Float[AnyArray, " channels"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "batch *spatial channels"]:
    """Normalise each channel of each example over its positions.

        y[b, i, c] = (x[b, i, c] - mean[b, c]) / sqrt(var[b, c] + eps) * scale[c] + bias[c]

    Args:
        x: images (batch, *spatial, channels).
        scale: (channels,), 1 by default.
        bias: (channels,), 0 by default.
        eps: added to the variance.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: a single position, wrong shapes, or an eps that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016; torch.nn.functional.instance_norm.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 16))
        >>> bool(abs(instance_norm(x).mean(axis=(1, 2))).max() < 1e-6)
        True
    """
    x = as_images("instance_norm", x)
    return _group_norm("instance_norm", x, x.shape[-1], scale, bias, eps)


def standardize_kernel(
    kernel: Float[AnyArray, "*window channels_in channels_out"], *, eps: float = 1e-5
) -> Float[Array, "*window channels_in channels_out"]:
    """Give the filter of every output channel mean 0 and variance 1: weight standardisation.

        y[t, c, o] = (kernel[t, c, o] - mean[o]) / sqrt(var[o] + eps)

    with the mean and the biased variance over the window and the input channels of the filter.

    Args:
        kernel: a kernel of `conv`, (*window, channels_in // groups, channels_out).
        eps: added to the variance.

    Returns:
        The kernel standardised, of its dtype.

    Raises:
        ValueError: a kernel with another number of axes or with a single value per filter, or an eps that is
            not positive.
        TypeError: a kernel that is not floating.

    Reference:
        Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
        Their released code adds 1e-5 to the unbiased standard deviation instead.

    Example:
        >>> import jax
        >>> kernel = standardize_kernel(jax.random.normal(jax.random.key(0), (3, 3, 4, 8)) + 2)
        >>> bool(abs(kernel.mean(axis=(0, 1, 2))).max() < 1e-6)
        True
    """
    function = "standardize_kernel"
    kernel = as_floating(function, "kernel", kernel)
    check_eps(function, eps)
    if kernel.ndim - 2 not in SPATIAL_RANKS or 0 in kernel.shape or math.prod(kernel.shape[:-1]) < 2:
        raise ValueError(
            f"{function}: kernel must have shape (*window, channels_in // groups, channels_out) with 1 to 3 "
            f"window axes and more than one value for each output channel, got {kernel.shape}"
        )
    return _standardize(kernel, tuple(range(kernel.ndim - 1)), eps).astype(kernel.dtype)


def _group_norm(
    function: str,
    x: AnyArray,
    groups: int,
    scale: AnyArray | None,
    bias: AnyArray | None,
    eps: float,
) -> Array:
    x = _as_features(function, x)
    groups = as_int(function, "groups", groups, minimum=1)
    check_eps(function, eps)
    channels = x.shape[-1]
    if channels % groups:
        raise ValueError(
            f"{function}: groups must divide the channels of x, got groups={groups} for {channels} channels"
        )
    values = math.prod(x.shape[1:]) // groups
    if values < 2:
        raise ValueError(
            f"{function}: x must have more than one value per group of channels, got shape {x.shape}"
        )
    scale = None if scale is None else widen(per_channel(function, "scale", scale, x))
    bias = None if bias is None else widen(per_channel(function, "bias", bias, x))
    spatial = tuple(range(1, x.ndim - 1))

    def mean(x: Array) -> Array:
        """Of each group, in the place of each of its channels; no axis as long as x is split for it."""
        of_channels = x.mean(spatial).reshape(len(x), groups, channels // groups)
        of_groups = jnp.broadcast_to(of_channels.mean(-1, keepdims=True), of_channels.shape)
        return jnp.expand_dims(of_groups.reshape(len(x), channels), spatial)

    wide = widen(x)
    first = wide[tuple(slice(0, 1) if axis in spatial else slice(None) for axis in range(x.ndim))]
    shifted = wide - lax.stop_gradient(mean(first))
    centred = shifted - mean(shifted)
    factor = lax.rsqrt(mean(jnp.square(centred)) + eps)
    factor = factor if scale is None else factor * scale.astype(factor.dtype)
    return _affine(centred * factor, None, bias, x)


def _devices(function: str, axis_name: Any) -> int:
    try:
        return lax.axis_size(axis_name)
    except (NameError, TypeError, ValueError):
        raise ValueError(
            f"{function}: axis_name must be the name of an axis that a surrounding pmap, vmap or shard_map "
            f"maps over, got {axis_name!r}"
        ) from None


def _standardize(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) over the axes, in float32 or wider."""
    pivot = lax.stop_gradient(
        x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    )
    shifted = widen(x) - widen(pivot)
    centred = shifted - shifted.mean(axes, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)


def _affine(y: Array, scale: Array | None, bias: Array | None, x: Array) -> Array:
    y = y if scale is None else y * scale.astype(y.dtype)
    y = y if bias is None else y + bias.astype(y.dtype)
    return y.astype(x.dtype)


def _as_features(function: str, x: AnyArray) -> Array:
    """`x` as floating (batch, *spatial, channels) with 0 to 3 spatial axes, none empty."""
    x = as_floating(function, "x", x)
    if not 2 <= x.ndim <= 5 or 0 in x.shape[1:]:
        raise ValueError(
            f"{function}: x must have shape (batch, *spatial, channels) with at most 3 spatial axes and none "
            f"of them empty, got shape {x.shape}"
        )
    return x


def _with_shape(function: str, name: str, value: AnyArray, shape: tuple[int, ...], meaning: str) -> Array:
    array = as_floating(function, name, value)
    check_shape(function, name, array, shape, meaning)
    return array


def _over_axes(
    function: str, name: str, value: AnyArray | None, x: Array, axes: tuple[int, ...]
) -> Array | None:
    """An optional argument of the shape of some axes of x, ready to be combined with x."""
    if value is None:
        return None
    shape = tuple(x.shape[axis] for axis in axes)
    array = _with_shape(function, name, value, shape, "x's normalised axes")
    return jnp.expand_dims(widen(array), tuple(axis for axis in range(x.ndim) if axis not in axes))


def per_channel(function: str, name: str, value: AnyArray, x: Array) -> Array:
    """A (channels,) argument, ready to be combined with x."""
    array = _with_shape(function, name, value, x.shape[-1:], "one for each channel of x")
    return jnp.expand_dims(array, range(x.ndim - 1))


def _normalized_axes(function: str, axes: int | Sequence[int], x: Array) -> tuple[int, ...]:
    given = ints_or_nones(axes) or ints_or_nones([axes])
    if not all(axis is not None and -x.ndim <= axis < x.ndim for axis in given):
        raise ValueError(f"{function}: axes must be axes of x {x.shape}, got {axes!r}")
    normalized = sorted({axis % x.ndim for axis in given if axis is not None})
    if len(normalized) != len(given) or 0 in normalized:
        raise ValueError(f"{function}: axes must be distinct and leave out the batch axis 0, got {axes!r}")
    return tuple(normalized)
