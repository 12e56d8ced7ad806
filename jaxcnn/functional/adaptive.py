"""Adaptive pooling: the output size is given, the windows follow from it.

Along an axis of n elements the i-th of m windows reads the elements from floor(i * n / m) to
ceil((i + 1) * n / m), the last one excluded: windows of equal size where m divides n; otherwise their sizes
differ by one and neighbours may share an element, as they do where m is larger than n.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jaxcnn.functional.checks import AnyArray, PerAxis, as_bool, as_images_and_window, elements, widen
from jaxcnn.functional.pool import first_largest, read_taps


def adaptive_avg_pool(
    x: Float[AnyArray, "batch *spatial channels"], output_size: PerAxis
) -> Float[Array, "batch *output channels"]:
    """The means of windows that cover x in a grid of the given size.

    For one spatial axis of n elements and m = output_size,

        y[b, i, c] = mean of x[b, j, c] over floor(i * n / m) <= j < ceil((i + 1) * n / m)

    Args:
        x: images (batch, *spatial, channels).
        output_size: a tuple with one int per spatial axis; an int for a batch of 2-D images. It may be
            larger than x.

    Returns:
        (batch, *output_size, channels), summed in float32 or wider, of x's dtype.

    Raises:
        ValueError: an output_size below 1 or of another rank than x, an empty spatial axis.
        TypeError: images that are not floating, an output_size that is not made of ints.

    Reference:
        torch.nn.functional.adaptive_avg_pool1d, adaptive_avg_pool2d and adaptive_avg_pool3d.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> adaptive_avg_pool(x, (3,))[0, :, 0].tolist()
        [0.5, 2.0, 3.5]
    """
    x, size = as_images_and_window("adaptive_avg_pool", x, output_size, name="output_size")
    y = widen(x)
    for axis, outputs in enumerate(size, 1):
        table, inside = _bins(y.shape[axis], outputs)
        elementwise = tuple(other for other in range(y.ndim + 1) if other not in (axis, axis + 1))
        inside = np.expand_dims(inside, elementwise)
        sums = jnp.where(inside, read_taps(y, table, axis), 0).sum(axis=axis + 1)
        y = sums / jnp.asarray(inside.sum(axis=axis + 1), y.dtype)
    return y.astype(x.dtype)


@overload
def adaptive_max_pool(
    x: Float[AnyArray, "batch *spatial channels"],
    output_size: PerAxis,
    *,
    return_indices: Literal[False] = False,
) -> Float[Array, "batch *output channels"]: ...


@overload
def adaptive_max_pool(
    x: Float[AnyArray, "batch *spatial channels"], output_size: PerAxis, *, return_indices: Literal[True]
) -> tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]: ...


def adaptive_max_pool(
    x: Float[AnyArray, "batch *spatial channels"], output_size: PerAxis, *, return_indices: bool = False
) -> (
    Float[Array, "batch *output channels"]
    | tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]
):
    """The largest elements of windows that cover x in a grid of the given size.

    For one spatial axis of n elements and m = output_size,

        y[b, i, c] = max of x[b, j, c] over floor(i * n / m) <= j < ceil((i + 1) * n / m)

    NaN always wins. On ties the gradient goes to the first of the largest elements, row by row.

    Args:
        x: images (batch, *spatial, channels).
        output_size: a tuple with one int per spatial axis; an int for a batch of 2-D images. It may be
            larger than x.
        return_indices: also say where the largest elements are, for `max_unpool`.

    Returns:
        y (batch, *output_size, channels); with return_indices the pair (y, indices) of that shape, with the
        indices of `max_pool`.

    Raises:
        ValueError: an output_size below 1 or of another rank than x, an empty spatial axis.
        TypeError: images that are not floating, an output_size that is not made of ints.

    Reference:
        torch.nn.functional.adaptive_max_pool1d, adaptive_max_pool2d and adaptive_max_pool3d.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> adaptive_max_pool(x, (3,))[0, :, 0].tolist()
        [1.0, 3.0, 4.0]
    """
    as_bool("adaptive_max_pool", "return_indices", return_indices)
    x, size = as_images_and_window("adaptive_max_pool", x, output_size, name="output_size")
    result = first_largest(x, [_bins(n, outputs)[0] for n, outputs in zip(x.shape[1:-1], size, strict=True)])
    return result if return_indices else result[0]


def spatial_pyramid_pool(
    x: Float[AnyArray, "batch *spatial channels"], levels: Sequence[PerAxis]
) -> Float[Array, "batch features"]:
    """Maxima over grids of several sizes in one vector, whose length does not depend on the size of x.

        y[b] = concatenation over the levels of adaptive_max_pool(x, level)[b], flattened

    The levels keep their order. In the part of one level the cells of its grid follow each other row by row,
    each with all its channels: channel c of cell i stands at i * channels + c.

    Args:
        x: images (batch, *spatial, channels).
        levels: the sizes of the grids, each a tuple with one int per spatial axis; ints for a batch of 2-D
            images, so (1, 2, 4) means 1 + 4 + 16 cells.

    Returns:
        (batch, cells * channels), where cells is the sum of prod(level) over the levels.

    Raises:
        ValueError: no level, a level below 1 or of another rank than x, an empty spatial axis.
        TypeError: images that are not floating, levels that are no sequence of ints or tuples of ints.

    Reference:
        He, Zhang, Ren and Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual
        Recognition", 2014, section 2.2 and, for the bounds of the cells, appendix A.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(12.0).reshape(1, 3, 4, 1)
        >>> spatial_pyramid_pool(x, (1, 2)).tolist()
        [[11.0, 5.0, 7.0, 9.0, 11.0]]
    """
    function = "spatial_pyramid_pool"
    checked = [
        as_images_and_window(function, x, level, name=f"levels[{position}]")
        for position, level in enumerate(as_levels(function, levels))
    ]
    grids = [adaptive_max_pool(images, size) for images, size in checked]
    return jnp.concatenate([grid.reshape(len(grid), math.prod(grid.shape[1:])) for grid in grids], axis=1)


def as_levels(function: str, levels: Any) -> tuple[PerAxis, ...]:
    """The argument as a tuple of at least one level, the levels themselves unchecked."""
    several = elements(levels)
    if several is None:
        raise TypeError(f"{function}: levels must be a sequence of ints or of tuples of ints, got {levels!r}")
    if not several:
        raise ValueError(f"{function}: levels must hold at least one level, got {levels!r}")
    return tuple(several)


def _bins(size: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables (output, window) for one axis: the positions that are read, and which are not repetitions.

    Windows shorter than the longest one repeat their last position.
    """
    i = np.arange(outputs)[:, None]
    start, stop = i * size // outputs, -(-(i + 1) * size // outputs)
    positions = start + np.arange((stop - start).max())
    return np.minimum(positions, stop - 1), positions < stop
