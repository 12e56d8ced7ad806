"""Convolution of an image with zeros between its elements (lhs_dilation), without computing with these zeros.

A transposed convolution, and the input gradient of a strided one, with e for lhs_dilation, read x at
(j * stride + t * dilation - low) / e where that is whole. With p = e / gcd(e, stride), outputs j = r + p * q
of one phase r all have the same remainder, so that they read the same taps, and none of these reads a zero:

    y[r + p * q, o] = sum_m x[q * (p * stride / e) + m * (s * dilation / e) + first_r, c]
                          * kernel[t_r + m * s, c, o],     s = e / gcd(e, dilation)

Each phase is an ordinary convolution with every s-th tap (`phase_by_phase`). Together they do no more work
than there is, but they are many: the product of the periods p of all axes. Where stride and dilation are 1,
so that p = s, all phases are one convolution (`all_phases`) whose channels are those of every phase: with y
moved by so much that low is one less than a multiple of s, t_r = s - 1 - r, and first is the same for all. It
is taken only where the window is a multiple of s, or less. Either way the phases are then interleaved.

The kernel's gradient, too, has the zeros between x where the forward convolution had them. With
j = i * lhs_dilation + low - t * stride it is the gradient of a strided convolution with the roles of x and dy
exchanged and the taps in the opposite order. And a strided convolution's kernel has the gradients of one
convolution without stride for each phase of x that its taps read.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.lowering.arrays import pad, strided
from jaxcnn.lowering.convolution import Convolution, high_padding

Lower = Callable[[Convolution, Array, Array], Array]
# One axis of one phase: its taps, and the window, stride, dilation and padding of their convolution.
Axis = tuple[slice, int, int, int, tuple[int, int]]


def phases(conv: Convolution) -> int:
    """How many phases there are."""
    return math.prod(_periods(conv))


def phases_with_taps(conv: Convolution) -> int:
    """How many phases there are that any tap meets; the others are zeros."""
    return math.prod(
        sum(_axis(conv, axis, remainder, period, 1) is not None for remainder in range(period))
        for axis, period in enumerate(_periods(conv))
    )


def phases_are_alike(conv: Convolution) -> bool:
    """Whether all phases have the same number of taps, so that one convolution can be all of them.

    Or no more than one tap. With taps of zero instead an infinite element of x would make NaN of outputs that
    do not read it.
    """
    axes = zip(conv.window, conv.lhs_dilation, conv.stride, conv.dilation, strict=True)
    alike = all(p == 1 or (s == d == 1 and (w % p == 0 or w < p)) for w, p, s, d in axes)
    return conv.batch_groups == 1 and alike


def phase_by_phase(conv: Convolution, x: Array, kernel: Array, lower: Lower) -> Array:
    """The convolution of x with lhs_dilation, a convolution for each phase."""
    periods = _periods(conv)
    counts = [-(-n // p) for n, p in zip(conv.output, periods, strict=True)]
    zeros = jnp.zeros((conv.batch, *counts, conv.channels_out), x.dtype)
    found = (
        _phase(conv, remainders, periods, counts, x, kernel, lower)
        for remainders in itertools.product(*map(range, periods))
    )
    parts = [zeros if part is None else part for part in found]
    batch, *counts, channels = parts[0].shape
    stacked = jnp.stack(parts).reshape(*periods, batch, *counts, channels)
    return _interleaved(jnp.moveaxis(stacked, range(conv.rank), range(-1 - conv.rank, -1)), conv.output)


def all_phases(conv: Convolution, x: Array, kernel: Array, lower: Lower) -> Array:
    """The convolution of x with lhs_dilation, one for all phases."""
    periods, lows = conv.lhs_dilation, [low for low, _ in conv.padding]
    moved = [(p - 1 - low) % p for low, p in zip(lows, periods, strict=True)]
    taps = [-(-w // p) for w, p in zip(conv.window, periods, strict=True)]
    # Of a window that is less than a period long some phases have no tap.
    used = [p if m > 1 else w for p, m, w in zip(periods, taps, conv.window, strict=True)]
    counts = [-(-(n + e) // p) for n, e, p in zip(conv.output, moved, periods, strict=True)]
    padding = []
    for n, low, e, p, m, j in zip(conv.size, lows, moved, periods, taps, counts, strict=True):
        first = (low + e) // p
        padding.append((first, high_padding(n, first, window=m, dilation=1, output=j, stride=1)))
    part = replace(
        conv,
        window=tuple(taps),
        output=tuple(counts),
        channels_out=conv.channels_out * math.prod(used),
        padding=tuple(padding),
        lhs_dilation=(1,) * conv.rank,
    ).simplified()
    y = lower(part, x, _kernel_of_all_phases(conv, kernel, taps, used))
    y = y.reshape(conv.batch, *counts, conv.groups, *used, conv.group_out)
    y = jnp.moveaxis(y, conv.rank + 1, -2)
    missing = [(p - u, 0, 0) for p, u in zip(periods, used, strict=True)]
    around = [*[(0, 0, 0)] * (conv.rank + 1), *missing, (0, 0, 0), (0, 0, 0)]
    y = lax.pad(y, np.zeros((), y.dtype), around)
    y = y.reshape(*y.shape[:-2], conv.channels_out)
    return _interleaved(y, conv.output, moved)


def _kernel_of_all_phases(conv: Convolution, kernel: Array, taps: list[int], used: list[int]) -> Array:
    """The kernel (*taps, group_in, groups * phases * group_out)."""
    whole = [m * u for m, u in zip(taps, used, strict=True)]
    around = [(0, n - w, 0) for n, w in zip(whole, conv.window, strict=True)]
    kernel = lax.pad(kernel, np.zeros((), kernel.dtype), [*around, (0, 0, 0), (0, 0, 0)])
    split = itertools.chain(*zip(taps, used, strict=True))
    kernel = kernel.reshape(*split, conv.group_in, conv.groups, conv.group_out)
    kernel = lax.rev(kernel, range(1, 2 * conv.rank, 2))
    order = (*range(0, 2 * conv.rank, 2), 2 * conv.rank, 2 * conv.rank + 1, *range(1, 2 * conv.rank, 2))
    kernel = lax.transpose(kernel, (*order, 2 * conv.rank + 2))
    return kernel.reshape(*taps, conv.group_in, conv.channels_out * math.prod(used))


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
            copies=conv.copies * math.prod(conv.stride),
        )
        gradient = lower(part, strided(x, first, count, conv.stride), dy)
        for place in itertools.product(*(range(len(t)) for t in taps)):
            gradients[tuple(t[i] for t, i in zip(taps, place, strict=True))] = gradient[place]
    ordered = [gradients[tap] for tap in itertools.product(*map(range, conv.window))]
    return jnp.stack(ordered).reshape(*conv.window, conv.group_in, conv.channels_out)


def exchanged(conv: Convolution) -> Convolution:
    """The convolution, with dy for its image, whose kernel's gradient one with lhs_dilation is.

    Its kernel is that of `conv` with the taps in opposite order and the channels of each group exchanged.
    """
    low = tuple(
        (t - 1) * step - low for t, step, (low, _) in zip(conv.output, conv.stride, conv.padding, strict=True)
    )
    high = tuple(
        high_padding(j, low, window=t, dilation=step, output=n, stride=s)
        for n, s, t, step, j, low in zip(
            conv.size, conv.lhs_dilation, conv.output, conv.stride, conv.window, low, strict=True
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
        stride=conv.lhs_dilation,
        dilation=conv.stride,
        lhs_dilation=(1,) * conv.rank,
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
) -> Array | None:
    axes = [
        _axis(conv, axis, remainder, periods[axis], counts[axis]) for axis, remainder in enumerate(remainders)
    ]
    if any(axis is None for axis in axes):  # no tap of this phase meets an element of x
        return None
    found = [axis for axis in axes if axis is not None]
    part = replace(
        conv,
        window=tuple(window for _, window, *_ in found),
        output=tuple(counts),
        stride=tuple(stride for _, _, stride, *_ in found),
        dilation=tuple(dilation for *_, dilation, _ in found),
        padding=tuple(padding for *_, padding in found),
        lhs_dilation=(1,) * conv.rank,
        copies=conv.copies * phases_with_taps(conv),
    ).simplified()
    return lower(part, x, kernel[tuple(taps for taps, *_ in found)])


def _axis(conv: Convolution, axis: int, remainder: int, period: int, count: int) -> Axis | None:
    between, dilation, window = conv.lhs_dilation[axis], conv.dilation[axis], conv.window[axis]
    start = remainder * conv.stride[axis] - conv.padding[axis][0]
    every = between // math.gcd(between, dilation)
    meeting = [t for t in range(min(every, window)) if (start + t * dilation) % between == 0]
    if not meeting:
        return None
    first = meeting[0]
    taps = len(range(first, window, every))
    stride = period * conv.stride[axis] // between
    step = every * dilation // between
    low = -((start + first * dilation) // between)
    high = high_padding(conv.size[axis], low, window=taps, dilation=step, output=count, stride=stride)
    return slice(first, None, every), taps, stride, step, (low, high)


def _periods(conv: Convolution) -> list[int]:
    return [p // math.gcd(p, s) for p, s in zip(conv.lhs_dilation, conv.stride, strict=True)]


def _interleaved(y: Array, output: Sequence[int], first: Sequence[int] | None = None) -> Array:
    """Y (batch, *counts, *periods, channels) at r + p * q, axis by axis, cut to the output."""
    rank = len(output)
    batch, *sizes, channels = y.shape
    order = (0, *itertools.chain(*((1 + axis, 1 + rank + axis) for axis in range(rank))), 2 * rank + 1)
    whole = [n * p for n, p in zip(sizes[:rank], sizes[rank:], strict=True)]
    y = lax.transpose(y, order).reshape(batch, *whole, channels)
    return strided(y, first or (0,) * rank, output, (1,) * rank)
