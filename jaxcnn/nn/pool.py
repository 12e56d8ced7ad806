"""Pooling. The modules have no parameters: each holds the options of one function."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int32, Integer

import jaxcnn.functional as F
from jaxcnn.functional.adaptive import as_levels
from jaxcnn.functional.checks import AnyArray, PerAxis, canonical_window
from jaxcnn.functional.geometry import Padding, slide_anywhere
from jaxcnn.functional.pool import as_power


class _WindowPool(nnx.Module):
    """A pooling with a window: window, stride, padding, dilation, ceil_mode."""

    def __init__(
        self,
        window: PerAxis,
        *,
        stride: PerAxis | None,
        padding: Padding,
        dilation: PerAxis,
        ceil_mode: bool,
    ):
        module = type(self).__name__
        stride = window if stride is None else stride
        options = slide_anywhere(module, window, stride, padding, dilation, ceil_mode=ceil_mode)
        self.window = options.window
        self.stride = options.stride
        self.padding = padding if isinstance(padding, str) else options.padding
        self.dilation = options.dilation
        self.ceil_mode = ceil_mode

    def _sliding(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
        }


class MaxPool(_WindowPool):
    """The largest element of every window, `jaxcnn.functional.max_pool`.

    Args:
        window: taps per spatial axis; an int means two axes.
        stride: elements between two windows; the window by default.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills.
        return_indices: return (y, indices), which MaxUnpool takes.

    Raises:
        ValueError: an option out of range; when called, windows that do not fit or hold padding alone.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> MaxPool(3, stride=2, padding=1)(jnp.zeros((2, 32, 24, 3))).shape
        (2, 16, 12, 3)
    """

    def __init__(
        self,
        window: PerAxis,
        *,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ):
        super().__init__(window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
        self.return_indices = return_indices

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> (
        Float[Array, "batch *output channels"]
        | tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]
    ):
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *output, channels), with return_indices and the positions of their elements in x.
        """
        return F.max_pool(x, self.window, return_indices=self.return_indices, **self._sliding())


class AvgPool(_WindowPool):
    """The mean of every window, `jaxcnn.functional.avg_pool`.

    Args:
        window: taps per spatial axis; an int means two axes.
        stride: elements between two windows; the window by default.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills.
        count_include_pad: whether the zeros of the padding count as elements.

    Raises:
        ValueError: an option out of range; when called, windows that do not fit or hold padding alone.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> AvgPool((2, 4))(jnp.zeros((2, 32, 24, 3))).shape
        (2, 16, 6, 3)
    """

    def __init__(
        self,
        window: PerAxis,
        *,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
        self.count_include_pad = count_include_pad

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *output channels"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *output, channels).
        """
        return F.avg_pool(x, self.window, count_include_pad=self.count_include_pad, **self._sliding())


class LpPool(_WindowPool):
    """The p-norm of every window, `jaxcnn.functional.lp_pool`.

    Args:
        p: the power, a positive finite number.
        window: taps per spatial axis; an int means two axes.
        stride: elements between two windows; the window by default.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills, and count it as a full one.

    Raises:
        ValueError: an option out of range; when called, windows that do not fit or hold padding alone.
        TypeError: an option of the wrong type; when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> LpPool(2, 2)(jnp.full((1, 2, 4, 1), 3.0)).tolist()
        [[[[6.0], [6.0]]]]
    """

    def __init__(
        self,
        p: float | int,
        window: PerAxis,
        *,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        ceil_mode: bool = False,
    ):
        super().__init__(window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
        self.p = as_power("LpPool", p)

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *output channels"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *output, channels).
        """
        return F.lp_pool(x, self.p, self.window, **self._sliding())


class MaxUnpool(nnx.Module):
    """The inverse of MaxPool(..., return_indices=True), `jaxcnn.functional.max_unpool`.

    Args:
        output_size: the spatial size that was pooled; an int means two axes.

    Raises:
        ValueError: an output_size below 1; when called, indices that do not have x's shape.
        TypeError: an output_size that is not made of ints; when called, indices that are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([1.0, 2.0, 4.0, 3.0]).reshape(1, 2, 2, 1)
        >>> autoencoder = nnx.Sequential(MaxPool((1, 2), return_indices=True), MaxUnpool((2, 2)))
        >>> autoencoder(x)[0, ..., 0].tolist()
        [[0.0, 2.0], [4.0, 0.0]]
    """

    def __init__(self, output_size: PerAxis):
        self.output_size = canonical_window("MaxUnpool", output_size, name="output_size")

    def __call__(
        self,
        x: Float[AnyArray, "batch *spatial channels"],
        indices: Integer[AnyArray, "batch *spatial channels"],
    ) -> Float[Array, "batch *output channels"]:
        """Put the elements of x back among zeros.

        Args:
            x: images (batch, *spatial, channels).
            indices: where they come from, of x's shape.

        Returns:
            Images (batch, *output_size, channels).
        """
        return F.max_unpool(x, indices, self.output_size)


class AdaptiveAvgPool(nnx.Module):
    """The means of a grid of windows of the given size, `jaxcnn.functional.adaptive_avg_pool`.

    Args:
        output_size: windows per spatial axis; an int means two axes.

    Raises:
        ValueError: an output_size below 1; when called, an x with another number of spatial axes.
        TypeError: an output_size that is not made of ints; when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> AdaptiveAvgPool((7, 5))(jnp.zeros((2, 32, 24, 3))).shape
        (2, 7, 5, 3)
    """

    def __init__(self, output_size: PerAxis):
        self.output_size = canonical_window("AdaptiveAvgPool", output_size, name="output_size")

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *output channels"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *output_size, channels).
        """
        return F.adaptive_avg_pool(x, self.output_size)


class AdaptiveMaxPool(nnx.Module):
    """The largest elements of a grid of windows of the given size, `jaxcnn.functional.adaptive_max_pool`.

    Args:
        output_size: windows per spatial axis; an int means two axes.
        return_indices: return (y, indices), which MaxUnpool takes.

    Raises:
        ValueError: an output_size below 1; when called, an x with another number of spatial axes.
        TypeError: an output_size that is not made of ints; when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> AdaptiveMaxPool((7, 5))(jnp.zeros((2, 32, 24, 3))).shape
        (2, 7, 5, 3)
    """

    def __init__(self, output_size: PerAxis, *, return_indices: bool = False):
        self.output_size = canonical_window("AdaptiveMaxPool", output_size, name="output_size")
        self.return_indices = return_indices

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> (
        Float[Array, "batch *output channels"]
        | tuple[Float[Array, "batch *output channels"], Int32[Array, "batch *output channels"]]
    ):
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images (batch, *output_size, channels), with return_indices and the positions of their elements.
        """
        return F.adaptive_max_pool(x, self.output_size, return_indices=self.return_indices)


class GlobalAvgPool(nnx.Module):
    """The mean of every channel, `jaxcnn.functional.global_avg_pool`.

    Args:
        keepdims: keep the spatial axes with size 1.

    Raises:
        ValueError: when called, an x without spatial axes.
        TypeError: when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> GlobalAvgPool()(jnp.zeros((2, 32, 24, 3))).shape
        (2, 3)
    """

    def __init__(self, *, keepdims: bool = False):
        self.keepdims = keepdims

    def __call__(self, x: Float[AnyArray, "batch *spatial channels"]) -> Float[Array, "batch *ones channels"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            (batch, channels), or (batch, 1, ..., 1, channels) with keepdims.
        """
        return F.global_avg_pool(x, keepdims=self.keepdims)


class GlobalMaxPool(nnx.Module):
    """The largest element of every channel, `jaxcnn.functional.global_max_pool`.

    Args:
        keepdims: keep the spatial axes with size 1.

    Raises:
        ValueError: when called, an x without spatial axes.
        TypeError: when called, an x that is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> GlobalMaxPool()(jnp.zeros((2, 32, 24, 3))).shape
        (2, 3)
    """

    def __init__(self, *, keepdims: bool = False):
        self.keepdims = keepdims

    def __call__(self, x: Float[AnyArray, "batch *spatial channels"]) -> Float[Array, "batch *ones channels"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            (batch, channels), or (batch, 1, ..., 1, channels) with keepdims.
        """
        return F.global_max_pool(x, keepdims=self.keepdims)


class SpatialPyramidPool(nnx.Module):
    """Maxima over grids of several sizes in one vector, `jaxcnn.functional.spatial_pyramid_pool`.

    A linear layer can follow whatever the size of the images.

    Args:
        levels: the sizes of the grids: ints for two axes, or tuples with one int per spatial axis.

    Raises:
        ValueError: no level, a level below 1, levels of different ranks; when called, an x of another rank.
        TypeError: levels that are no sequence of ints or tuples of ints; when called, an x that is not
            floating.

    Reference:
        He et al. 2014, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition".

    Example:
        >>> import jax.numpy as jnp
        >>> pool = SpatialPyramidPool((1, 2, 4))
        >>> pool(jnp.zeros((2, 32, 24, 3))).shape, pool(jnp.zeros((2, 13, 9, 3))).shape
        ((2, 63), (2, 63))
    """

    def __init__(self, levels: Sequence[PerAxis]):
        module = "SpatialPyramidPool"
        self.levels = tuple(
            canonical_window(module, level, name=f"levels[{position}]")
            for position, level in enumerate(as_levels(module, levels))
        )
        if len({len(level) for level in self.levels}) > 1:
            raise ValueError(
                f"{module}: levels must all have the same number of spatial axes, got {self.levels}"
            )

    def __call__(self, x: Float[AnyArray, "batch *spatial channels"]) -> Float[Array, "batch features"]:
        """Pool x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            (batch, cells * channels), where cells is the sum of prod(level) over the levels.
        """
        return F.spatial_pyramid_pool(x, self.levels)
