"""Normalisation of a response by the responses of other channels: inhibition, after neurons that compete."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray, as_images, as_int, check_eps, check_number, widen
from jaxcnn.functional.norm import per_channel


def local_response_norm(
    x: Float[AnyArray, "batch *spatial channels"],
    size: int = 5,
    *,
    alpha: float | int = 1e-4,
    beta: float | int = 0.75,
    k: float | int = 1.0,
) -> Float[Array, "batch *spatial channels"]:
    """Divide by the energy of the neighbouring channels at the same position.

        y[b, i, c] = x[b, i, c] / (k + alpha / size * sum_d x[b, i, d]^2)^beta

    over the channels d from c - size // 2 to c + (size - 1) // 2 that exist.

    Args:
        x: images (batch, *spatial, channels).
        size: channels of the neighbourhood.
        alpha: weight of their mean square, at least 0.
        beta: the exponent, at least 0.
        k: what a position without energy is divided by, to the power of beta; positive.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: a wrong shape, a size below 1, a negative alpha or beta, or a k that is not positive.
        TypeError: images that are not floating, a size that is no int.

    Reference:
        Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
        2012, section 3.3, whose alpha is alpha / size here (size 5, alpha 5e-4, beta 0.75, k 2);
        torch.nn.functional.local_response_norm. The odd neighbour of an even size is the channel before;
        in ONNX LRN it is the channel after.

    Example:
        >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3)
        >>> y = local_response_norm(x, 2, alpha=2.0, beta=1.0, k=3.0)
        >>> y.tolist()  # 1 / (3 + 1), 2 / (3 + 1 + 4), 3 / (3 + 4 + 9)
        [[[0.25, 0.25, 0.1875]]]
    """
    function = "local_response_norm"
    x = as_images(function, x)
    size = check_local_response(function, size, alpha, beta, k)
    wide = widen(x)
    ones = (1,) * (x.ndim - 1)
    energy = lax.reduce_window(
        jnp.square(wide),
        np.zeros((), wide.dtype),
        lax.add,
        window_dimensions=(*ones, size),
        window_strides=(*ones, 1),
        padding=(*((0, 0) for _ in ones), (size // 2, (size - 1) // 2)),
    )
    return (wide * (k + alpha / size * energy) ** -beta).astype(x.dtype)


def check_local_response(function: str, size: Any, alpha: Any, beta: Any, k: Any) -> int:
    """Refuse options of `local_response_norm` out of range, and give the size as an int."""
    for name, value in {"alpha": alpha, "beta": beta, "k": k}.items():
        check_number(function, name, value, minimum=0)
    if k < np.finfo(np.float32).tiny:
        raise ValueError(f"{function}: k must be positive in float32 (else 0 becomes 0 / 0), got {k!r}")
    return as_int(function, "size", size, minimum=1)


def global_response_norm(
    x: Float[AnyArray, "batch *spatial channels"],
    scale: Float[AnyArray, " channels"],
    bias: Float[AnyArray, " channels"],
    *,
    eps: float = 1e-6,
) -> Float[Array, "batch *spatial channels"]:
    """Let the channels of an example compete: scale each by its share of the energy, and add x.

        g[b, c] = sqrt(sum_i x[b, i, c]^2)        n[b, c] = g[b, c] / (mean_d g[b, d] + eps)
        y[b, i, c] = scale[c] * x[b, i, c] * n[b, c] + bias[c] + x[b, i, c]

    Args:
        x: images (batch, *spatial, channels).
        scale: (channels,), initially 0 in a network, where y is x.
        bias: (channels,), initially 0.
        eps: added to the mean of the norms.

    Returns:
        x normalised, of x's dtype.

    Raises:
        ValueError: wrong shapes or an eps that is not positive.
        TypeError: arrays that are not floating.

    Reference:
        Woo et al., "ConvNeXt V2", 2023, section 3.2 and algorithm 1.

    Example:
        >>> x = jnp.array([[3.0, 0.0], [4.0, 0.0]]).reshape(1, 2, 2)
        >>> global_response_norm(x, jnp.ones(2), jnp.zeros(2)).round(2).tolist()
        [[[9.0, 0.0], [12.0, 0.0]]]
    """
    function = "global_response_norm"
    x = as_images(function, x)
    check_eps(function, eps)
    wide = widen(x)
    factor, shift = (
        widen(per_channel(function, name, value, x)).astype(wide.dtype)
        for name, value in {"scale": scale, "bias": bias}.items()
    )
    energy = jnp.square(wide).sum(axis=range(1, x.ndim - 1), keepdims=True)
    silent = energy == 0  # the root has no derivative there; the norm's is taken as 0
    norm = jnp.where(silent, 0, jnp.sqrt(jnp.where(silent, 1, energy)))
    share = norm / (norm.mean(axis=-1, keepdims=True) + eps)
    return (factor * (wide * share) + shift + wide).astype(x.dtype)
