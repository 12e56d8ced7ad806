"""ONNX's own node tests: an adapter turns each of their nodes into one call of this package.

The arrays of the cases are channels first; `last` and `first` move the channels. LEFT_OUT names the cases
that PyTorch, whose meaning this package keeps, answers otherwise or cannot express.
"""

import importlib
import math
import warnings
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node

import jaxcnn.functional as F

MODULES = """
conv convtranspose maxpool averagepool globalaveragepool globalmaxpool lppool batch_normalization lrn
instance_normalization groupnormalization layernormalization rmsnormalization deformconv maxunpool col2im
gridsample resize pad depthtospace spacetodepth
""".split()

CHANNEL_ORDER = "DCR orders the channels block position first; PyTorch's pixel_shuffle is CRD"
CROP = "PyTorch's interpolate has no crop (tf_crop_and_resize)"
ASYMMETRIC = "PyTorch's interpolate has asymmetric coordinates for mode nearest alone"
NEAREST = "PyTorch rounds asymmetric coordinates down (nearest) or half-pixel ones half up (nearest-exact)"
HALF_WAY = "half-way positions: ONNX's round_prefer_floor takes the lower element, nearest-exact the upper"
CORNERS = "with align_corners PyTorch takes the size, ONNX the scale, here where they disagree"
SLOPE = "PyTorch's cubic has a = -0.5 with antialias alone"
ONE = "PyTorch reads the middle for a size of 1, as half_pixel does"
ANTIALIAS = "PyTorch's antialias leaves out what is outside of the image; ONNX's repeats the border"
SYMMETRIC = "PyTorch's interpolate has no half_pixel_symmetric"
LEFT_OUT = {
    "depthtospace_example": CHANNEL_ORDER,
    "spacetodepth": CHANNEL_ORDER,
    "spacetodepth_example": CHANNEL_ORDER,
    "spacetodepth_dcr_mode_example": CHANNEL_ORDER,
    "resize_tf_crop_and_resize": CROP,
    "resize_tf_crop_and_resize_axes_2_3": CROP,
    "resize_tf_crop_and_resize_axes_3_2": CROP,
    "resize_tf_crop_and_resize_extrapolation_value": CROP,
    "resize_upsample_scales_cubic_asymmetric": ASYMMETRIC,
    "resize_upsample_sizes_nearest_ceil_half_pixel": NEAREST,
    "resize_upsample_sizes_nearest_floor_align_corners": NEAREST,
    "resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric": NEAREST,
    "resize_upsample_sizes_nearest": HALF_WAY,
    "resize_upsample_sizes_nearest_axes_2_3": HALF_WAY,
    "resize_upsample_sizes_nearest_axes_3_2": HALF_WAY,
    "resize_upsample_sizes_nearest_not_larger": HALF_WAY,
    "resize_downsample_sizes_nearest": HALF_WAY,
    "resize_downsample_sizes_nearest_not_larger": HALF_WAY,
    "resize_downsample_sizes_nearest_not_smaller": HALF_WAY,
    "resize_downsample_scales_linear_align_corners": CORNERS,
    "resize_downsample_scales_cubic_align_corners": CORNERS,
    "resize_downsample_scales_cubic_A_n0p5_exclude_outside": SLOPE,
    "resize_downsample_sizes_linear_pytorch_half_pixel": ONE,
    "resize_downsample_scales_linear_antialias": ANTIALIAS,
    "resize_downsample_sizes_linear_antialias": ANTIALIAS,
    "resize_downsample_scales_cubic_antialias": ANTIALIAS,
    "resize_downsample_sizes_cubic_antialias": ANTIALIAS,
    "resize_downsample_scales_linear_half_pixel_symmetric": SYMMETRIC,
    "resize_upsample_scales_linear_half_pixel_symmetric": SYMMETRIC,
}
# Their expected numbers were written down with about four decimals.
FOUR_DECIMALS = {"averagepool_2d_ceil_last_window_starts_on_pad", "gridsample_bicubic"}


def collect():
    """The cases of one node each, by name; the rest are the same cases spelled out in elementary nodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(f"{node.__name__}.{module}")
    cases = [case for case in node._NodeTestCases if len(case.model.graph.node) == 1]
    return {case.name.removeprefix("test_"): case for case in cases}


CASES = collect()


class Attributes(SimpleNamespace):
    """A node's attributes by name; one that is absent is None."""

    def __getattr__(self, name: str) -> Any:
        return None


def attributes(operator: onnx.NodeProto) -> Attributes:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in operator.attribute}
    return Attributes(**{k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()})


def last(x):
    """(batch, channels, *spatial) -> (batch, *spatial, channels)."""
    return np.moveaxis(x, 1, -1)


def first(y):
    return np.moveaxis(np.asarray(y), -1, 1)


def kernel(weight):
    """(channels_out, channels_in // groups, *window) -> (*window, channels_in // groups, channels_out)."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def pairs(pads):
    """[low, low, ..., high, high, ...] as ((low, high), ...)."""
    return tuple(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))


def sliding(a: Attributes, *, default_stride: int | None = None) -> dict[str, Any]:
    """The options that every sliding window has."""
    names = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER", "VALID": "VALID"}
    padding = pairs(a.pads) if a.pads else 0
    options = {"padding": names.get(a.auto_pad, padding), "dilation": tuple(a.dilations or ()) or 1}
    stride = tuple(a.strides or ()) or default_stride
    return options | ({} if stride is None else {"stride": stride})


def conv(a, x, weight, bias=None):
    return first(F.conv(last(x), kernel(weight), bias, groups=a.group or 1, **sliding(a)))


def conv_transpose(a, x, weight, bias=None):
    # The weight is (channels_in, channels_out // groups, *window): the kernel of the conv this is adjoint to.
    options: dict[str, Any] = sliding(a) | {"output_padding": tuple(a.output_padding or ()) or 0}
    if a.output_shape:
        # What the full output lacks is output padding; these cases have no more than that.
        full = F.conv_transpose_output_size(x.shape[2:], weight.shape[2:], stride=options["stride"])
        lacking = [wanted - size for wanted, size in zip(a.output_shape, full, strict=True)]
        options["output_padding"] = tuple(lacking)
    return first(F.conv_transpose(last(x), kernel(weight), bias, groups=a.group or 1, **options))


def max_pool(a, x):
    exact = x.astype(np.float32)  # images of bytes are refused here; every byte is a float
    options: dict[str, Any] = sliding(a, default_stride=1) | {"ceil_mode": bool(a.ceil_mode)}
    y, indices = F.max_pool(last(exact), tuple(a.kernel_shape), return_indices=True, **options)
    plain = F.max_pool(last(exact), tuple(a.kernel_shape), **options)
    np.testing.assert_array_equal(plain, y)
    if a.storage_order:  # column-major positions
        rows, columns = np.divmod(np.asarray(indices), x.shape[3])
        indices = columns * x.shape[2] + rows
    return first(y).astype(x.dtype), first(indices)


def average_pool(a, x):
    options = sliding(a, default_stride=1) | {"ceil_mode": bool(a.ceil_mode)}
    include = bool(a.count_include_pad)
    return first(F.avg_pool(last(x), tuple(a.kernel_shape), count_include_pad=include, **options))


def lp_pool(a, x):
    return first(F.lp_pool(last(x), a.p or 2, tuple(a.kernel_shape), **sliding(a, default_stride=1)))


def max_unpool(a, x, indices, output_shape=None):
    # ONNX counts positions in the plane that window and stride imply, and pads that to output_shape.
    strides = a.strides or [1] * (x.ndim - 2)
    sizes = zip(x.shape[2:], strides, a.kernel_shape, strict=True)
    implied = tuple((n - 1) * stride + window for n, stride, window in sizes)
    y = F.max_unpool(last(x), jnp.asarray(last(indices), jnp.int32), implied)
    wanted = implied if output_shape is None else output_shape[2:]
    return first(F.pad(y, tuple((0, int(n - size)) for n, size in zip(wanted, implied, strict=True))))


def batch_normalization(a, x, scale, bias, mean, var):
    eps = a.epsilon or 1e-5
    if not a.training_mode:
        return first(F.batch_norm(last(x), mean, var, scale, bias, eps=eps))
    batch_mean, batch_var, _ = F.batch_stats(last(x))
    y = F.batch_norm(last(x), batch_mean, batch_var, scale, bias, eps=eps)
    momentum = 0.9 if a.momentum is None else a.momentum
    # ONNX's running variance is biased, so it is the batch's own; PyTorch's, in nn.BatchNorm, is unbiased.
    running = [momentum * old + (1 - momentum) * new for old, new in ((mean, batch_mean), (var, batch_var))]
    return first(y), *running


def layer_normalization(a, x, scale, bias=None):
    # With one more axis in front, axis 0 is an axis like any other.
    axes = range(-1 if a.axis is None else a.axis % x.ndim - x.ndim, 0)
    return F.layer_norm(x[None], scale, bias, axes=tuple(axes), eps=a.epsilon or 1e-5)[0]


def rms_normalization(a, x, scale):
    axes = range(-1 if a.axis is None else a.axis % x.ndim - x.ndim, 0)
    return F.rms_norm(x[None], scale, axes=tuple(axes), eps=a.epsilon or 1e-5)[0]


def local_response(a, x):
    options = {"alpha": a.alpha, "beta": a.beta, "k": a.bias}
    given = {name: value for name, value in options.items() if value is not None}
    return first(F.local_response_norm(last(x), a.size, **given))


def deform_conv(a, x, weight, offset, bias=None, mask=None):
    groups, taps = a.offset_group or 1, math.prod(weight.shape[2:])
    offset = last(offset).reshape(*last(offset).shape[:-1], groups, taps, 2)
    mask = None if mask is None else last(mask).reshape(offset.shape[:-1])
    return first(
        F.deform_conv(last(x), offset, kernel(weight), mask, bias, groups=a.group or 1, **sliding(a))
    )


def col2im(a, columns, image_shape, block_shape):
    size, window = tuple(map(int, image_shape)), tuple(map(int, block_shape))
    options = sliding(a)
    output = F.output_size(size, window, **options)
    # The channels are the slowest part of the columns' axis, here the fastest.
    columns = columns.reshape(len(columns), -1, math.prod(window), *output)
    patches = np.moveaxis(columns, (1, 2), (-1, -2)).reshape(len(columns), *output, -1)
    return first(F.fold_patches(patches, size, window, **options))


def grid_sample(a, x, grid):
    method = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}[a.mode or "linear"]
    options: dict[str, Any] = {
        "padding_mode": a.padding_mode or "zeros",
        "align_corners": bool(a.align_corners),
    }
    return first(F.grid_sample(last(x), grid, method=method, **options))


def resize(a, x, *others):
    given = dict(zip([name for name in a.inputs[1:] if name], others, strict=True))
    axes = [axis - 2 for axis in a.axes or range(x.ndim)]
    spatial = np.array(x.shape[2:])
    scale, size = np.ones(len(spatial)), spatial.copy()
    for axis, place in enumerate(axes):
        if place >= 0 and "scales" in given:
            scale[place] = given["scales"][axis]
            size[place] = int(np.floor(scale[place] * spatial[place]))
        elif place >= 0:
            size[place] = given["sizes"][axis]
            scale[place] = size[place] / spatial[place]
    if a.keep_aspect_ratio_policy in ("not_larger", "not_smaller"):
        scale[:] = scale.min() if a.keep_aspect_ratio_policy == "not_larger" else scale.max()
        size = np.floor(scale * spatial + 0.5).astype(int)
    method = {"nearest": "nearest_exact", "linear": "bilinear", "cubic": "bicubic"}[a.mode or "nearest"]
    corners = a.coordinate_transformation_mode == "align_corners"
    # PyTorch's antialiased cubic has a = -0.5 and leaves out what is outside, upsampling too.
    antialias = bool(a.antialias) or (
        a.cubic_coeff_a == -0.5 and bool(a.exclude_outside) and scale.min() >= 1
    )
    options: dict[str, Any] = {"align_corners": True} if corners else {"scale": tuple(scale.tolist())}
    options |= {"antialias": True} if antialias else {}
    return first(F.resize(last(x), tuple(size.tolist()), method=method, **options))


def pad(a, x, pads, value=None, axes=None):
    widths = [(0, 0)] * x.ndim
    for axis, pair in zip(
        range(x.ndim) if axes is None else axes.tolist(), pairs(pads.tolist()), strict=True
    ):
        widths[axis] = pair
    batch, channels, *spatial = widths
    assert batch == channels == (0, 0)
    mode = "circular" if a.mode == "wrap" else a.mode or "constant"
    fill = {} if value is None else {"value": value.item()}
    return first(F.pad(last(x), tuple(spatial), mode=mode, **fill))


OPERATORS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda a, x: first(F.global_avg_pool(last(x), keepdims=True)),
    "GlobalMaxPool": lambda a, x: first(F.global_max_pool(last(x), keepdims=True)),
    "LpPool": lp_pool,
    "MaxUnpool": max_unpool,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": lambda a, x, s, b: first(F.instance_norm(last(x), s, b, eps=a.epsilon or 1e-5)),
    "GroupNormalization": lambda a, x, scale, bias: first(
        F.group_norm(last(x), a.num_groups, scale, bias, eps=a.epsilon or 1e-5)
    ),
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "LRN": local_response,
    "DeformConv": deform_conv,
    "Col2Im": col2im,
    "GridSample": grid_sample,
    "Resize": resize,
    "Pad": pad,
    "DepthToSpace": lambda a, x: first(F.pixel_shuffle(last(x), a.blocksize)),
    "SpaceToDepth": lambda a, x: first(F.pixel_unshuffle(last(x), a.blocksize)),
}


def test_every_operator_has_cases_and_every_case_left_out_exists():
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == set(OPERATORS)
    assert set(LEFT_OUT) < set(CASES)
    assert len(CASES) - len(LEFT_OUT) >= 150


@pytest.mark.parametrize("name", [name for name in CASES if name not in LEFT_OUT])
def test_onnx_node(name):
    case = CASES[name]
    (operator,) = case.model.graph.node
    (inputs, expected), *others = case.data_sets
    assert not others
    a = attributes(operator)
    a.inputs = list(operator.input)
    result = OPERATORS[operator.op_type](a, *inputs)
    results = result if isinstance(result, tuple) else (result,)
    # Layer norm's optional outputs, its statistics, are not what this package's function returns.
    for ours, theirs in zip(results, expected, strict=False):
        assert ours.shape == theirs.shape
        atol = 1e-4 if name in FOUR_DECIMALS else 2e-6
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=atol)
