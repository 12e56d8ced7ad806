"""How the arrays of a PyTorch layer become those of ours: names, layouts, shapes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxcnn.nn import BatchNorm, Conv, GlobalResponseNorm, LayerNorm

Layer = nnx.Module | nnx.Param
Names = Iterator[tuple[str, Layer]]
"""PyTorch's prefixes, each with the layer that it belongs to; a bare nnx.Param has its whole key."""


class Entry(NamedTuple):
    """One variable of a model and the PyTorch array that belongs in it."""

    key: str
    """Its name in the state dict."""
    shape: tuple[int, ...]
    """Its shape in the state dict."""
    variable: nnx.Variable
    convert: Callable[[np.ndarray], np.ndarray]
    """From PyTorch's layout to the variable's."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape holds the variable's numbers.

        A fully connected layer is a convolution: PyTorch's (out, in * height * width) is its (out, in,
        height, width), and the other way round for a window of 1 x 1. A bare parameter may have more axes of
        size 1.
        """
        if len(self.shape) == 1:
            return tuple(size for size in shape if size != 1) == tuple(
                size for size in self.shape if size != 1
            )
        flat = (self.shape[0], int(np.prod(self.shape[1:])))
        return shape in (self.shape, flat, (*flat, 1, 1))


def entries(names: Names) -> Iterator[Entry]:
    """The entries of a state dict, layer by layer.

    Args:
        names: PyTorch's prefixes with the layers they belong to.

    Returns:
        An entry for every parameter and running statistic of these layers.

    Raises:
        TypeError: a layer of a kind that has no counterpart here.
    """
    for prefix, layer in names:
        if isinstance(layer, nnx.Param):
            yield _same(prefix, layer)
            continue
        kind = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
        if kind is None:
            raise TypeError(
                f"entries: {prefix} is a {type(layer).__name__}, which has no counterpart in PyTorch"
            )
        for name, (attribute, entry) in LAYERS[kind].items():
            variable = getattr(layer, attribute)
            if variable is not None:
                yield entry(f"{prefix}.{name}", variable)


def _same(key: str, variable: nnx.Variable) -> Entry:
    shape = tuple(variable.shape)
    return Entry(key, shape, variable, lambda array: array.reshape(shape))


def _matrix(key: str, variable: nnx.Variable) -> Entry:
    channels_in, channels_out = variable.shape
    return Entry(key, (channels_out, channels_in), variable, lambda a: a.reshape(channels_out, channels_in).T)


def _kernel(key: str, variable: nnx.Variable) -> Entry:
    """(out, in, *window) to (*window, in, out)."""
    *window, channels_in, channels_out = variable.shape
    shape = (channels_out, channels_in, *window)
    return Entry(key, shape, variable, lambda a: np.moveaxis(a.reshape(shape), (0, 1), (-1, -2)))


_AFFINE = {"weight": ("scale", _same), "bias": ("bias", _same)}

# PyTorch's name of each array, our attribute, and how the one becomes the other.
LAYERS: dict[type[nnx.Module], dict[str, tuple[str, Callable[[str, Any], Entry]]]] = {
    Conv: {"weight": ("kernel", _kernel), "bias": ("bias", _same)},
    nnx.Linear: {"weight": ("kernel", _matrix), "bias": ("bias", _same)},
    BatchNorm: {**_AFFINE, "running_mean": ("mean", _same), "running_var": ("var", _same)},
    LayerNorm: _AFFINE,
    GlobalResponseNorm: _AFFINE,
}
