"""The operations that benchmark_ops.py times, and how each library writes them.

An operation is plain data, so that every library is told the same; benchmark_peers.py holds the other JAX
libraries. A library that lacks an operation gives None. Functions take the operands in the order of
`Operation.arrays`, channels last in jaxcnn and channels first in PyTorch, to which `channels_first` turns
them outside of what is timed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np

import jaxcnn.functional as F

Function = Callable[..., Any]
Arrays = dict[str, np.ndarray]
"""The operands of an operation by name, x first."""

Kind = Literal[
    "conv",
    "conv_transpose",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "batch_norm",
    "group_norm",
    "layer_norm",
    "resize",
    "deform_conv",
]


@dataclass(frozen=True)
class Operation:
    """One row: a kind, and its shapes and options as jaxcnn.functional understands them."""

    name: str
    kind: Kind
    size: tuple[int, ...]
    channels: int
    outputs: int = 0
    window: tuple[int, ...] = ()
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 8

    @property
    def is_convolution(self) -> bool:
        """Whether the row counts among the convolutions; deform_conv is gathers and one product."""
        return self.kind in ("conv", "conv_transpose")

    @property
    def padded_input_bytes(self) -> int:
        """Size of x in float32 with its padding."""
        return 4 * self.batch * self.channels * math.prod(n + 2 * self.padding for n in self.size)

    def arrays(self, seed: int = 0) -> Arrays:
        """Random operands in float32: images, then the parameters."""
        random = np.random.default_rng(seed)
        shapes: dict[str, tuple[int, ...]] = {"x": (self.batch, *self.size, self.channels)}
        if self.kind == "deform_conv":
            shapes["offset"] = (self.batch, *self.size, 1, math.prod(self.window), 2)
        if self.kind in ("conv", "deform_conv"):
            shapes["kernel"] = (*self.window, self.channels // self.groups, self.outputs)
        if self.kind == "conv_transpose":
            shapes["kernel"] = (*self.window, self.outputs // self.groups, self.channels)
        if self.kind.endswith("_norm"):
            shapes |= {"scale": (self.channels,), "bias": (self.channels,)}
        arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        if "kernel" in arrays:
            arrays["kernel"] /= np.float32(math.sqrt(math.prod(shapes["kernel"][:-1])))
        return arrays


def square(name: str, kind: Kind, channels: int, size: int, *window: int, **options: Any) -> Operation:
    """An operation on batches of square images; convolutions keep the channels unless told otherwise."""
    outputs = {"outputs": channels} if window and not kind.endswith("pool") else {}
    return Operation(name, kind, (size, size), channels, window=window, **(outputs | options))


GRID = (
    square("stem 7x7 s2 3->64 @224", "conv", 3, 224, 7, 7, outputs=64, stride=2, padding=3),
    square("3x3 64 @56", "conv", 64, 56, 3, 3, padding=1),
    square("3x3 128 @28", "conv", 128, 28, 3, 3, padding=1),
    square("3x3 256 @14", "conv", 256, 14, 3, 3, padding=1),
    square("3x3 512 @7", "conv", 512, 7, 3, 3, padding=1),
    square("3x3 s2 128 @56", "conv", 128, 56, 3, 3, stride=2, padding=1),
    square("1x1 256->64 @56", "conv", 256, 56, 1, 1, outputs=64),
    square("1x1 64->256 @56", "conv", 64, 56, 1, 1, outputs=256),
    square("depthwise 3x3 144 @56", "conv", 144, 56, 3, 3, padding=1, groups=144),
    square("depthwise 7x7 96 @56", "conv", 96, 56, 7, 7, padding=3, groups=96),
    square("depthwise 5x5 s2 240 @28", "conv", 240, 28, 5, 5, stride=2, padding=2, groups=240),
    square("depthwise 3x3 s2 96 @112", "conv", 96, 112, 3, 3, stride=2, padding=1, groups=96),
    square("32 groups 3x3 128 @56", "conv", 128, 56, 3, 3, padding=1, groups=32),
    square("32 groups 3x3 256 @28", "conv", 256, 28, 3, 3, padding=1, groups=32),
    square("32 groups 3x3 512 @14", "conv", 512, 14, 3, 3, padding=1, groups=32),
    square("32 groups 3x3 s2 256 @56", "conv", 256, 56, 3, 3, stride=2, padding=1, groups=32),
    square("dilated 2 3x3 256 @28", "conv", 256, 28, 3, 3, padding=2, dilation=2),
    square("dilated 12 3x3 256 @28", "conv", 256, 28, 3, 3, padding=12, dilation=12),
    square("transposed 4x4 s2 64 @56", "conv_transpose", 64, 56, 4, 4, stride=2, padding=1),
    square("transposed 2x2 s2 128 @28", "conv_transpose", 128, 28, 2, 2, stride=2),
    square("gray 5x5 1->6 @28", "conv", 1, 28, 5, 5, outputs=6, padding=2, batch=64),
    square("gray 3x3 1->32 @28", "conv", 1, 28, 3, 3, outputs=32, batch=64),
    Operation("EEG 1x64 1->8 @22x1125", "conv", (22, 1125), 1, 8, window=(1, 64)),
    Operation(
        "spectrogram 7x7 s2 1->64 @128x251", "conv", (128, 251), 1, 64, window=(7, 7), stride=2, padding=3
    ),
    Operation("1-D 9 64 @1024", "conv", (1024,), 64, outputs=64, window=(9,), padding=4),
    Operation(
        "3-D 3x3x3 32->64 @16x32x32", "conv", (16, 32, 32), 32, 64, window=(3, 3, 3), padding=1, batch=2
    ),
    square("max pool 3x3 s2 64 @56", "max_pool", 64, 56, 3, 3, stride=2, padding=1),
    square("max pool 2x2 s2 64 @56", "max_pool", 64, 56, 2, 2, stride=2),
    square("average pool 3x3 s1 64 @56", "avg_pool", 64, 56, 3, 3, padding=1),
    square("global average pool 64 @56", "global_avg_pool", 64, 56),
    square("batch norm 64 @56", "batch_norm", 64, 56),
    square("group norm 8 64 @56", "group_norm", 64, 56, groups=8),
    square("layer norm 64 @56", "layer_norm", 64, 56),
    square("bilinear 2x 64 @56", "resize", 64, 56),
    square("deform_conv 3x3 64 @28", "deform_conv", 64, 28, 3, 3, padding=1),
)


def channels_first(name: str, array: np.ndarray) -> np.ndarray:
    """An array in PyTorch's layout: images (batch, channels, *spatial), kernels (out, in, *window)."""
    if name == "kernel":
        return np.moveaxis(array, (-1, -2), (0, 1))
    return np.moveaxis(array, -1, 1) if name in ("x", "y") else array


def channels_last(name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `channels_first`."""
    if name == "kernel":
        return np.moveaxis(array, (0, 1), (-1, -2))
    return np.moveaxis(array, 1, -1) if name in ("x", "y") else array


def in_jaxcnn(operation: Operation) -> Function:
    """The operation as jaxcnn.functional writes it."""
    o = operation
    place: dict[str, Any] = {"stride": o.stride, "padding": o.padding}

    def batch_norm(x, scale, bias):
        mean, var, _ = F.batch_stats(x)
        return F.batch_norm(x, mean, var, scale, bias)

    functions: dict[Kind, Function] = {
        "conv": partial(F.conv, **place, dilation=o.dilation, groups=o.groups),
        "conv_transpose": partial(F.conv_transpose, **place, dilation=o.dilation, groups=o.groups),
        "max_pool": lambda x: F.max_pool(x, o.window, **place),
        "avg_pool": lambda x: F.avg_pool(x, o.window, **place),
        "global_avg_pool": F.global_avg_pool,
        "batch_norm": batch_norm,
        "group_norm": lambda x, scale, bias: F.group_norm(x, o.groups, scale, bias),
        "layer_norm": F.layer_norm,
        "resize": lambda x: F.resize(x, tuple(2 * n for n in o.size)),
        "deform_conv": partial(F.deform_conv, **place),
    }
    return functions[o.kind]


def in_torch(operation: Operation) -> Function | None:
    """The operation as torch.nn.functional writes it; PyTorch itself has no deform_conv."""
    o, rank, torch = operation, len(operation.size), import_module("torch.nn.functional")
    place = {"stride": o.stride, "padding": o.padding}

    def of_rank(name: str) -> Function:
        return getattr(torch, f"{name}{rank}d")

    def layer_norm(x, scale, bias):  # over the last axis: channels_last images need no copy
        return torch.layer_norm(x.movedim(1, -1), (o.channels,), scale, bias).movedim(-1, 1)

    functions: dict[Kind, Function] = {
        "conv": partial(of_rank("conv"), **place, dilation=o.dilation, groups=o.groups),
        "conv_transpose": partial(of_rank("conv_transpose"), **place, dilation=o.dilation, groups=o.groups),
        "max_pool": lambda x: of_rank("max_pool")(x, o.window, **place),
        "avg_pool": lambda x: of_rank("avg_pool")(x, o.window, **place),
        "global_avg_pool": lambda x: of_rank("adaptive_avg_pool")(x, 1).flatten(1),
        "batch_norm": lambda x, scale, bias: torch.batch_norm(x, None, None, scale, bias, training=True),
        "group_norm": lambda x, scale, bias: torch.group_norm(x, o.groups, scale, bias),
        "layer_norm": layer_norm,
        "resize": lambda x: torch.interpolate(x, scale_factor=2, mode="bilinear"),
    }
    return functions.get(o.kind)
