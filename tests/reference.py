"""Slow NumPy oracles in float64: each operation as its definition's loops, channels last.

Options are one value per spatial axis; a padding is ((low, high), ...), which `pairs` makes of every spec.
"""

import itertools
import math
from fractions import Fraction
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


def max_pool_indices(x, window, *, stride, padding, dilation, ceil_mode=False):
    """Where each window's largest element is in its plane, counted row by row; the first one of equals."""
    size = x.shape[1:-1]
    shape = (len(x), *output_size(size, window, stride, padding, dilation, ceil_mode), x.shape[-1])
    y = np.zeros(shape, np.int32)
    for out, taps in windows(size, window, stride, padding, dilation, ceil_mode):
        places = sorted(p for _, p in taps if inside(p, size))
        positions = np.array([np.ravel_multi_index(p, size) for p in places])
        y[(ALL, *out)] = positions[np.argmax([x[(ALL, *p)] for p in places], axis=0)]
    return y


def lp_pool(x, p, window, *, stride, padding, dilation, ceil_mode=False):
    """The p-norm of each window; what ceil_mode reads beyond the padding is made up for in proportion."""
    powers = np.abs(np.asarray(x, np.float64)) ** p
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    return (avg_pool(powers, window, **options) * np.prod(window)) ** (1 / p)


def max_unpool(x, indices, size):
    """Each element to its index in a plane of zeros, in order; indices outside the plane are skipped."""
    y = np.zeros((len(x), int(np.prod(size)), x.shape[-1]))
    for b, *place, c in np.ndindex(*x.shape):
        if 0 <= indices[(b, *place, c)] < y.shape[1]:
            y[b, indices[(b, *place, c)], c] = x[(b, *place, c)]
    return y.reshape(len(x), *size, x.shape[-1])


def adaptive_pool(x, size, of_window):
    """of_window of each cell, floor(i n / m) .. ceil((i + 1) n / m) - 1 on every axis, as (elements, ...)."""
    x = np.asarray(x, np.float64)
    y = np.zeros((len(x), *size, x.shape[-1]))
    for out in np.ndindex(*size):
        bounds = [
            slice(int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m)))
            for i, n, m in zip(out, x.shape[1:-1], size, strict=True)
        ]
        cell = np.moveaxis(x[(ALL, *bounds)], 0, -2)
        y[(ALL, *out)] = of_window(cell.reshape(-1, *cell.shape[-2:]))
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


def extract_patches(x, window, *, stride, padding, dilation):
    """Every window as a row, taps in row-major order, the channels of a tap side by side."""
    x = pad(np.asarray(x, np.float64), padding)
    size, channels, none = x.shape[1:-1], x.shape[-1], ((0, 0),) * len(window)
    output = output_size(size, window, stride, none, dilation)
    y = np.zeros((len(x), *output, int(np.prod(window)) * channels))
    for out, taps in windows(size, window, stride, none, dilation):
        for t, (_, place) in enumerate(taps):
            y[(ALL, *out, slice(t * channels, (t + 1) * channels))] = x[(ALL, *place)]
    return y


def fold_patches(patches, size, window, *, stride, padding, dilation):
    """Every patch is added to where it came from."""
    channels = patches.shape[-1] // int(np.prod(window))
    y = np.zeros((len(patches), *size, channels))
    for out, taps in windows(size, window, stride, padding, dilation):
        for t, (_, place) in enumerate(taps):
            if inside(place, size):
                y[(ALL, *place)] += patches[(ALL, *out, slice(t * channels, (t + 1) * channels))]
    return y


def local_response_norm(x, size, alpha, beta, k):
    """x[c] / (k + alpha / size * the sum of x[d]^2 over c - size // 2 <= d <= c + (size - 1) // 2)^beta."""
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        y[..., c] = x[..., c] / (k + alpha / size * (near**2).sum(-1)) ** beta
    return y


def loss_of_each(of_class, scores, labels):
    """of_class(scores of one position, its label) at every position; labels of -1 give 0."""
    losses = np.zeros(labels.shape)
    for place in np.ndindex(*labels.shape):
        if labels[place] >= 0:
            losses[place] = of_class(np.asarray(scores[place], np.float64), labels[place])
    return losses


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


def keys_cubic(distance, slope):
    """Keys' cubic convolution kernel, written out."""
    d, a = abs(distance), slope
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def triangle(distance):
    return max(0.0, 1 - abs(distance))


def resize_matrix(n, m, method, *, align_corners=False, antialias=False, scale=None):
    """What each of m elements takes of each of n, as fractions of one: (m, n)."""
    ratio = Fraction(n, m) if scale is None else 1 / Fraction(scale)
    if align_corners:
        ratio = Fraction(n - 1, m - 1) if m > 1 else Fraction(0)
    matrix = np.zeros((m, n))
    for i in range(m):
        if method in ("nearest", "nearest_exact"):
            half = Fraction(1, 2) if method == "nearest_exact" else 0
            matrix[i, min(math.floor((i + half) * ratio), n - 1)] = 1
            continue
        if method == "area":
            first, end = i * n // m, -(-(i + 1) * n // m)
            matrix[i, first:end] = 1 / (end - first)
            continue
        half = 0 if align_corners and not antialias else Fraction(1, 2)
        place = float((i + half) * ratio - half)
        stretch = max(float(ratio), 1.0) if antialias else 1.0
        slope = -0.5 if antialias else -0.75
        for j in range(-2 * math.ceil(stretch) - 2, n + 2 * math.ceil(stretch) + 2):
            d = (j - place) / stretch
            weight = triangle(d) if method == "bilinear" else keys_cubic(d, slope)
            if not antialias:
                matrix[i, min(max(j, 0), n - 1)] += weight
            elif 0 <= j < n:
                matrix[i, j] += weight
        matrix[i] /= matrix[i].sum()
    return matrix


def resize(x, size, *, method="bilinear", scale=None, **options):
    """Every axis times its matrix; PyTorch copies an axis that stays when it interpolates linearly."""
    y = np.asarray(x, np.float64)
    scales = (None,) * len(size) if scale is None else scale
    for axis, (n, m, s) in enumerate(zip(x.shape[1:-1], size, scales, strict=True), 1):
        if n != m or (method != "bilinear" and not options.get("antialias")):
            matrix = resize_matrix(n, m, method, scale=s, **options)
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
    return y


def mirrored(position, n, align_corners):
    """A position reflected at the ends until it is inside, then clipped to the outermost centres."""
    low, high = (0.0, n - 1.0) if align_corners else (-0.5, n - 0.5)
    while high > low and not low <= position <= high:
        position = 2 * low - position if position < low else 2 * high - position
    return min(max(position, 0.0), n - 1.0)


def read_between(image, position, method="bilinear", padding_mode="zeros", align_corners=False):
    """An image (*spatial, channels) at one position, as grid_sample reads it."""

    def bring_back(p, n):
        if padding_mode == "zeros":
            return p
        return mirrored(p, n, align_corners) if padding_mode == "reflection" else min(max(p, 0.0), n - 1.0)

    size = image.shape[:-1]
    if method != "bicubic":
        position = [bring_back(p, n) for p, n in zip(position, size, strict=True)]
    axes = []
    for p, n in zip(position, size, strict=True):
        first = math.floor(p)
        if method == "nearest":
            axes.append([(round(p), 1.0)])  # Python's round: half to even
        elif method == "bilinear":
            axes.append([(j, triangle(j - p)) for j in (first, first + 1)])
        else:
            axes.append([(bring_back(j, n), keys_cubic(j - p, -0.75)) for j in range(first - 1, first + 3)])
    value = np.zeros(image.shape[-1])
    for taps in itertools.product(*axes):
        place = tuple(int(p) for p, _ in taps)
        if inside(place, size):
            value += image[place] * math.prod(weight for _, weight in taps)
    return value


def grid_sample(x, grid, *, align_corners=False, **options):
    x, size = np.asarray(x, np.float64), x.shape[1:-1]
    y = np.zeros((*grid.shape[:-1], x.shape[-1]))
    for b, *out in np.ndindex(*grid.shape[:-1]):
        steps = [float(g) + 1 for g in grid[(b, *out)][::-1]]  # (x, y) is the last axis first
        if align_corners:
            position = [s * (n - 1) / 2 for s, n in zip(steps, size, strict=True)]
        else:
            position = [s * n / 2 - 0.5 for s, n in zip(steps, size, strict=True)]
        y[(b, *out)] = read_between(x[b], position, align_corners=align_corners, **options)
    return y


def deform_conv(x, offset, kernel, mask=None, bias=None, *, stride, padding, dilation, groups=1):
    """conv whose taps are read at moved positions and weighed by the mask."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    *window, width, channels_out = kernel.shape
    size, offset_groups = x.shape[1:-1], offset.shape[3]
    run = x.shape[-1] // offset_groups
    y = np.zeros((len(x), *output_size(size, window, stride, padding, dilation), channels_out))
    for b in range(len(x)):
        for out, taps in windows(size, window, stride, padding, dilation):
            for t, (tap, place) in enumerate(taps):
                read = np.zeros(x.shape[-1])
                for g in range(offset_groups):
                    channels = slice(g * run, (g + 1) * run)
                    read[channels] = read_between(x[b][..., channels], np.add(place, offset[(b, *out, g, t)]))
                    read[channels] *= 1 if mask is None else mask[(b, *out, g, t)]
                for c in range(channels_out):
                    group = c // (channels_out // groups)
                    y[(b, *out, c)] += read[group * width : (group + 1) * width] @ kernel[tap][:, c]
    return y if bias is None else y + np.asarray(bias, np.float64)
