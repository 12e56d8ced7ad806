"""Where a sliding window goes: padding specifications, output sizes and their inverses.

One axis of `size` elements, padded by `low` and `high`, is read by a window of `window` taps that are
`dilation` apart and so reach over

    reach = dilation * (window - 1) + 1

elements. Moving it by `stride` gives floor((low + size + high - reach) / stride) + 1 positions. Every
function that slides a window gets its numbers from `slide` or `slide_transposed` in this module.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex, TypeGuard, overload

import numpy as np

from jaxcnn.functional.checks import PerAxis, as_bool, as_int, canonical_window, per_axis

Padding = SupportsIndex | str | Sequence[SupportsIndex] | Sequence[tuple[SupportsIndex, SupportsIndex]]
"""An int, "SAME", "SAME_LOWER", "VALID", "CAUSAL", a tuple of ints or a tuple of (low, high) pairs."""

Pairs = tuple[tuple[int, int], ...]

PADDING_NAMES = ("SAME", "SAME_LOWER", "VALID", "CAUSAL")


class Slide(NamedTuple):
    """How a window slides over the spatial axes: one entry per axis in every field."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    output: tuple[int, ...]
    overhang: tuple[int, ...]
    """Elements that the last window of ceil_mode reads beyond the padding."""

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements from the first to the last tap."""
        return tuple(_reach(w, d) for w, d in zip(self.window, self.dilation, strict=True))

    @property
    def reading(self) -> Pairs:
        """The padding with the overhang: what must surround the input for every window to be full."""
        return tuple(
            (low, high + over) for (low, high), over in zip(self.padding, self.overhang, strict=True)
        )

    def read_by(self, tap: int, axis: int) -> slice:
        """Where one tap of all windows reads an axis of the padded input."""
        first = tap * self.dilation[axis]
        return slice(first, first + (self.output[axis] - 1) * self.stride[axis] + 1, self.stride[axis])

    def positions(self, axis: int) -> np.ndarray:
        """What each window's taps read on one axis: (output, window) positions in the input, unpadded."""
        first = np.arange(self.output[axis]) * self.stride[axis] - self.padding[axis][0]
        return first[:, None] + np.arange(self.window[axis]) * self.dilation[axis]


@overload
def output_size(
    size: SupportsIndex,
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    exact: bool = False,
) -> int: ...


@overload
def output_size(
    size: Sequence[SupportsIndex],
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    exact: bool = False,
) -> tuple[int, ...]: ...


def output_size(
    size: PerAxis,
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    exact: bool = False,
) -> int | tuple[int, ...]:
    """The spatial size that a convolution or a pooling gives.

    For each axis, with reach = dilation * (window - 1) + 1,

        output = floor((size + low + high - reach) / stride) + 1

    `ceil_mode` takes the ceiling instead and then drops a last window that would start beyond the input
    and its low padding, as torch.nn.MaxPool2d does.

    Args:
        size: input size in elements: an int for one axis, or a tuple with one int per axis.
        window: taps per axis.
        stride: elements between two positions of the window.
        padding: an int, a padding name, a tuple of ints or a tuple of (low, high) pairs.
        dilation: elements between two taps of the window.
        ceil_mode: keep a last window that the stride only partly fills.
        exact: refuse a stride that leaves input elements unread.

    Returns:
        An int if size is an int, else a tuple of ints.

    Raises:
        ValueError: a window that does not fit into the padded input, an option out of range, ceil_mode with
            a padding name, or with `exact` a stride that does not divide size + low + high - reach.

    Example:
        >>> output_size(227, 11, stride=4)
        55
        >>> output_size((28, 32), (5, 3), padding="SAME", stride=2)
        (14, 16)
    """
    sizes = _sizes("output_size", size)
    result = slide(
        "output_size", sizes, window, stride, padding, dilation, ceil_mode=ceil_mode, exact=exact
    ).output
    return result if _has_axes(size) else result[0]


@overload
def conv_transpose_output_size(
    size: SupportsIndex,
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
) -> int: ...


@overload
def conv_transpose_output_size(
    size: Sequence[SupportsIndex],
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
) -> tuple[int, ...]: ...


def conv_transpose_output_size(
    size: PerAxis,
    window: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
) -> int | tuple[int, ...]:
    """The spatial size that a transposed convolution gives.

    For each axis, with reach = dilation * (window - 1) + 1,

        output = (size - 1) * stride + reach - low - high + output_padding

    and size * stride for "SAME", "SAME_LOWER" and "CAUSAL".

    Args:
        size: input size in elements: an int for one axis, or a tuple with one int per axis.
        window: taps per axis.
        stride: output elements between two input elements.
        padding: the padding of the convolution whose adjoint this is, so it makes the output smaller.
        output_padding: elements added at the high end, as torch.nn.ConvTranspose2d has it.
        dilation: elements between two taps of the window.

    Returns:
        An int if size is an int, else a tuple of ints.

    Raises:
        ValueError: an empty output, an option out of range, output_padding with a padding name, or one that
            is neither below the stride nor below the dilation.

    Example:
        >>> conv_transpose_output_size(7, 4, stride=2, padding=1)
        14
    """
    sizes = _sizes("conv_transpose_output_size", size)
    result = slide_transposed(
        "conv_transpose_output_size", sizes, window, stride, padding, output_padding, dilation
    ).output
    return result if _has_axes(size) else result[0]


def conv_parameter_count(
    window: PerAxis, channels_in: int, channels_out: int, *, groups: int = 1, bias: bool = True
) -> int:
    """The number of parameters of a convolution.

        parameters = prod(window) * (channels_in // groups) * channels_out + channels_out

    the last term only with a bias. The size of the image does not count.

    Args:
        window: taps per axis: a tuple with one int per spatial axis, or an int, which here means a square 2-D
            window.
        channels_in: channels of the image.
        channels_out: channels of the result.
        groups: runs of channels that do not see each other.
        bias: whether a bias is added.

    Returns:
        An int.

    Raises:
        ValueError: an argument below 1, or groups that do not divide the channels.
        TypeError: an argument that is no int.

    Example:
        >>> conv_parameter_count(11, 3, 96)  # the first layer of AlexNet
        34944
        >>> conv_parameter_count((3, 3), 64, 64, groups=64, bias=False)  # a depthwise layer
        576
    """
    function = "conv_parameter_count"
    taps = canonical_window(function, window)
    channels_in = as_int(function, "channels_in", channels_in, minimum=1)
    channels_out = as_int(function, "channels_out", channels_out, minimum=1)
    groups = as_int(function, "groups", groups, minimum=1)
    if channels_in % groups or channels_out % groups:
        raise ValueError(
            f"{function}: groups must divide channels_in and channels_out, got groups={groups} for "
            f"{channels_in} and {channels_out} channels"
        )
    weights = math.prod(taps) * (channels_in // groups) * channels_out
    return weights + channels_out if as_bool(function, "bias", bias) else weights


def slide(
    function: str,
    size: tuple[int, ...],
    window: PerAxis,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    *,
    ceil_mode: bool = False,
    exact: bool = False,
) -> Slide:
    """Check the options of a sliding window and give its padding and output size on every axis."""
    rank = len(size)
    window, stride, dilation = _window_options(function, rank, window, stride, dilation)
    if as_bool(function, "ceil_mode", ceil_mode) and isinstance(padding, str):
        raise ValueError(
            f"{function}: ceil_mode=True needs padding as ints, got padding={padding!r}, which already "
            "decides the output size"
        )
    pairs = explicit_padding(function, padding, size, window, stride, dilation)
    outputs, overhangs = [], []
    for axis in range(rank):
        (low, high), step, reach = pairs[axis], stride[axis], _reach(window[axis], dilation[axis])
        room = low + size[axis] + high - reach
        # With ceil_mode a single window may reach beyond the padding, as the last of many does.
        if room < 0 and not (ceil_mode and room > -step):
            raise ValueError(
                f"{function}: window {window} with dilation {dilation} reaches over {reach} elements of "
                f"spatial axis {axis}, more than the {low + size[axis] + high} of the padded input "
                f"(size {size[axis]}, padding {(low, high)})"
            )
        if as_bool(function, "exact", exact) and room % step:
            raise ValueError(
                f"{function}: exact=True needs a stride that divides size + padding - reach, "
                f"got stride {step} for {size[axis]} + {low + high} - {reach} = {room} on spatial axis {axis}"
            )
        output = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (output - 1) * step >= size[axis] + low:
            output -= 1
        outputs.append(output)
        overhangs.append(max((output - 1) * step - room, 0))
    return Slide(window, stride, dilation, pairs, tuple(outputs), tuple(overhangs))


def slide_anywhere(
    function: str,
    window: PerAxis,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    *,
    ceil_mode: bool = False,
) -> Slide:
    """`slide` where no input is there yet: over the smallest one that the window fits into."""
    window = canonical_window(function, window)
    dilation = per_axis(function, "dilation", dilation, len(window), minimum=1)
    size = tuple(_reach(w, d) for w, d in zip(window, dilation, strict=True))
    return slide(function, size, window, stride, padding, dilation, ceil_mode=ceil_mode)


def slide_transposed(
    function: str,
    size: tuple[int, ...],
    window: PerAxis,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    dilation: PerAxis,
) -> Slide:
    """The same for the adjoint of a strided convolution: `padding` is that of the convolution.

    Its last position may leave up to stride - 1 elements unread; output_padding says how many.
    """
    rank = len(size)
    window, stride, dilation = _window_options(function, rank, window, stride, dilation)
    extra = per_axis(function, "output_padding", output_padding, rank, minimum=0)
    if isinstance(padding, str) and any(extra):
        raise ValueError(
            f"{function}: output_padding needs padding as ints, got output_padding={output_padding!r} with "
            f"padding={padding!r}, which already decides the output size"
        )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"{function}: output_padding must be smaller than the stride or the dilation, got "
            f"output_padding={output_padding!r} with stride {stride} and dilation {dilation}"
        )
    reach = tuple(_reach(w, d) for w, d in zip(window, dilation, strict=True))
    if isinstance(padding, str) and padding != "VALID":
        output = tuple(n * s for n, s in zip(size, stride, strict=True))
        pairs = explicit_padding(function, padding, output, window, stride, dilation)
    else:
        pairs = explicit_padding(function, padding, size, window, stride, dilation)
        output = tuple(
            (n - 1) * s + r - low - high + e
            for n, s, r, (low, high), e in zip(size, stride, reach, pairs, extra, strict=True)
        )
    if min(output) < 1:
        raise ValueError(
            f"{function}: padding {padding!r} takes more away than size {size}, window {window}, "
            f"stride {stride} and dilation {dilation} give: the output would have size {output}"
        )
    return Slide(window, stride, dilation, pairs, output, overhang=(0,) * rank)


def explicit_padding(
    function: str,
    padding: Any,
    size: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Pairs:
    """Any padding specification as (low, high) pairs, one per axis.

    "SAME" gives ceil(size / stride) positions with the odd element at the high end, "SAME_LOWER" with it at
    the low end (as ONNX names them); "CAUSAL" pads the low end alone, so that no position sees a later one.
    """
    rank = len(size)
    if not isinstance(padding, str):
        return padding_pairs(function, padding, rank)
    if padding not in PADDING_NAMES:
        hint = f'; did you mean "{padding.upper()}"?' if padding.upper() in PADDING_NAMES else ""
        raise ValueError(f"{function}: {_expected_padding(rank)}, got {padding!r}{hint}")
    if padding == "CAUSAL" and rank != 1:
        raise ValueError(
            f'{function}: padding "CAUSAL" is for one spatial axis (time), got {rank} spatial axes; '
            "give (low, high) pairs instead"
        )
    reach = tuple(_reach(w, d) for w, d in zip(window, dilation, strict=True))
    if padding == "VALID":
        return ((0, 0),) * rank
    if padding == "CAUSAL":
        return ((reach[0] - 1, 0),)
    # ceil(n / s) positions need (ceil(n / s) - 1) * s + reach elements; what n lacks is padded.
    totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, stride, reach, strict=True)]
    if padding == "SAME":
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((total - total // 2, total // 2) for total in totals)


def padding_pairs(function: str, padding: Any, rank: int) -> Pairs:
    """A padding given in numbers as (low, high) pairs."""
    padding = padding.tolist() if isinstance(padding, np.ndarray) else padding
    try:
        if isinstance(padding, Sequence) and len(padding) == rank:
            pairs = tuple(
                per_axis(function, "padding", element, 2, minimum=0)
                if _is_pair(element)
                else (as_int(function, "padding", element, minimum=0),) * 2
                for element in padding
            )
            return tuple((low, high) for low, high in pairs)
        number = as_int(function, "padding", padding, minimum=0)
    except TypeError:
        raise TypeError(f"{function}: {_expected_padding(rank)}, got {padding!r}") from None
    except ValueError:
        raise ValueError(
            f"{function}: padding must not be negative (crop x with a slice instead), got {padding!r}"
        ) from None
    return ((number, number),) * rank


def _is_pair(element: Any) -> bool:
    return isinstance(element, Sequence) and not isinstance(element, str) and len(element) == 2


def _expected_padding(rank: int) -> str:
    names = '"SAME", "SAME_LOWER", "VALID"' + (', "CAUSAL"' if rank == 1 else "")
    return (
        f"padding must be an int, {names}, a tuple of {rank} ints or a tuple of {rank} (low, high) pairs "
        "(one per spatial axis)"
    )


def _has_axes(size: Any) -> TypeGuard[Sequence[SupportsIndex]]:
    return isinstance(size, Sequence) or (isinstance(size, np.ndarray) and size.ndim > 0)


def _sizes(function: str, size: PerAxis) -> tuple[int, ...]:
    rank = len(size) if _has_axes(size) else 1
    return per_axis(function, "size", size, max(rank, 1), minimum=1)


def _window_options(
    function: str, rank: int, window: PerAxis, stride: PerAxis, dilation: PerAxis
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return (
        per_axis(function, "window", window, rank, minimum=1),
        per_axis(function, "stride", stride, rank, minimum=1),
        per_axis(function, "dilation", dilation, rank, minimum=1),
    )


def _reach(window: int, dilation: int) -> int:
    return dilation * (window - 1) + 1
