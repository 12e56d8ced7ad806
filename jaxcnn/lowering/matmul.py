"""Dense convolution as a sum of matrix products, one for each tap.

    y[n, j, :] = sum_t x[n, j * stride + t * dilation - low, :] @ kernel[t],
    dkernel[t] = sum_{n, j} x[n, j * stride + t * dilation - low, :]^T @ dy[n, j, :]

over those j whose element of x is not padding. With one tap (a 1x1 convolution, a fully connected layer) this
is one product and no copy. With several it pays where the images are small or mostly padding (a wide
dilation), and the channels many: the products are then large, and nothing is multiplied by padding (so that
an infinite weight, too, makes no NaN of it).
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.arrays import strided
from jaxcnn.lowering.convolution import Convolution

# One axis of one tap: first element of x and of y, and how many.
Span = tuple[int, int, int]


def forward(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x with kernel (*window, channels_in, channels_out)."""
    y = None
    for tap in itertools.product(*map(range, conv.window)):
        spans = _spans(conv, tap)
        if spans is None:
            continue
        part = _product(conv, _read(conv, x, spans), kernel[tap], over=((conv.rank + 1,), (0,)))
        config = [
            (first, n - first - count, 0) for (_, first, count), n in zip(spans, conv.output, strict=True)
        ]
        part = lax.pad(part, np.zeros((), part.dtype), [(0, 0, 0), *config, (0, 0, 0)])
        # Without the barrier all products would be padded and added in one loop that tests every edge.
        y = part if y is None else lax.optimization_barrier(y + part)
    return jnp.zeros((conv.batch, *conv.output, conv.channels_out), x.dtype) if y is None else y


def kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, channels_in, channels_out) of conv's kernel."""
    positions = tuple(range(conv.rank + 1))
    gradients = []
    for tap in itertools.product(*map(range, conv.window)):
        spans = _spans(conv, tap)
        if spans is None:
            gradients.append(jnp.zeros((conv.channels_in, conv.channels_out), x.dtype))
            continue
        dy_part = strided(
            dy, [first for _, first, _ in spans], [count for *_, count in spans], (1,) * conv.rank
        )
        gradients.append(_product(conv, _read(conv, x, spans), dy_part, over=(positions, positions)))
    return jnp.stack(gradients).reshape(*conv.window, conv.channels_in, conv.channels_out)


def share_of_padding(conv: Convolution) -> float:
    """The share of all products that would be with padding."""
    inside = 0
    for tap in itertools.product(*map(range, conv.window)):
        spans = _spans(conv, tap)
        inside += math.prod(count for *_, count in spans) if spans else 0
    return 1 - inside / (conv.taps * math.prod(conv.output))


def _spans(conv: Convolution, tap: tuple[int, ...]) -> list[Span] | None:
    """The positions whose element of x at this tap is no padding, per axis; None if there are none."""
    spans = []
    for axis, t in enumerate(tap):
        positions = conv.positions(axis, t)
        if not positions:
            return None
        offset = t * conv.dilation[axis] - conv.padding[axis][0]
        spans.append((positions.start * conv.stride[axis] + offset, positions.start, len(positions)))
    return spans


def _read(conv: Convolution, x: Array, spans: list[Span]) -> Array:
    return strided(x, [first for first, _, _ in spans], [count for *_, count in spans], conv.stride)


def _product(conv: Convolution, a: Array, b: Array, *, over: tuple[tuple[int, ...], ...]) -> Array:
    of_a, of_b = over
    return lax.dot_general(a, b, ((of_a, of_b), ((), ())), precision=conv.precision)
