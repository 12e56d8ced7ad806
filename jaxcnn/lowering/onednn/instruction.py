"""A convolution by the instruction, and whether it is one of those."""

from dataclasses import replace

from jax import Array

from jaxcnn.lowering.arrays import pad
from jaxcnn.lowering.convolution import Convolution
from jaxcnn.lowering.onednn.available import unavailable
from jaxcnn.lowering.onednn.box import outside
from jaxcnn.lowering.onednn.call import call


def why_not(conv: Convolution) -> str | None:
    """Why oneDNN's instruction is not used for this convolution in normal form; None if it can be."""
    return outside(conv) or unavailable()


def why_never(conv: Convolution) -> str | None:
    """Why no convolution here uses the instruction, whatever its shape; None if some do."""
    return unavailable() if conv.onednn else outside(conv)


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    if conv.is_depthwise:
        conv, x = _evenly_padded(conv, x)
        if conv.rank == 1:  # in one dimension oneDNN has only its fallback code
            plane = conv.with_axis(0, 1)
            return call(plane, x[:, None], kernel[None])[:, 0]
    return call(conv, x, kernel)


def _evenly_padded(conv: Convolution, x: Array) -> tuple[Convolution, Array]:
    """The same convolution, x padded by hand unless its padding is that of a plain window, even.

    Only then, or without padding, oneDNN has more than its fallback code for one channel a group.
    """
    axes = zip(conv.padding, conv.stride, conv.window, conv.dilation, strict=True)
    if all(low - high in range(s) and low < w and d == 1 for (low, high), s, w, d in axes):
        return conv, x
    size = tuple(low + n + high for n, (low, high) in zip(conv.size, conv.padding, strict=True))
    return replace(conv, size=size, padding=((0, 0),) * conv.rank), pad(x, conv.padding)
