"""Slow NumPy oracles in float64: each operation as its definition's loops, channels last.

Options are one value per spatial axis; a padding is ((low, high), ...), which `pairs` makes of every spec.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

ALL = slice(None)


def normal(seed: int, *shape: int, dtype: DTypeLike = np.float32) -> Any:
    """Seeded normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def reach(window, dilation):
    """How many input positions a dilated window spans."""
    return (window - 1) * dilation + 1


def pairs(padding, size, window, stride, dilation):
    """Any padding spec as ((low, high), ...)."""
    if isinstance(padding, int):
        return tuple((padding, padding) for _ in size)
    if isinstance(padding, tuple):
        return tuple((p, p) if isinstance(p, int) else p for p in padding)
    result = []
    for n, k, s, d in zip(size, window, stride, dilation, strict=True):
        span = reach(k, d)
        total = max((-(-n // s) - 1) * s + span - n, 0)
        result.append(
            {
                "VALID": (0, 0),
                "SAME": (total // 2, total - total // 2),
                "SAME_LOWER": (total - total // 2, total // 2),
                "CAUSAL": (span - 1, 0),
            }[padding]
        )
    return tuple(result)


def starts(size, window, stride, padding, dilation, ceil_mode=False):
    """First position of each window on one axis, in unpadded coordinates."""
    low, high = padding
    spare = low + size + high - reach(window, dilation)
    count = 1 + (-(-spare // stride) if ceil_mode else spare // stride)
    if (
        ceil_mode and (count - 1) * stride - low >= size
    ):  # PyTorch drops a window that starts in the high padding
        count -= 1
    return [o * stride - low for o in range(count)]


def windows(size, window, stride, padding, dilation, ceil_mode=False):
    """Every output position with its window: a list of (tap, position), positions outside too."""
    axes = [starts(*axis, ceil_mode) for axis in zip(size, window, stride, padding, dilation, strict=True)]
    for out in np.ndindex(*map(len, axes)):
        start = [axis[o] for axis, o in zip(axes, out, strict=True)]
        yield (
            out,
            [
                (tap, tuple(p + t * d for p, t, d in zip(start, tap, dilation, strict=True)))
                for tap in np.ndindex(*window)
            ],
        )


def output_size(size, window, stride, padding, dilation, ceil_mode=False):
    axes = zip(size, window, stride, padding, dilation, strict=True)
    return tuple(len(starts(*axis, ceil_mode)) for axis in axes)


def inside(place, size):
    return all(0 <= p < n for p, n in zip(place, size, strict=True))


def pad(x, padding, mode="zeros", value=0.0):
    widths = [(0, 0), *padding, (0, 0)]
    if mode in ("zeros", "constant"):
        return np.pad(x, widths, constant_values=value if mode == "constant" else 0.0)
    names: dict[str, Any] = {"circular": "wrap"}
    return np.pad(x, widths, names.get(mode, mode))


def conv(x, kernel, bias=None, *, stride, padding, dilation, groups=1, mode="zeros"):
    """y[n, o, c] = b[c] + sum over taps t, channels i of the group of x[n, o s + t d - low, i] w[t, i, c]."""
    x = pad(np.asarray(x, np.float64), padding, mode)
    kernel = np.asarray(kernel, np.float64)
    *window, width, channels_out = kernel.shape
    size, none = x.shape[1:-1], ((0, 0),) * len(window)
    y = np.zeros((len(x), *output_size(size, window, stride, none, dilation), channels_out))
    for out, taps in windows(size, window, stride, none, dilation):
        for tap, place in taps:
            for c in range(channels_out):
                group = c // (channels_out // groups)
                channels = slice(group * width, (group + 1) * width)
                y[(ALL, *out, c)] += x[(ALL, *place)][:, channels] @ kernel[tap][:, c]
    return y if bias is None else y + np.asarray(bias, np.float64)


def conv_transpose(x, kernel, bias=None, *, stride, padding, output_padding, dilation, groups=1):
    """Each input position adds its values times the kernel to the outputs that conv reads for it."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    *window, width, channels_in = kernel.shape
    size = x.shape[1:-1]
    full = [
        (n - 1) * s + reach(k, d) + extra
        for n, k, s, d, extra in zip(size, window, stride, dilation, output_padding, strict=True)
    ]
    y = np.zeros((len(x), *full, width * groups))
    for place in np.ndindex(*size):
        for tap in np.ndindex(*window):
            out = tuple(p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True))
            for c in range(channels_in):
                group = c // (channels_in // groups)
                channels = slice(group * width, (group + 1) * width)
                y[(ALL, *out, channels)] += x[(ALL, *place, c)][:, None] * kernel[tap][:, c]
    y = y[(ALL, *(slice(low, n - high) for n, (low, high) in zip(full, padding, strict=True)))]
    return y if bias is None else y + np.asarray(bias, np.float64)


def max_pool(x, window, *, stride, padding, dilation, ceil_mode=False):
    """The largest element of each window; positions outside the input do not count."""
    x = np.asarray(x, np.float64)
    size = x.shape[1:-1]
    y = np.zeros((len(x), *output_size(size, window, stride, padding, dilation, ceil_mode), x.shape[-1]))
    for out, taps in windows(size, window, stride, padding, dilation, ceil_mode):
        y[(ALL, *out)] = np.max([x[(ALL, *p)] for _, p in taps if inside(p, size)], axis=0)
    return y


def avg_pool(x, window, *, stride, padding, dilation, ceil_mode=False, count_include_pad=True):
    """The window's sum over its number of positions: those in the padded input, or in the input alone."""
    x = np.asarray(x, np.float64)
    size = x.shape[1:-1]
    y = np.zeros((len(x), *output_size(size, window, stride, padding, dilation, ceil_mode), x.shape[-1]))
    for out, taps in windows(size, window, stride, padding, dilation, ceil_mode):
        values = [x[(ALL, *p)] for _, p in taps if inside(p, size)]
        in_padded = [
            all(p < n + high for p, n, (_, high) in zip(place, size, padding, strict=True))
            for _, place in taps
        ]
        y[(ALL, *out)] = np.sum(values, axis=0) / (sum(in_padded) if count_include_pad else len(values))
    return y


def normalize(x, axes, eps=1e-5):
    """(x - mean) / sqrt(biased variance + eps), both taken over the axes."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def group_norm(x, groups, eps=1e-5):
    x = np.asarray(x, np.float64)
    width = x.shape[-1] // groups
    parts = [x[..., g * width : (g + 1) * width] for g in range(groups)]
    return np.concatenate([normalize(part, tuple(range(1, x.ndim)), eps) for part in parts], axis=-1)


def convolve(f, g):
    """(f * g)[n] = sum over m of f[m] g[n - m], for every n where a term exists."""
    y = np.zeros(np.add(f.shape, g.shape) - 1, np.result_type(f, g, np.float64))
    for m in np.ndindex(*f.shape):
        for k in np.ndindex(*g.shape):
            y[tuple(np.add(m, k))] += f[m] * g[k]
    return y


def cross_correlate(f, g):
    """The sum over m of f[m + n] conj(g[m]), for every n where a term exists; the first is n = 1 - len(g)."""
    return convolve(f, np.conj(np.flip(g)))
