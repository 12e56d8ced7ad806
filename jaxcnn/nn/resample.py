"""Images on another grid. The modules have no parameters: each holds the options of one function."""

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, PerAxis, as_int, canonical_window
from jaxcnn.functional.resample import Scale, check_resize_options


class Resize(nnx.Module):
    """Images resized to one spatial size, `jaxcnn.functional.resize`.

    Args:
        size: of the result: an int means two axes.
        method: "nearest", "nearest_exact", "bilinear", "bicubic" or "area".
        align_corners: the first and the last elements keep their places.
        antialias: where an axis shrinks, the filter is stretched.
        scale: output elements per input element, in place of the ratio of the sizes.

    Raises:
        ValueError: an unknown method, or options that it does not have; when called, an x of another rank.
        TypeError: a size that is not made of ints.

    Example:
        >>> import jax.numpy as jnp
        >>> Resize((2, 6), method="nearest")(jnp.zeros((2, 4, 3, 5))).shape
        (2, 2, 6, 5)
    """

    def __init__(
        self,
        size: PerAxis,
        *,
        method: str = "bilinear",
        align_corners: bool = False,
        antialias: bool = False,
        scale: Scale | None = None,
    ):
        self.size = canonical_window("Resize", size, name="size")
        check_resize_options("Resize", method, align_corners, antialias, scale, rank=len(self.size))
        self.method = method
        self.align_corners = align_corners
        self.antialias = antialias
        self.scale = tuple(scale) if isinstance(scale, (Sequence, np.ndarray)) else scale

    def __call__(self, x: Float[AnyArray, "batch *spatial channels"]) -> Float[Array, "batch *out channels"]:
        """Resize x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *size, channels).
        """
        return F.resize(
            x,
            self.size,
            method=self.method,
            align_corners=self.align_corners,
            antialias=self.antialias,
            scale=self.scale,
        )


class PixelShuffle(nnx.Module):
    """Channels laid out as blocks of pixels, `jaxcnn.functional.pixel_shuffle`.

    Args:
        factor: how much larger every spatial axis becomes.

    Raises:
        ValueError: a factor below 1; when called, channels that factor^rank does not divide.
        TypeError: a factor that is no int.

    Reference:
        torch.nn.PixelShuffle.

    Example:
        >>> import jax.numpy as jnp
        >>> PixelShuffle(2)(jnp.zeros((2, 4, 3, 8))).shape
        (2, 8, 6, 2)
    """

    def __init__(self, factor: SupportsIndex):
        self.factor = as_int("PixelShuffle", "factor", factor, minimum=1)

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *larger fewer_channels"]:
        """Shuffle x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *(spatial * factor), channels // factor^rank).
        """
        return F.pixel_shuffle(x, self.factor)


class PixelUnshuffle(nnx.Module):
    """Blocks of pixels laid out as channels, `jaxcnn.functional.pixel_unshuffle`.

    Args:
        factor: how much smaller every spatial axis becomes.

    Raises:
        ValueError: a factor below 1; when called, a spatial axis that factor does not divide.
        TypeError: a factor that is no int.

    Reference:
        torch.nn.PixelUnshuffle.

    Example:
        >>> import jax.numpy as jnp
        >>> PixelUnshuffle(2)(jnp.zeros((2, 8, 6, 2))).shape
        (2, 4, 3, 8)
    """

    def __init__(self, factor: SupportsIndex):
        self.factor = as_int("PixelUnshuffle", "factor", factor, minimum=1)

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *smaller more_channels"]:
        """Unshuffle x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *(spatial // factor), channels * factor^rank).
        """
        return F.pixel_unshuffle(x, self.factor)
