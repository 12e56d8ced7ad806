"""What a lowering rule sees of a convolution, in one normal form: channels last, no trivial options."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax import Array, lax

Pairs = tuple[tuple[int, int], ...]
PER_AXIS = ("size", "window", "output", "stride", "padding", "lhs_dilation", "dilation")


def high_padding(size: int, low: int, *, window: int, dilation: int, output: int, stride: int) -> int:
    """The padding at the high end of an axis up to the last element read; negative if some are not."""
    return (output - 1) * stride + (window - 1) * dilation + 1 - size - low


@dataclass(frozen=True)
class Convolution:
    """One `lax.conv_general_dilated`, its operands brought to channels last.

    With x (batch, *size, channels_in) and kernel (*window, channels_in // groups, channels_out), for one
    spatial axis and no groups,

        y[n, j, o] = sum_{t, c} X[n, j * stride + t * dilation - low, c] * kernel[t, c, o]

    where X is x with lhs_dilation - 1 zeros between its elements. Batch groups are what JAX makes of the
    kernel's gradient: with them the batch, too, is cut into equal runs, and output channels of run g read
    batch run g only.
    """

    batch: int
    size: tuple[int, ...]
    channels_in: int
    window: tuple[int, ...]
    channels_out: int
    output: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    lhs_dilation: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    batch_groups: int = 1
    precision: Any = None
    dtype: Any = np.float32  # of the arithmetic
    exchanged: bool = False  # the channels of x come before its batch: so JAX writes a sum over images
    partitioned: bool = False  # XLA divides the arrays over devices: loops over images would gather them
    onednn: bool = True  # whether oneDNN's instruction may be used
    copies: int = 1  # how many of its kind a rewrite writes out: each may be as much shorter

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.window)

    @property
    def taps(self) -> int:
        """The number of elements of the window."""
        return math.prod(self.window)

    @property
    def group_in(self) -> int:
        """Input channels that one output channel reads."""
        return self.channels_in // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of one group."""
        return self.channels_out // self.groups

    @property
    def is_lhs_dilated(self) -> bool:
        """Whether there are zeros between the elements of x."""
        return max(self.lhs_dilation, default=1) > 1

    @property
    def is_depthwise(self) -> bool:
        """Whether every group has one input channel, and there are several."""
        return self.groups > 1 and self.group_in == 1

    def positions(self, axis: int, tap: int) -> range:
        """The positions of y whose element of x at this tap of the axis is no padding (no lhs_dilation)."""
        offset, step = tap * self.dilation[axis] - self.padding[axis][0], self.stride[axis]
        first = max(0, -(offset // step))
        return range(first, min(self.output[axis], (self.size[axis] - 1 - offset) // step + 1))

    def unchanged(self, x: Array, kernel: Array) -> Array:
        """The same convolution, left to XLA, in the layout that it likes best."""
        return lax.conv_general_dilated(
            x,
            kernel,
            self.stride,
            self.padding,
            self.lhs_dilation,
            self.dilation,
            dimension_numbers=channels_last(self.rank),
            feature_group_count=self.groups,
            batch_group_count=self.batch_groups,
            precision=self.precision,
        )

    @property
    def is_kernel_gradient(self) -> bool:
        """Whether this is better read as the gradient of another convolution's kernel.

        JAX writes that gradient as a convolution whose window is as large as an image and whose output is as
        small as a window, with batch and channels exchanged, and with one batch group for every group.
        """
        if self.groups > 1:
            return False
        return self.batch_groups > 1 or (self.exchanged and self.taps > math.prod(self.output))

    def differentiated(self) -> "Convolution":
        """The convolution whose kernel's gradient this is (without lhs_dilation).

        With images X = x, its batch and channels exchanged, and dY = kernel,

            y[c, t, o] = sum_{n, j} X[n, j * dilation + t * stride - low, c] * dY[n, j, o]

        is the gradient of a convolution with that stride and dilation exchanged.
        """
        high = tuple(
            high_padding(n, low, window=t, dilation=s, output=j, stride=d)
            for j, d, t, s, n, (low, _) in zip(
                self.window, self.dilation, self.output, self.stride, self.size, self.padding, strict=True
            )
        )
        return replace(
            self,
            batch=self.channels_in,
            channels_in=self.batch,
            window=self.output,
            output=self.window,
            stride=self.dilation,
            dilation=self.stride,
            padding=tuple((low, h) for (low, _), h in zip(self.padding, high, strict=True)),
            groups=self.batch_groups,
            batch_groups=1,
            exchanged=False,
        ).simplified()

    def with_axis(self, place: int, size: int) -> "Convolution":
        """The same convolution of images with one more axis, along which nothing happens."""

        def more(values: tuple[Any, ...], value: Any) -> Any:
            return (*values[:place], value, *values[place:])

        values = dict.fromkeys(PER_AXIS, 1) | {"size": size, "output": size, "padding": (0, 0)}
        return replace(self, **{name: more(getattr(self, name), value) for name, value in values.items()})

    def without_axis(self, axis: int) -> "Convolution":
        """The convolution without one of its axes."""
        values = {name: getattr(self, name) for name in PER_AXIS}
        return replace(self, **{name: (*v[:axis], *v[axis + 1 :]) for name, v in values.items()})

    def simplified(self) -> "Convolution":
        """Without options that change nothing: a dilation of one tap, or of x with one element, a stride.

        A stride changes nothing where there is one position, whose padding is then cut to what it reads.
        """
        dilation = tuple(1 if w == 1 else d for w, d in zip(self.window, self.dilation, strict=True))
        lhs_dilation = tuple(1 if n == 1 else s for n, s in zip(self.size, self.lhs_dilation, strict=True))
        stride, padding = [], []
        for axis, (low, high) in enumerate(self.padding):
            single = self.output[axis] == 1 and self.stride[axis] > 1
            if single:
                dilated = (self.size[axis] - 1) * lhs_dilation[axis] + 1
                high = high_padding(
                    dilated, low, window=self.window[axis], dilation=dilation[axis], output=1, stride=1
                )
            stride.append(1 if single else self.stride[axis])
            padding.append((low, high))
        return replace(
            self, stride=tuple(stride), padding=tuple(padding), dilation=dilation, lhs_dilation=lhs_dilation
        )


def channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """Images (batch, *spatial, channels) and kernels (*window, channels_in, channels_out)."""
    images = (0, rank + 1, *range(1, rank + 1))
    return lax.ConvDimensionNumbers(images, (rank + 1, rank, *range(rank)), images)


def convolution_of(
    x: Any,
    kernel: Any,
    y: Any,
    params: Mapping[str, Any],
    *,
    partitioned: bool = False,
    onednn: bool = True,
) -> Convolution:
    """The normal form of an equation, from its operands' and result's shapes and its parameters."""
    numbers = params["dimension_numbers"]
    batch, channels_in, *size = (x.shape[axis] for axis in numbers.lhs_spec)
    channels_out, _, *window = (kernel.shape[axis] for axis in numbers.rhs_spec)
    return Convolution(
        batch=batch,
        size=tuple(size),
        channels_in=channels_in,
        window=tuple(window),
        channels_out=channels_out,
        output=tuple(y.shape[axis] for axis in numbers.out_spec[2:]),
        stride=tuple(params["window_strides"]),
        padding=tuple((low, high) for low, high in params["padding"]),
        lhs_dilation=tuple(params["lhs_dilation"]),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        batch_groups=params["batch_group_count"],
        precision=params["precision"],
        dtype=np.float64 if any(a.dtype == np.float64 for a in (x, kernel, y)) else np.float32,
        exchanged=numbers.lhs_spec[1] < numbers.lhs_spec[0],
        partitioned=partitioned,
        onednn=onednn,
    ).simplified()


def to_channels_last(array: Array, spec: tuple[int, ...], *, kernel: bool = False) -> Array:
    """An operand whose axes (batch, channels, *spatial) stand where `spec` says, brought to channels last.

    A kernel's spec is (channels_out, channels_in, *window), and its channels go last in the other order.
    """
    first, second, *spatial = spec
    return lax.transpose(array, (*spatial, second, first) if kernel else (first, *spatial, second))


def from_channels_last(y: Array, spec: tuple[int, ...]) -> Array:
    """The way back, for the result."""
    batch, channels, *spatial = spec
    permutation = [0] * y.ndim
    for place, axis in enumerate((batch, *spatial, channels)):
        permutation[axis] = place
    return lax.transpose(y, permutation)
