"""Convolution and correlation of plain arrays, as signal processing defines them.

No batch, no channels: signal and kernel are arrays of the same rank, 1 to 3. What `conv` computes is
`cross_correlate`; `convolve` flips the kernel first, which makes it commutative.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.functional.checks import SPATIAL_RANKS, AnyArray, as_floating, check_same_dtype
from jaxcnn.functional.conv import conv

Mode = Literal["full", "same", "valid"]


def convolve(
    signal: Float[AnyArray, "*size"], kernel: Float[AnyArray, "*window"], *, mode: Mode = "full"
) -> Float[Array, "*output"]:
    """Discrete convolution: flip the kernel, slide it over the signal, sum the products.

        y[n] = sum_k signal[n - k] * kernel[k]

    Args:
        signal: an array of 1 to 3 axes.
        kernel: an array of as many axes and the same dtype.
        mode: "full" keeps every n with an overlap (size + window - 1 of them); "same" keeps the middle `size`
            of those; "valid" keeps those that need no element beyond the longer of the two.

    Returns:
        The convolution. convolve(a, b) equals convolve(b, a) but for the size of "same".

    Raises:
        ValueError: an unknown mode, ranks that differ, an empty array, or "valid" where neither array covers
            the other on every axis.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        scipy.signal.convolve.

    Example:
        >>> import jax.numpy as jnp
        >>> convolve(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 1.0, 0.5])).tolist()
        [0.0, 1.0, 2.5, 4.0, 1.5]
    """
    signal, kernel = _operands("convolve", signal, kernel, mode)
    if mode == "valid" and _must_swap("convolve", signal, kernel):
        signal, kernel = kernel, signal
    return _slide_over(signal, jnp.flip(kernel), mode)


def cross_correlate(
    signal: Float[AnyArray, "*size"], kernel: Float[AnyArray, "*window"], *, mode: Mode = "full"
) -> Float[Array, "*output"]:
    """Cross-correlation: slide the kernel over the signal as it is, and sum the products.

        y[n] = sum_k signal[n + k] * kernel[k]

    The textbook's (f star g)[n] = sum_k f[k] * g[k + n] slides its first argument over its second: it is
    cross_correlate(g, f).

    Args:
        signal: an array of 1 to 3 axes.
        kernel: an array of as many axes and the same dtype.
        mode: as in `convolve`.

    Returns:
        The correlation; index 0 of "full" is n = -(window - 1).

    Raises:
        ValueError: an unknown mode, ranks that differ, an empty array, or "valid" where neither array covers
            the other on every axis.
        TypeError: arrays that are not floating or of different dtypes.

    Reference:
        scipy.signal.correlate(signal, kernel).

    Example:
        >>> import jax.numpy as jnp
        >>> cross_correlate(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 1.0, 0.5])).tolist()
        [0.5, 2.0, 3.5, 3.0, 0.0]
    """
    signal, kernel = _operands("cross_correlate", signal, kernel, mode)
    if mode == "valid" and _must_swap("cross_correlate", signal, kernel):
        # y[-n] = sum_k kernel[n + k] * signal[k]: exchanging the two reverses the order.
        return jnp.flip(_slide_over(kernel, signal, mode))
    return _slide_over(signal, kernel, mode)


def autocorrelate(signal: Float[AnyArray, "*size"], *, mode: Mode = "full") -> Float[Array, "*output"]:
    """Correlation of a signal with itself.

        y[n] = sum_k signal[n + k] * signal[k]

    Symmetric in n, with the signal's energy, its largest value, at n = 0 (the middle of "full").

    Args:
        signal: an array of 1 to 3 axes.
        mode: as in `convolve`.

    Returns:
        The correlation; index 0 of "full" is n = -(size - 1).

    Raises:
        ValueError: an unknown mode, a wrong rank or an empty array.
        TypeError: an array that is not floating.

    Reference:
        scipy.signal.correlate(signal, signal).

    Example:
        >>> import jax.numpy as jnp
        >>> autocorrelate(jnp.array([1.0, 2.0, 3.0])).tolist()
        [3.0, 8.0, 14.0, 8.0, 3.0]
    """
    signal, _ = _operands("autocorrelate", signal, signal, mode)
    return _slide_over(signal, signal, mode)


def _slide_over(signal: Array, kernel: Array, mode: Mode) -> Array:
    if mode == "valid":
        padding = [(0, 0) for _ in kernel.shape]
    elif mode == "full":
        padding = [(window - 1, window - 1) for window in kernel.shape]
    else:  # the middle of "full": (window - 1) // 2 elements are left out at its start
        padding = [(window // 2, (window - 1) // 2) for window in kernel.shape]
    return conv(signal[None, ..., None], kernel[..., None, None], padding=padding)[0, ..., 0]


def _operands(function: str, signal: AnyArray, kernel: AnyArray, mode: str) -> tuple[Array, Array]:
    signal, kernel = as_floating(function, "signal", signal), as_floating(function, "kernel", kernel)
    for name, array in (("signal", signal), ("kernel", kernel)):
        if array.ndim not in SPATIAL_RANKS or 0 in array.shape:
            raise ValueError(f"{function}: {name} must have 1 to 3 axes, none empty, got shape {array.shape}")
    if signal.ndim != kernel.ndim:
        raise ValueError(
            f"{function}: signal and kernel must have as many axes as each other, got signal {signal.shape} "
            f"and kernel {kernel.shape}"
        )
    check_same_dtype(function, signal=signal, kernel=kernel)
    if mode not in ("full", "same", "valid"):
        raise ValueError(f'{function}: mode must be "full", "same" or "valid", got {mode!r}')
    return signal, kernel


def _must_swap(function: str, signal: Array, kernel: Array) -> bool:
    """Whether the kernel is the longer one; "valid" needs one of the two to cover the other."""
    longer = [s >= k for s, k in zip(signal.shape, kernel.shape, strict=True)]
    shorter = [s <= k for s, k in zip(signal.shape, kernel.shape, strict=True)]
    if not all(longer) and not all(shorter):
        raise ValueError(
            f'{function}: mode "valid" needs one array at least as large as the other on every axis, got '
            f"signal {signal.shape} and kernel {kernel.shape}"
        )
    return not all(longer)
