"""Convolution of an image with zeros between its elements (lhs_dilation), as one convolution per phase.

A transposed convolution, and the input gradient of a strided one, read x at (j * stride + t * dilation - low)
/ spread where that is whole. With p = spread / gcd(spread, stride), outputs j = r + p * q of one phase r all
have the same remainder, so that they read the same taps, and none of these reads a zero in between:

    y[r + p * q, o] = sum_m x[q * (p * stride / spread) + m * (s * dilation / spread) + first_r, c]
                          * kernel[t_r + m * s, c, o],        s = spread / gcd(spread, dilation)

Each phase is an ordinary convolution with every s-th tap; together they do no more work than there is. The
phases are then put next to each other.

The kernel's gradient, too, has the zeros between x where the forward convolution had them. With
j = i * spread + low - t * stride it is the gradient of a strided convolution with the roles of x and dy
exchanged and the taps in the opposite order. And a strided convolution's kernel has the gradients of one
convolution without stride for each phase of x that its taps read.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering.convolution import Convolution, high_padding
from jaxcnn.lowering.images import pad, strided

Lower = Callable[[Convolution, Array, Array], Array]
# One axis of one phase: its taps, and the window, stride, dilation and padding of their convolution.
Axis = tuple[slice, int, int, int, tuple[int, int]]


def forward(conv: Convolution, x: Array, kernel: Array, lower: Lower) -> Array:
    """The convolution of spread(x) with kernel."""
    periods = [s // math.gcd(s, step) for s, step in zip(conv.spread, conv.stride, strict=True)]
    counts = [-(-n // p) for n, p in zip(conv.output, periods, strict=True)]

    phases = [
        _phase(conv, remainders, periods, counts, x, kernel, lower)
        for remainders in itertools.product(*map(range, periods))
    ]
    return _interleaved(phases, periods, conv.output)


def kernel_gradient(conv: Convolution, x: Array, dy: Array, lower: Lower) -> Array:
    """The gradient of a strided convolution's kernel: taps that read the same phase of x, phase by phase."""
    x = lax.optimization_barrier(pad(x, conv.padding))
    gradients: dict[tuple[int, ...], Array] = {}
    for phase in itertools.product(*map(range, conv.stride)):
        # Taps t with t * dilation = phase (mod stride), one list an axis.
        taps = [
            [t for t in range(w) if t * d % s == r]
            for w, d, s, r in zip(conv.window, conv.dilation, conv.stride, phase, strict=True)
        ]
        if not all(taps):
            continue
        first = [t[0] * d for t, d in zip(taps, conv.dilation, strict=True)]
        step = [
            (t[1] - t[0]) * d // s if len(t) > 1 else 1
            for t, d, s in zip(taps, conv.dilation, conv.stride, strict=True)
        ]
        count = [n + (len(t) - 1) * d for n, t, d in zip(conv.output, taps, step, strict=True)]
        part = replace(
            conv,
            size=tuple(count),
            window=tuple(map(len, taps)),
            stride=(1,) * conv.rank,
            dilation=tuple(step),
            padding=((0, 0),) * conv.rank,
        )
        gradient = lower(part, strided(x, first, count, conv.stride), dy)
        for place in itertools.product(*(range(len(t)) for t in taps)):
            gradients[tuple(t[i] for t, i in zip(taps, place, strict=True))] = gradient[place]
    ordered = [gradients[tap] for tap in itertools.product(*map(range, conv.window))]
    return jnp.stack(ordered).reshape(*conv.window, conv.group_in, conv.channels_out)


def exchanged(conv: Convolution) -> Convolution:
    """The convolution, with dy for its image, whose kernel's gradient a gradient with spread x is.

    Its kernel is that of `conv` with the taps in opposite order and the channels of each group exchanged.
    """
    low = tuple(
        (t - 1) * step - low for t, step, (low, _) in zip(conv.output, conv.stride, conv.padding, strict=True)
    )
    high = tuple(
        high_padding(j, low, window=t, dilation=step, output=n, stride=s)
        for n, s, t, step, j, low in zip(
            conv.size, conv.spread, conv.output, conv.stride, conv.window, low, strict=True
        )
    )
    return replace(
        conv,
        batch=conv.channels_in,
        channels_in=conv.channels_out,
        channels_out=conv.batch,
        size=conv.window,
        output=conv.size,
        window=conv.output,
        stride=conv.spread,
        dilation=conv.stride,
        spread=(1,) * conv.rank,
        padding=tuple(zip(low, high, strict=True)),
        groups=conv.batch_groups,
        batch_groups=1,
    ).simplified()


def exchanged_back(conv: Convolution, gradient: Array) -> Array:
    """The gradient of the kernel that was asked for, from that of `exchanged`'s."""
    *window, _, _ = gradient.shape
    per_group = gradient.reshape(*window, conv.group_in, conv.groups, conv.group_out)
    swapped = jnp.flip(jnp.swapaxes(per_group, -1, -3), range(conv.rank))
    return swapped.reshape(*window, conv.group_out, conv.channels_in)


def _phase(
    conv: Convolution,
    remainders: tuple[int, ...],
    periods: list[int],
    counts: list[int],
    x: Array,
    kernel: Array,
    lower: Lower,
) -> Array:
    axes = [
        _axis(conv, axis, remainder, periods[axis], counts[axis]) for axis, remainder in enumerate(remainders)
    ]
    if any(axis is None for axis in axes):  # no tap of this phase meets an element of x
        return jnp.zeros((conv.batch, *counts, conv.channels_out), x.dtype)
    found = [axis for axis in axes if axis is not None]
    part = replace(
        conv,
        window=tuple(window for _, window, *_ in found),
        output=tuple(counts),
        stride=tuple(stride for _, _, stride, *_ in found),
        dilation=tuple(dilation for *_, dilation, _ in found),
        padding=tuple(padding for *_, padding in found),
        spread=(1,) * conv.rank,
    ).simplified()
    return lower(part, x, kernel[tuple(taps for taps, *_ in found)])


def _axis(conv: Convolution, axis: int, remainder: int, period: int, count: int) -> Axis | None:
    spread, dilation, window = conv.spread[axis], conv.dilation[axis], conv.window[axis]
    start = remainder * conv.stride[axis] - conv.padding[axis][0]
    every = spread // math.gcd(spread, dilation)
    meeting = [t for t in range(min(every, window)) if (start + t * dilation) % spread == 0]
    if not meeting:
        return None
    first = meeting[0]
    taps = len(range(first, window, every))
    stride = period * conv.stride[axis] // spread
    step = every * dilation // spread
    low = -((start + first * dilation) // spread)
    high = high_padding(conv.size[axis], low, window=taps, dilation=step, output=count, stride=stride)
    return slice(first, None, every), taps, stride, step, (low, high)


def _interleaved(phases: list[Array], periods: list[int], output: tuple[int, ...]) -> Array:
    """phases[r][q] at r + p * q, axis by axis, cut to the output."""
    batch, *counts, channels = phases[0].shape
    rank = len(counts)
    stacked = jnp.stack(phases).reshape(*periods, batch, *counts, channels)
    order = [rank, *itertools.chain(*((rank + 1 + axis, axis) for axis in range(rank))), 2 * rank + 1]
    whole = [n * p for n, p in zip(counts, periods, strict=True)]
    y = lax.transpose(stacked, order).reshape(batch, *whole, channels)
    return y[:, *(slice(n) for n in output)]
