"""What several rewrites do to arrays: pad them, read one tap of the window, work image by image."""

from collections.abc import Callable, Sequence

import numpy as np
from jax import Array, lax

from jaxcnn.lowering.convolution import Pairs


def pad(x: Array, pairs: Pairs) -> Array:
    """Zeros around the spatial axes; a negative number crops."""
    if not any(low or high for low, high in pairs):
        return x
    config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    return lax.pad(x, np.zeros((), x.dtype), config)


def strided(x: Array, start: Sequence[int], count: Sequence[int], stride: Sequence[int]) -> Array:
    """`count` elements of every spatial axis, `stride` apart."""
    limit = [a + (n - 1) * s + 1 for a, n, s in zip(start, count, stride, strict=True)]
    if limit == [*x.shape[1:-1]] and not any(start) and max(stride, default=1) == 1:
        return x
    return lax.slice(x, (0, *start, 0), (x.shape[0], *limit, x.shape[-1]), (1, *stride, 1))


def image_by_image(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), a loop over the batch: what it makes on the way stays in the cache and is used again."""
    if x.shape[0] == 1:
        return function(x)
    return lax.map(lambda image: function(image[None])[0], x)


def divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most limit."""
    return max(d for d in range(1, max(1, min(number, limit)) + 1) if number % d == 0)


def repeat(x: Array, times: int) -> Array:
    """Every channel `times` times in a row."""
    if times == 1:
        return x
    shape = (*x.shape, times)
    return lax.broadcast_in_dim(x, shape, range(x.ndim)).reshape(*x.shape[:-1], x.shape[-1] * times)


def add_up(terms: Sequence[Array], chains: int = 8) -> Array:
    """Their sum in a few independent chains, so that an addition need not wait for the one before."""
    sums = list(terms[:chains])
    for place, term in enumerate(terms[chains:]):
        sums[place % chains] = sums[place % chains] + term
    while len(sums) > 1:
        sums = [*map(lax.add, sums[::2], sums[1::2]), *sums[len(sums) // 2 * 2 :]]
    return sums[0]
