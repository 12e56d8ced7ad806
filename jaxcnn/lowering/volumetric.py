"""Three-dimensional convolution as a sum of two-dimensional ones, one for each tap of the first axis.

    y[n, d] = sum_t conv2d(x[n, d * stride + t * dilation - low], kernel[t])

with the planes of all images as one batch. XLA:CPU has fast code for two spatial axes only. The gradient of
kernel[t] is that of the two-dimensional convolution over the same planes.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering.arrays import pad, strided
from jaxcnn.lowering.convolution import Convolution

Lower = Callable[[Convolution, Array, Array], Array]


def forward(conv: Convolution, x: Array, kernel: Array, lower: Lower) -> Array:
    """The convolution of x (batch, depth, height, width, channels_in)."""
    plane = _of_planes(conv)
    y = None
    for t in range(conv.window[0]):
        part = lower(plane, _planes(conv, x, t), kernel[t])
        y = part if y is None else lax.optimization_barrier(y + part)
    assert y is not None
    return y.reshape(conv.batch, *conv.output, conv.channels_out)


def kernel_gradient(conv: Convolution, x: Array, dy: Array, lower: Lower) -> Array:
    """The gradient of conv's kernel; `lower` gives that of the two-dimensional one."""
    plane = _of_planes(conv)
    dy = lax.collapse(dy, 0, 2)
    return jnp.stack([lower(plane, _planes(conv, x, t), dy) for t in range(conv.window[0])])


def _of_planes(conv: Convolution) -> Convolution:
    return replace(
        conv,
        batch=conv.batch * conv.output[0],
        size=conv.size[1:],
        window=conv.window[1:],
        output=conv.output[1:],
        stride=conv.stride[1:],
        padding=conv.padding[1:],
        lhs_dilation=conv.lhs_dilation[1:],
        dilation=conv.dilation[1:],
        copies=conv.copies * conv.window[0],
    )


def _planes(conv: Convolution, x: Array, t: int) -> Array:
    """The planes that tap t reads, (batch * output depth, height, width, channels_in)."""
    x = pad(x, (conv.padding[0], (0, 0), (0, 0)))
    start = (t * conv.dilation[0], 0, 0)
    count = (conv.output[0], *conv.size[1:])
    return lax.collapse(strided(x, start, count, (conv.stride[0], 1, 1)), 0, 2)
