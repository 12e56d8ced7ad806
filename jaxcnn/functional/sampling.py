"""Reading an image between its elements: what grid_sample and deform_conv share, and resize's cubics.

A position p on an axis reads the elements next to it, its taps, each with a weight that depends on
p - floor(p). On several axes every combination of taps is read, with the product of their weights.
"""

import operator
from collections.abc import Callable
from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

METHODS = ("nearest", "bilinear", "bicubic")

CUBIC = -0.75
"""The slope at distance 1 of the cubic that PyTorch interpolates with."""


def cubic_near(distance: Any, slope: float) -> Any:
    """Keys' cubic convolution kernel for distances up to 1, with the given slope at 1."""
    return ((slope + 2) * distance - (slope + 3)) * distance * distance + 1


def cubic_far(distance: Any, slope: float) -> Any:
    """The same for distances from 1 to 2; from there on it is 0."""
    return ((slope * distance - 5 * slope) * distance + 8 * slope) * distance - 4 * slope


@partial(jax.jit, static_argnames=("method", "bound"))  # called eagerly it is a hundred small operations
def sample(
    image: Array,
    positions: Array,
    *,
    method: str,
    bound: Callable[[Array, int], Array] | None = None,
) -> Array:
    """Interpolate an image (*spatial, channels) at positions (*places, rank): (*places, channels).

    A tap outside of the image counts as 0, unless `bound(tap, size)` brings it back. A NaN position reads
    NaN. At whole positions the derivative is that of the interval above.
    """
    *size, channels = image.shape
    by_axis = [_taps(positions[..., axis], method) for axis in range(len(size))]
    total = jnp.zeros((*positions.shape[:-1], channels), image.dtype)
    for taps in product(*by_axis):
        places = [place for place, _ in taps]
        if bound is not None:
            places = [bound(place, n) for place, n in zip(places, size, strict=True)]
        within = [(place >= 0) & (place <= n - 1) for place, n in zip(places, size, strict=True)]
        values = image.at[tuple(place.astype(jnp.int32) for place in places)].get(mode="clip")
        # Not by a weight of 0: that times the inf at a border is nan.
        values = jnp.where(jnp.stack(within).all(axis=0)[..., None], values, 0)
        total += values * reduce(operator.mul, (weight for _, weight in taps))[..., None]
    return total


def near_image(position: Array, size: int) -> Array:
    """A position far outside, where all taps are, moved to where they just still are: small and never inf."""
    return jnp.clip(position, -3, size + 2)


def _taps(position: Array, method: str) -> list[tuple[Array, Array]]:
    """The whole positions that a position on one axis reads, with their weights."""
    if method == "nearest":
        return [(jnp.round(position), jnp.where(jnp.isnan(position), position, 1))]
    below = jnp.floor(position)
    fraction = position - below
    if method == "bilinear":
        return [(below, 1 - fraction), (below + 1, fraction)]
    return [
        (below - 1, cubic_far(1 + fraction, CUBIC)),
        (below, cubic_near(fraction, CUBIC)),
        (below + 1, cubic_near(1 - fraction, CUBIC)),
        (below + 2, cubic_far(2 - fraction, CUBIC)),
    ]
