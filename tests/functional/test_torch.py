"""Drawn comparisons with PyTorch, forward and backward; skipped where torch is not installed.

    pytest tests/functional/test_torch.py                                  a few draws for each operation
    pytest tests/functional/test_torch.py --hypothesis-profile=thorough    150 for each, over 3,000 in all

Each operation draws its shapes and options and gives the same function twice: `ours` on JAX arrays and
`theirs` on torch tensors, both channels last. PyTorch computes in float64 on the same rounded numbers, so
that a tolerance is this package's own error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxcnn.functional as F

torch = pytest.importorskip("torch", reason="torch is an optional oracle")
TF = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

# Largest error, as a part of the largest number in the answer; a gradient sums more terms than its function.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}


class Case(NamedTuple):
    """One function twice, and the arrays to call it on."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    dtypes: tuple[str, ...] = tuple(TOLERANCE)


class Draw:
    """What the operations draw."""

    def __init__(self, data: st.DataObject):
        self.data = data
        self.random = np.random.default_rng(self.integer(0, 2**32 - 1))

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def one_of(self, *values: Any) -> Any:
        return self.data.draw(st.sampled_from(values))

    def rank(self) -> int:
        return self.one_of(1, 2, 2, 3)

    def each(self, rank: int, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.integer(low, high) for _ in range(rank))

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape)

    def images(self, rank: int, channels: int, low: int = 3) -> np.ndarray:
        size = self.each(rank, low, {1: 12, 2: 9, 3: 6}[rank])
        return self.normal(self.integer(1, 2), *size, channels)

    def window(self, x: np.ndarray, *, pool: bool = False) -> dict[str, Any]:
        """Window, stride, dilation and padding that fit x, as tuples; a pool pads half a window at most."""
        axes = []
        for size in x.shape[1:-1]:
            taps, step = self.integer(1, min(size, 4)), self.integer(1, 3)
            pads = self.integer(0, taps // 2 if pool else 2)
            apart = self.integer(1, max((size + 2 * pads - 1) // max(taps - 1, 1), 1)) if taps > 1 else 1
            axes.append((taps, step, min(apart, 3), pads))
        return dict(zip(("window", "stride", "dilation", "padding"), zip(*axes, strict=True), strict=True))


# PyTorch meets contiguous tensors alone: with others its 2.13 refuses some gradients of conv_transpose and
# gets those of instance_norm wrong.


def first(x):
    """Channels last to channels first, for a torch tensor."""
    return x.movedim(-1, 1).contiguous()


def last(y):
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient.contiguous())
    return y.movedim(1, -1)


def weight(kernel):
    """(*window, in, out) -> (out, in, *window), for a torch tensor."""
    return kernel.movedim((-1, -2), (0, 1)).contiguous()


def by_rank(name: str, rank: int) -> Any:
    return getattr(TF, f"{name}{rank}d")


# ------------------------------------------------------------------------------------------ convolutions


def grouped_dtypes(groups: int, stride: tuple[int, ...]) -> tuple[str, ...]:
    # XLA's CPU backend ends the process on some float64 grouped convolutions with a dilated input, which the
    # gradient of a strided one is.
    return ("float32",) if groups > 1 and max(stride) > 1 else tuple(TOLERANCE)


def conv(d: Draw) -> Case:
    groups, rank = d.one_of(1, 1, 2, 3), d.rank()
    x = d.images(rank, groups * d.integer(1, 2))
    options = d.window(x)
    kernel = d.normal(*options.pop("window"), x.shape[-1] // groups, groups * d.integer(1, 2))
    theirs: dict[str, Any] = {**options, "groups": groups}
    ours: dict[str, Any] = dict(theirs)
    if max(options["stride"]) == 1 and d.one_of(True, False, False):
        theirs["padding"], ours["padding"] = "same", "SAME"
    mode, flat = d.one_of("zeros", "zeros", "reflect", "edge", "circular"), [0] * 2 * rank
    if mode != "zeros" and ours["padding"] != "SAME" and min(x.shape[1:-1]) > 2:
        ours["padding_mode"] = mode
        flat = [pad for pad in reversed(options["padding"]) for _ in range(2)]
        theirs["padding"] = 0
    name = {"zeros": "constant", "edge": "replicate"}.get(mode, mode)
    return Case(
        lambda x, kernel, bias: F.conv(x, kernel, bias, **ours),
        lambda x, kernel, bias: last(
            by_rank("conv", rank)(TF.pad(first(x), flat, mode=name), weight(kernel), bias, **theirs)
        ),
        (x, kernel, d.normal(kernel.shape[-1])),
        grouped_dtypes(groups, options["stride"]),
    )


def depthwise_conv(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 3))
    channels = x.shape[-1]
    options = d.window(x)
    kernel = d.normal(*options.pop("window"), 1, channels * d.integer(1, 2))
    return Case(
        lambda x, kernel: F.depthwise_conv(x, kernel, **options),
        lambda x, kernel: last(by_rank("conv", rank)(first(x), weight(kernel), groups=channels, **options)),
        (x, kernel),
        grouped_dtypes(channels, options["stride"]),
    )


def conv_transpose(d: Draw) -> Case:
    groups, rank = d.one_of(1, 1, 2), d.rank()
    x = d.normal(d.integer(1, 2), *d.each(rank, 1, 5), groups * d.integer(1, 2))
    window, stride, dilation = d.each(rank, 1, 4), d.each(rank, 1, 3), d.each(rank, 1, 2)
    reach = [t * (w - 1) + 1 for w, t in zip(window, dilation, strict=True)]
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[1:-1], stride, reach, strict=True)]
    options = {
        "stride": stride,
        "dilation": dilation,
        "padding": tuple(d.integer(0, min((n - 1) // 2, 3)) for n in full),
        "output_padding": tuple(d.integer(0, max(s, t) - 1) for s, t in zip(stride, dilation, strict=True)),
        "groups": groups,
    }
    kernel = d.normal(*window, d.integer(1, 2), x.shape[-1])
    return Case(
        lambda x, kernel, bias: F.conv_transpose(x, kernel, bias, **options),
        lambda x, kernel, bias: last(
            by_rank("conv_transpose", rank)(first(x), weight(kernel), bias, **options)
        ),
        (x, kernel, d.normal(kernel.shape[-2] * groups)),
        grouped_dtypes(groups, stride),
    )


def conv_as_matmul(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 3))
    options = d.window(x)
    kernel = d.normal(*options.pop("window"), x.shape[-1], d.integer(1, 3))
    return Case(
        lambda x, kernel, bias: F.conv_as_matmul(x, kernel, bias, **options),
        lambda x, kernel, bias: last(by_rank("conv", rank)(first(x), weight(kernel), bias, **options)),
        (x, kernel, d.normal(kernel.shape[-1])),
    )


def extract_patches(d: Draw) -> Case:
    x = d.images(2, d.integer(1, 3))
    options = d.window(x)
    window, channels = options.pop("window"), x.shape[-1]
    output = F.output_size(x.shape[1:-1], window, **options)

    def theirs(x):  # unfold gives (batch, channels * taps, positions)
        columns = TF.unfold(first(x), window, **options)
        return columns.reshape(len(x), channels, -1, *output).permute(0, 3, 4, 2, 1).flatten(3)

    return Case(lambda x: F.extract_patches(x, window, **options), theirs, (x,))


def fold_patches(d: Draw) -> Case:
    x = d.images(2, d.integer(1, 3))
    options = d.window(x)
    window, size = options.pop("window"), x.shape[1:-1]
    output = F.output_size(size, window, **options)
    taps, channels = window[0] * window[1], x.shape[-1]

    def theirs(patches):
        columns = patches.unflatten(-1, (taps, channels)).permute(0, 4, 3, 1, 2)
        return last(TF.fold(columns.flatten(3).flatten(1, 2), size, window, **options))

    patches = d.normal(len(x), *output, taps * channels)
    return Case(lambda patches: F.fold_patches(patches, size, window, **options), theirs, (patches,))


def pad(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    mode = d.one_of("zeros", "constant", "reflect", "edge", "circular")
    pairs = tuple((d.integer(0, n - 1), d.integer(0, n - 1)) for n in x.shape[1:-1])
    flat = [p for pair in reversed(pairs) for p in pair]
    names = {"zeros": "constant", "edge": "replicate"}
    ours, theirs = ({"value": 1.5}, {"value": 1.5}) if mode == "constant" else ({}, {})
    return Case(
        lambda x: F.pad(x, pairs, mode=mode, **ours),
        lambda x: last(TF.pad(first(x), flat, mode=names.get(mode, mode), **theirs)),
        (x,),
    )


# -------------------------------------------------------------------------------------------------- pools


def max_pool(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    options = {**d.window(x, pool=True), "ceil_mode": d.one_of(True, False)}
    window = options.pop("window")
    return Case(
        lambda x: F.max_pool(x, window, **options),
        lambda x: last(by_rank("max_pool", rank)(first(x), window, **options)),
        (x,),
    )


def max_pool_indices(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    x = np.round(x) if d.one_of(True, False) else x  # many ties
    options = {**d.window(x, pool=True), "ceil_mode": d.one_of(True, False), "return_indices": True}
    window = options.pop("window")

    def theirs(x):
        y, indices = by_rank("max_pool", rank)(first(x), window, **options)
        return last(y), last(indices)

    return Case(lambda x: F.max_pool(x, window, **options), theirs, (x,))


def avg_pool(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    options = {**d.window(x, pool=True), "ceil_mode": d.one_of(True, False)}
    window = options.pop("window")
    options |= {"dilation": 1, "count_include_pad": d.one_of(True, False)}
    if any(n + 2 * p < w for n, p, w in zip(x.shape[1:-1], options["padding"], window, strict=True)):
        options["padding"] = (0,) * rank
    theirs = {name: value for name, value in options.items() if name != "dilation"}
    return Case(
        lambda x: F.avg_pool(x, window, **options),
        lambda x: last(by_rank("avg_pool", rank)(first(x), window, **theirs)),
        (x,),
    )


def lp_pool(d: Draw) -> Case:
    rank, p = d.rank(), d.one_of(1, 2, 3, 1.5, 4)
    x = d.images(rank, d.integer(1, 2))
    # PyTorch takes x^p without the absolute value.
    x = x if p in (2, 4) else np.abs(x) + 0.1
    options = d.window(x)
    window, stride, ceil_mode = options["window"], options["stride"], d.one_of(True, False)
    theirs = (window[0], stride[0]) if rank == 1 else (window, stride)
    return Case(
        lambda x: F.lp_pool(x, p, window, stride=stride, ceil_mode=ceil_mode),
        lambda x: last(by_rank("lp_pool", rank)(first(x), p, *theirs, ceil_mode)),
        (x,),
    )


def max_unpool(d: Draw) -> Case:
    rank = d.rank()
    image = d.images(rank, d.integer(1, 2))
    window = d.each(rank, 1, 3)
    y, indices = by_rank("max_pool", rank)(first(torch.tensor(image)), window, return_indices=True)
    size = image.shape[1:-1]
    positions = jnp.asarray(last(indices).numpy().astype(np.int32))
    return Case(
        lambda x: F.max_unpool(x, positions, size),
        lambda x: last(by_rank("max_unpool", rank)(first(x), indices, window, output_size=size)),
        (d.normal(*last(y).shape),),
    )


def adaptive_avg_pool(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    size = d.each(rank, 1, 7)
    return Case(
        lambda x: F.adaptive_avg_pool(x, size),
        lambda x: last(by_rank("adaptive_avg_pool", rank)(first(x), size)),
        (x,),
    )


def adaptive_max_pool(d: Draw) -> Case:
    rank = d.rank()
    x = d.images(rank, d.integer(1, 2))
    x = np.round(x) if d.one_of(True, False) else x
    size = d.each(rank, 1, 7)

    def theirs(x):
        y, indices = by_rank("adaptive_max_pool", rank)(first(x), size, return_indices=True)
        return last(y), last(indices)

    return Case(lambda x: F.adaptive_max_pool(x, size, return_indices=True), theirs, (x,))


# -------------------------------------------------------------------------------------------------- norms


def batch_norm(d: Draw) -> Case:
    x = d.images(d.rank(), d.integer(1, 3))

    def ours(x, scale, bias):
        mean, var, _ = F.batch_stats(x)
        return F.batch_norm(x, mean, var, scale, bias, eps=1e-3)

    channels = x.shape[-1]
    return Case(
        ours,
        lambda x, scale, bias: last(
            TF.batch_norm(first(x), None, None, scale, bias, training=True, eps=1e-3)
        ),
        (x, d.normal(channels), d.normal(channels)),
    )


def group_norm(d: Draw) -> Case:
    groups = d.integer(1, 3)
    x = d.images(d.rank(), groups * d.integer(1, 2))
    channels = x.shape[-1]
    return Case(
        lambda x, scale, bias: F.group_norm(x, groups, scale, bias, eps=1e-3),
        lambda x, scale, bias: last(TF.group_norm(first(x), groups, scale, bias, eps=1e-3)),
        (x, d.normal(channels), d.normal(channels)),
    )


def instance_norm(d: Draw) -> Case:
    x = d.images(d.rank(), d.integer(1, 3))
    channels = x.shape[-1]
    return Case(
        lambda x, scale, bias: F.instance_norm(x, scale, bias, eps=1e-3),
        lambda x, scale, bias: last(TF.instance_norm(first(x), weight=scale, bias=bias, eps=1e-3)),
        (x, d.normal(channels), d.normal(channels)),
    )


def layer_norm(d: Draw) -> Case:
    x = d.images(d.rank(), d.integer(2, 4))
    axes = tuple(range(-d.integer(1, x.ndim - 1), 0))
    shape = tuple(x.shape[axis] for axis in axes)
    return Case(
        lambda x, scale, bias: F.layer_norm(x, scale, bias, axes=axes, eps=1e-3),
        lambda x, scale, bias: TF.layer_norm(x, shape, scale, bias, eps=1e-3),
        (x, d.normal(*shape), d.normal(*shape)),
    )


def rms_norm(d: Draw) -> Case:
    x = d.images(d.rank(), d.integer(1, 4))
    axes = tuple(range(-d.integer(1, x.ndim - 1), 0))
    shape = tuple(x.shape[axis] for axis in axes)
    return Case(
        lambda x, scale: F.rms_norm(x, scale, axes=axes, eps=1e-3),
        lambda x, scale: TF.rms_norm(x, shape, scale, eps=1e-3),
        (x, d.normal(*shape)),
    )


def local_response_norm(d: Draw) -> Case:
    x = d.images(d.rank(), d.integer(1, 6))
    size = d.integer(1, 6)
    options = {"alpha": d.one_of(1e-4, 0.5), "beta": d.one_of(0.75, 1.0), "k": d.one_of(1.0, 2.0)}
    return Case(
        lambda x: F.local_response_norm(x, size, **options),
        lambda x: last(TF.local_response_norm(first(x), size, **options)),
        (x,),
    )


# --------------------------------------------------------------------------------------------- resampling


def resize(d: Draw) -> Case:
    rank = d.rank()
    method = d.one_of("nearest", "nearest_exact", "bilinear", "bilinear", "bicubic", "bicubic", "area")
    rank = 2 if method == "bicubic" else rank
    x = d.images(rank, d.integer(1, 2), low=1)
    size = d.each(rank, 1, {1: 17, 2: 13, 3: 8}[rank])
    options: dict[str, bool] = {}
    if method in ("bilinear", "bicubic"):
        options["align_corners"] = d.one_of(True, False)
        # PyTorch's antialias to a size of 1 gives zeros where the other axis changes too.
        options["antialias"] = rank == 2 and min(size) > 1 and d.one_of(True, False)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    names = {"bilinear": linear[rank], "nearest_exact": "nearest-exact"}
    return Case(
        lambda x: F.resize(x, size, method=method, **options),
        lambda x: last(TF.interpolate(first(x), size, mode=names.get(method, method), **options)),
        (x,),
    )


def resize_by_a_scale(d: Draw) -> Case:
    rank = d.one_of(1, 2)
    x = d.images(rank, d.integer(1, 2), low=2)
    scale = tuple(d.one_of(0.6, 0.75, 1.3, 1.7, 2.0, 2.3, 2.5) for _ in range(rank))
    size = tuple(int(n * s) for n, s in zip(x.shape[1:-1], scale, strict=True))
    method = d.one_of("nearest", "nearest_exact", "bilinear")
    names = {"bilinear": {1: "linear", 2: "bilinear"}[rank], "nearest_exact": "nearest-exact"}
    return Case(
        lambda x: F.resize(x, size, method=method, scale=scale),
        lambda x: last(TF.interpolate(first(x), scale_factor=scale, mode=names.get(method, method))),
        (x,),
    )


def grid_sample(d: Draw) -> Case:
    rank = d.one_of(2, 2, 3)
    x = d.images(rank, d.integer(1, 2), low=2)
    method = d.one_of("nearest", "bilinear", "bicubic") if rank == 2 else d.one_of("nearest", "bilinear")
    mode, corners = d.one_of("zeros", "border", "reflection"), d.one_of(True, False)
    grid = d.random.uniform(-1.6, 1.6, size=(len(x), *d.each(rank, 1, 4), rank))
    return Case(
        lambda x, grid: F.grid_sample(x, grid, method=method, padding_mode=mode, align_corners=corners),
        lambda x, grid: last(
            TF.grid_sample(first(x), grid, mode=method, padding_mode=mode, align_corners=corners)
        ),
        (x, grid),
        ("float64", "float32"),  # a coarse grid reads elsewhere
    )


def pixel_shuffle(d: Draw) -> Case:
    factor = d.integer(1, 3)
    x = d.normal(d.integer(1, 2), *d.each(2, 1, 4), factor**2 * d.integer(1, 2))
    return Case(
        lambda x: F.pixel_shuffle(x, factor), lambda x: last(TF.pixel_shuffle(first(x), factor)), (x,)
    )


def pixel_unshuffle(d: Draw) -> Case:
    factor = d.integer(1, 3)
    x = d.normal(d.integer(1, 2), d.integer(1, 3) * factor, d.integer(1, 3) * factor, d.integer(1, 2))
    return Case(
        lambda x: F.pixel_unshuffle(x, factor), lambda x: last(TF.pixel_unshuffle(first(x), factor)), (x,)
    )


# ------------------------------------------------------------------------------------------------- losses


def softmax_cross_entropy(d: Draw) -> Case:
    classes = d.integer(2, 5)
    logits = 3 * d.normal(d.integer(1, 3), *d.each(d.integer(0, 2), 1, 4), classes)
    labels = d.random.integers(0, classes, size=logits.shape[:-1])
    smoothing = d.one_of(0.0, 0.1)
    ignore = d.one_of(None, -100, 0)
    if ignore is not None:
        labels = np.where(d.random.random(labels.shape) < 0.3, ignore, labels)
        labels.flat[0] = classes - 1
    ours = jnp.asarray(labels.astype(np.int32))
    options = {} if ignore is None else {"ignore_index": ignore}
    return Case(
        lambda logits: F.softmax_cross_entropy(logits, ours, smoothing=smoothing, ignore_label=ignore),
        lambda logits: TF.cross_entropy(
            logits.flatten(0, -2), torch.tensor(labels).flatten(), label_smoothing=smoothing, **options
        ),
        (logits,),
    )


OPERATIONS = [
    conv,
    depthwise_conv,
    conv_transpose,
    conv_as_matmul,
    extract_patches,
    fold_patches,
    pad,
    max_pool,
    max_pool_indices,
    avg_pool,
    lp_pool,
    max_unpool,
    adaptive_avg_pool,
    adaptive_max_pool,
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    local_response_norm,
    resize,
    resize_by_a_scale,
    grid_sample,
    pixel_shuffle,
    pixel_unshuffle,
    softmax_cross_entropy,
]


def close(name, ours, theirs, tolerance):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, name
    if np.issubdtype(theirs.dtype, np.integer):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        return
    scale = max(np.abs(theirs).max(initial=0.0), 1.0)
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), theirs, rtol=0, atol=tolerance * scale, err_msg=name
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@given(st.data())
def test_torch_gives_the_same_values_and_gradients(operation, data):
    case = operation(Draw(data))
    dtype = data.draw(st.sampled_from(("float64", *case.dtypes) if "float64" in case.dtypes else case.dtypes))
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(array).astype(dtype) for array in case.arrays]
        tensors = [
            torch.tensor(np.asarray(a, np.float64), dtype=torch.float64, requires_grad=True) for a in arrays
        ]

        def value_and_gradients(cotangent, *arrays):
            result, pullback, rest = jax.vjp(split(case.ours), *arrays, has_aux=True)
            return result, rest, pullback(cotangent.astype(result.dtype))

        theirs, *their_rest = whole(case.theirs(*tensors))
        cotangent = np.random.default_rng(0).normal(size=theirs.shape)
        ours, our_rest, our_gradients = jax.jit(value_and_gradients)(
            jnp.asarray(cotangent).astype(dtype), *arrays
        )
        theirs.backward(torch.tensor(np.asarray(jnp.asarray(cotangent).astype(dtype), np.float64)))
    close("value", ours, theirs, TOLERANCE[dtype])
    for a, b in zip(our_rest, their_rest, strict=True):
        close("indices", a, b, 0)
    for place, (gradient, tensor) in enumerate(zip(our_gradients, tensors, strict=True)):
        # A gradient of sums over a whole image: its rounding grows with the terms.
        expected = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        close(f"gradient of argument {place}", gradient, expected, 2 * TOLERANCE[dtype])


def whole(result):
    return result if isinstance(result, tuple) else (result,)


def split(function):
    """The differentiable result, and the others (indices) on the side."""

    def first_and_rest(*arrays):
        result, *rest = whole(function(*arrays))
        return result, rest

    return first_and_rest
