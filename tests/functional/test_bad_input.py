"""Wrong input is refused by name when traced: one table, each row eager and under jit."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional
from tests import reference
from tests.calls import CALLS, NAMES

F: Any = jaxcnn.functional  # wrong types are the point here


def array(*shape, dtype=jnp.float32):
    return jnp.asarray(reference.normal(0, *shape)).astype(dtype)


def bind(function, *others, **options):
    """A call of the function on arrays, which jit traces, followed by what jit must not trace."""
    return lambda *arrays: function(*arrays, *others, **options)


x1, x2, x3 = array(2, 9, 4), array(2, 7, 6, 4), array(2, 4, 5, 3, 4)
k1, k2, k3 = array(3, 4, 6), array(3, 2, 4, 6), array(2, 3, 1, 4, 6)
t2 = array(3, 2, 6, 4)  # a kernel for conv_transpose: from 4 channels to 6
signal, taps = array(9), array(3)
key = jax.random.key(0)

# what is wrong: (call, arrays, what the message holds in this order: function, argument, received, expected)
TABLE = {
    # convolutions
    "conv, channel mismatch": (bind(F.conv), [x2, array(3, 2, 5, 6)], "conv: kernel .*4.* x .*(3, 2, 5, 6)"),
    "conv, kernel rank too high": (bind(F.conv), [x1, k2], "conv: x .*(2, 9, 4)"),
    "conv, x rank too low": (bind(F.conv), [array(7, 6, 4), k2], "conv: x .*(7, 6, 4).*x[None]"),
    "conv, x rank too high": (bind(F.conv), [x3, k2], "conv: x .*(2, 4, 5, 3, 4)"),
    "conv, kernel of rank 2": (bind(F.conv), [array(2, 4), array(4, 6)], "conv: kernel .*(4, 6)"),
    "conv, four spatial axes": (
        bind(F.conv),
        [array(1, 3, 3, 3, 3, 2), array(2, 2, 2, 2, 2, 2)],
        "conv: kernel .*(2, 2, 2, 2, 2, 2)",
    ),
    "conv, groups do not divide x": (
        bind(F.conv, groups=3),
        [x2, array(3, 2, 1, 6)],
        "conv: groups .*3.* 4 ",
    ),
    "conv, groups do not divide the kernel": (
        bind(F.conv, groups=4),
        [x2, array(3, 2, 1, 6)],
        "conv: groups .*4.* 6 ",
    ),
    "conv, groups 0": (bind(F.conv, groups=0), [x2, k2], "conv: groups .*1.* 0"),
    "conv, groups forgotten in the kernel": (bind(F.conv, groups=2), [x2, k2], "conv: kernel .*(3, 2, 4, 6)"),
    "conv, kernel larger than x": (
        bind(F.conv),
        [array(2, 2, 6, 4), k2],
        "conv: window .*(3, 2).*3 .*2 ",
    ),
    "conv, dilated kernel larger than padded x": (
        bind(F.conv, dilation=(4, 1), padding=((1, 0), (0, 0))),
        [x2, k2],
        "conv: window .*(3, 2).*(4, 1).*9 .*8 .*(1, 0)",
    ),
    "conv, zero spatial size": (bind(F.conv), [array(2, 0, 6, 4), k2], "conv: x .*(2, 0, 6, 4)"),
    "conv, empty window": (bind(F.conv), [x2, array(0, 2, 4, 6)], "conv: .*(0, 2"),
    "conv, no channels": (bind(F.conv), [array(2, 7, 6, 0), array(3, 2, 0, 6)], "conv: .*0"),
    "conv, stride 0": (bind(F.conv, stride=0), [x2, k2], "conv: stride .*1.* 0"),
    "conv, stride negative": (bind(F.conv, stride=(1, -2)), [x2, k2], "conv: stride .*(1, -2)"),
    "conv, stride a float": (bind(F.conv, stride=2.0), [x2, k2], "conv: stride .*int.*2.0"),
    "conv, stride True": (bind(F.conv, stride=True), [x2, k2], "conv: stride .*int.*True"),
    "conv, stride of another rank": (bind(F.conv, stride=(1, 2, 3)), [x2, k2], "conv: stride .*2.*(1, 2, 3)"),
    "conv, dilation 0": (bind(F.conv, dilation=0), [x2, k2], "conv: dilation .*1.* 0"),
    "conv, negative padding": (bind(F.conv, padding=-1), [x2, k2], "conv: padding .*-1"),
    "conv, negative padding pair": (
        bind(F.conv, padding=((1, 0), (-1, 2))),
        [x2, k2],
        "conv: padding .*((1, 0), (-1, 2))",
    ),
    "conv, padding in lower case": (bind(F.conv, padding="same"), [x2, k2], "conv: padding .*SAME.*'same'"),
    "conv, padding unknown": (bind(F.conv, padding="HALF"), [x2, k2], "conv: padding .*SAME.*VALID.*'HALF'"),
    "conv, padding of another rank": (bind(F.conv, padding=(1, 1, 1)), [x2, k2], "conv: padding .*(1, 1, 1)"),
    "conv, padding of triples": (
        bind(F.conv, padding=((1, 1, 1), (0, 0, 0))),
        [x2, k2],
        "conv: padding .*((1, 1, 1), (0, 0, 0))",
    ),
    "conv, padding a float": (bind(F.conv, padding=1.5), [x2, k2], "conv: padding .*1.5"),
    "conv, padding None": (bind(F.conv, padding=None), [x2, k2], "conv: padding .*None"),
    "conv, CAUSAL in 2-D": (bind(F.conv, padding="CAUSAL"), [x2, k2], "conv: padding .*CAUSAL.* 2"),
    "conv, padding_mode unknown": (
        bind(F.conv, padding=1, padding_mode="mirror"),
        [x2, k2],
        "conv: padding_mode .*reflect.*'mirror'",
    ),
    "conv, padding_mode constant": (
        bind(F.conv, padding=1, padding_mode="constant"),
        [x2, k2],
        "conv: padding_mode .*constant.*value",
    ),
    "conv, padding_mode in upper case": (
        bind(F.conv, padding=1, padding_mode="REFLECT"),
        [x2, k2],
        "conv: padding_mode .*reflect.*'REFLECT'",
    ),
    "conv, reflect padding as large as x": (
        bind(F.conv, padding=((0, 0), (6, 0)), padding_mode="reflect"),
        [x2, k2],
        "conv: reflect padding .*5.*(6, 0)",
    ),
    "conv, circular padding larger than x": (
        bind(F.conv, padding=((8, 0), (0, 0)), padding_mode="circular"),
        [x2, k2],
        "conv: circular padding .*7.*(8, 0)",
    ),
    "conv, integer images": (
        bind(F.conv),
        [array(2, 7, 6, 4, dtype=jnp.uint8), k2],
        "conv: x .*float.*uint8",
    ),
    "conv, complex x": (bind(F.conv), [x2.astype(jnp.complex64), k2], "conv: x .*float.*complex64"),
    "conv, boolean x": (bind(F.conv), [x2 > 0, k2], "conv: x .*float.*bool"),
    "conv, mixed dtypes": (
        bind(F.conv),
        [x2, k2.astype(jnp.bfloat16)],
        "conv: .*dtype.*x.*float32.*kernel.*bfloat16",
    ),
    "conv, bias of another dtype": (
        bind(F.conv),
        [x2, k2, array(6, dtype=jnp.float16)],
        "conv: .*dtype.*float32.*bias.*float16",
    ),
    "conv, bias of another length": (bind(F.conv), [x2, k2, array(4)], "conv: bias .*(6,).*(4,)"),
    "conv, bias of rank 4": (bind(F.conv), [x2, k2, array(1, 1, 1, 6)], "conv: bias .*(6,).*(1, 1, 1, 6)"),
    "conv, a list for x": (bind(F.conv), [[[[1.0]]], k2], "conv: x .*array.*list"),
    "conv, a list for the kernel": (bind(F.conv), [x2, [[1.0]]], "conv: kernel .*array.*list"),
    "conv, a number for the bias": (bind(F.conv, 1.0), [x2, k2], "conv: bias .*array.*float"),
    "conv, an array of strings": (lambda k: F.conv(np.array([["cat"]]), k), [k2], "conv: x .*numbers.*<U3"),
    "conv, bytes from a file of another machine": (
        lambda k: F.conv(np.zeros((2, 7, 6, 4), ">f4"), k),
        [k2],
        "conv: x .*numbers.*>f4",
    ),
    "conv, a variable of Flax for the kernel": (
        lambda x: F.conv(x, nnx.Param(k2)),
        [x2],
        "conv: kernel .*array.*Param.*kernel[...]",
    ),
    "max_pool, numbers of 8 bits": (
        bind(F.max_pool, 2),
        [x2.astype(jnp.float8_e4m3fn)],
        "max_pool: x .*16 bits.*float8_e4m3fn",
    ),
    "conv, a random key": (lambda k: F.conv(jax.random.key(0), k), [k2], "conv: x .*float.*key"),
    "conv, None for x": (lambda k: F.conv(None, k), [k2], "conv: x .*array.*None"),
    "depthwise_conv, channels of x do not divide": (
        bind(F.depthwise_conv),
        [x2, array(3, 2, 1, 6)],
        "depthwise_conv: kernel .* 4 .*(3, 2, 1, 6)",
    ),
    "depthwise_conv, kernel of conv": (
        bind(F.depthwise_conv),
        [x2, k2],
        "depthwise_conv: kernel .*(3, 2, 4, 6)",
    ),
    "depthwise_conv, stride 0": (
        bind(F.depthwise_conv, stride=0),
        [x2, array(3, 2, 1, 4)],
        "depthwise_conv: stride .* 0",
    ),
    "separable_conv, pointwise channels": (
        bind(F.separable_conv),
        [x2, array(3, 2, 1, 8), array(1, 1, 4, 6)],
        "separable_conv: pointwise_kernel .*8.*(1, 1, 4, 6)",
    ),
    "separable_conv, pointwise window": (
        bind(F.separable_conv),
        [x2, array(3, 2, 1, 8), array(3, 1, 8, 6)],
        "separable_conv: pointwise_kernel .*1.*(3, 1, 8, 6)",
    ),
    "separable_conv, depthwise kernel": (
        bind(F.separable_conv),
        [x2, array(3, 2, 1, 6), array(1, 1, 6, 6)],
        "separable_conv: depthwise_kernel .*4.*(3, 2, 1, 6)",
    ),
    # transposed
    "conv_transpose, kernel of conv": (
        bind(F.conv_transpose),
        [x2, k2],
        "conv_transpose: kernel .*4.*(3, 2, 4, 6)",
    ),
    "conv_transpose, groups": (bind(F.conv_transpose, groups=3), [x2, t2], "conv_transpose: groups .*3.* 4 "),
    "conv_transpose, output_padding with SAME": (
        bind(F.conv_transpose, stride=2, padding="SAME", output_padding=1),
        [x2, t2],
        "conv_transpose: output_padding .*'SAME'",
    ),
    "conv_transpose, output_padding as large as the stride": (
        bind(F.conv_transpose, stride=2, output_padding=2),
        [x2, t2],
        "conv_transpose: output_padding .*stride.*2",
    ),
    "conv_transpose, output_padding negative": (
        bind(F.conv_transpose, stride=2, output_padding=-1),
        [x2, t2],
        "conv_transpose: output_padding .*-1",
    ),
    "conv_transpose, padding takes everything": (
        bind(F.conv_transpose, padding=9),
        [x2, t2],
        "conv_transpose: padding .*9.*(7, 6)",
    ),
    "conv_transpose, bias": (bind(F.conv_transpose), [x2, t2, array(4)], "conv_transpose: bias .*(6,).*(4,)"),
    "conv_transpose, padding in lower case": (
        bind(F.conv_transpose, padding="valid"),
        [x2, t2],
        "conv_transpose: padding .*VALID.*'valid'",
    ),
    "conv_transpose, stride 0": (bind(F.conv_transpose, stride=0), [x2, t2], "conv_transpose: stride .* 0"),
    "conv_transpose, CAUSAL in 2-D": (
        bind(F.conv_transpose, padding="CAUSAL"),
        [x2, t2],
        "conv_transpose: padding .*CAUSAL.* 2",
    ),
    # pad
    "pad, negative": (bind(F.pad, -1), [x2], "pad: padding .*-1"),
    "pad, unknown mode": (bind(F.pad, 1, mode="wrap"), [x2], "pad: mode .*circular.*'wrap'"),
    "pad, reflect as large as x": (
        bind(F.pad, (6, 6), mode="reflect"),
        [x2],
        "pad: reflect padding .*5.*(6, 6)",
    ),
    "pad, circular larger than x": (
        bind(F.pad, (0, 7), mode="circular"),
        [x2],
        "pad: circular padding .*6.*(7, 7)",
    ),
    "pad, symmetric larger than x": (
        bind(F.pad, (0, 7), mode="symmetric"),
        [x2],
        "pad: symmetric padding .*6.*(7, 7)",
    ),
    "pad, edge of nothing": (bind(F.pad, 1, mode="edge"), [array(2, 0, 6, 4)], "pad: x .*(2, 0, 6, 4)"),
    "pad, a value that no mode uses": (
        bind(F.pad, 1, value=2.0),
        [x2],
        "pad: value .*constant.*2.0.*'zeros'",
    ),
    "pad, another rank": (bind(F.pad, (1, 1, 1)), [x2], "pad: padding .*(1, 1, 1)"),
    "pad, a name": (bind(F.pad, "SAME"), [x2], "pad: padding .*'SAME'"),
    "pad, one image": (
        bind(F.pad, (1, 1)),
        [array(7, 6, 4)],
        "pad: .*(7, 6, 4).*x[None]|pad: padding .*(1, 1)",
    ),
    "pad, a list": (bind(F.pad, 1), [[[1.0]]], "pad: x .*array.*list"),
    # pools
    "max_pool, int window for one image": (
        bind(F.max_pool, 2),
        [array(7, 6, 4)],
        "max_pool: window .*tuple.*window=2.*x[None]",
    ),
    "avg_pool, int window for volumes": (
        bind(F.avg_pool, 2),
        [x3],
        "avg_pool: window .*tuple.*window=2",
    ),
    "max_pool, window of another rank": (bind(F.max_pool, (2, 2)), [x1], "max_pool: x .*(2, 9, 4)"),
    "max_pool, one image": (bind(F.max_pool, (2, 2)), [array(7, 6, 4)], "max_pool: x .*(7, 6, 4).*x[None]"),
    "max_pool, window larger than x": (bind(F.max_pool, (8, 2)), [x2], "max_pool: window .*(8, 2).*8 .*7 "),
    "max_pool, window a float": (bind(F.max_pool, 2.0), [x2], "max_pool: window .*int.*2.0"),
    "max_pool, window with batch and channels": (
        bind(F.max_pool, (1, 2, 2, 1)),
        [x2],
        "max_pool: window .*1 to 3.*(1, 2, 2, 1)",
    ),
    "max_pool, window 0": (bind(F.max_pool, (2, 0)), [x2], "max_pool: window .*(2, 0)"),
    "max_pool, window a NumPy number": (
        lambda x: F.max_pool(x, np.array(2.0)),
        [x2],
        "max_pool: window .*int.*array(2.)",
    ),
    "max_pool, ceil_mode a word": (
        bind(F.max_pool, 2, ceil_mode="no"),
        [x2],
        "max_pool: ceil_mode .*True.*'no'",
    ),
    "max_pool, return_indices a number": (
        bind(F.max_pool, 2, return_indices=1),
        [x2],
        "max_pool: return_indices .*True.* 1",
    ),
    "max_pool, ceil_mode known at run time": (
        lambda x: jax.jit(lambda x, ceil: F.max_pool(x, 2, ceil_mode=ceil))(x, True),
        [x2],
        "max_pool: ceil_mode .*True.*bool",
    ),
    "avg_pool, count_include_pad None": (
        bind(F.avg_pool, 2, count_include_pad=None),
        [x2],
        "avg_pool: count_include_pad .*True.*None",
    ),
    "global_avg_pool, keepdims a word": (
        bind(F.global_avg_pool, keepdims="False"),
        [x2],
        "global_avg_pool: keepdims .*True.*'False'",
    ),
    "max_pool, ceil_mode with a window of more than a stride too much": (
        bind(F.max_pool, (9, 2), stride=2, ceil_mode=True),
        [x2],
        "max_pool: window .*(9, 2).*9 .*7 ",
    ),
    "max_pool, stride 0": (bind(F.max_pool, 2, stride=0), [x2], "max_pool: stride .* 0"),
    "avg_pool, dilation 0": (bind(F.avg_pool, 2, dilation=(0, 1)), [x2], "avg_pool: dilation .*(0, 1)"),
    "max_pool, negative padding": (bind(F.max_pool, 2, padding=-1), [x2], "max_pool: padding .*-1"),
    "max_pool, padding in lower case": (
        bind(F.max_pool, 2, padding="same"),
        [x2],
        "max_pool: padding .*SAME.*'same'",
    ),
    "max_pool, a window in the padding": (
        bind(F.max_pool, 2, stride=1, padding=2),
        [x2],
        "max_pool: every window .*(2, 2).*padding 2 .*(7, 6)",
    ),
    "avg_pool, a window in the padding": (
        bind(F.avg_pool, 2, stride=1, padding=((0, 0), (0, 2)), count_include_pad=False),
        [x2],
        "avg_pool: every window .*((0, 0), (0, 2)) .*(7, 6)",
    ),
    "max_pool, a dilated window around x": (
        bind(F.max_pool, (2,), stride=1, padding=1, dilation=2),
        [array(2, 1, 3)],
        "max_pool: every window .*(2,).*padding 1 .*(1,)",
    ),
    "max_pool, ceil_mode with SAME": (
        bind(F.max_pool, 2, padding="SAME", ceil_mode=True),
        [x2],
        "max_pool: ceil_mode.*'SAME'",
    ),
    "avg_pool, ceil_mode with VALID": (
        bind(F.avg_pool, 2, padding="VALID", ceil_mode=True),
        [x2],
        "avg_pool: ceil_mode.*'VALID'",
    ),
    "max_pool, zero spatial size": (bind(F.max_pool, 2), [array(2, 0, 6, 4)], "max_pool: x .*(2, 0, 6, 4)"),
    "max_pool, integer images": (
        bind(F.max_pool, 2),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "max_pool: x .*float.*uint8",
    ),
    "avg_pool, a list": (bind(F.avg_pool, 2), [[[1.0]]], "avg_pool: x .*array.*list"),
    "max_pool with indices, a window in the padding": (
        bind(F.max_pool, 2, stride=1, padding=2, return_indices=True),
        [x2],
        "max_pool: every window .*(2, 2).*padding 2 .*(7, 6)",
    ),
    "lp_pool, p 0": (bind(F.lp_pool, 0, 2), [x2], "lp_pool: p .*positive.* 0"),
    "lp_pool, p negative": (bind(F.lp_pool, -2.0, 2), [x2], "lp_pool: p .*positive.*-2.0"),
    "lp_pool, p nan": (bind(F.lp_pool, float("nan"), 2), [x2], "lp_pool: p .*positive.*nan"),
    "lp_pool, p infinite": (bind(F.lp_pool, float("inf"), 2), [x2], "lp_pool: p .*finite.*inf.*max_pool"),
    "lp_pool, p a string": (bind(F.lp_pool, "2", 2), [x2], "lp_pool: p .*number.*'2'"),
    "lp_pool, p an array": (lambda x: F.lp_pool(x, x[0, 0, 0, 0], 2), [x2], "lp_pool: p .*Python number"),
    "lp_pool, p forgotten": (bind(F.lp_pool, (2, 2), 2), [x2], "lp_pool: p .*number.*(2, 2)"),
    "lp_pool, int window for a series": (bind(F.lp_pool, 2, 3), [x1], "lp_pool: window .*tuple.*window=3"),
    "lp_pool, a window in the padding": (
        bind(F.lp_pool, 2, 2, stride=1, padding=2),
        [x2],
        "lp_pool: every window .*(2, 2).*padding 2 .*(7, 6)",
    ),
    "lp_pool, ceil_mode with SAME": (
        bind(F.lp_pool, 2, 2, padding="SAME", ceil_mode=True),
        [x2],
        "lp_pool: ceil_mode.*'SAME'",
    ),
    "lp_pool, integer images": (
        bind(F.lp_pool, 2, 2),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "lp_pool: x .*float.*uint8",
    ),
    "max_unpool, indices of another shape": (
        lambda x, indices: F.max_unpool(x, indices, (14, 12)),
        [x2, jnp.zeros((2, 7, 6, 1), jnp.int32)],
        "max_unpool: indices .*(2, 7, 6, 4).*(2, 7, 6, 1)",
    ),
    "max_unpool, indices of floats": (
        lambda x: F.max_unpool(x, x, (14, 12)),
        [x2],
        "max_unpool: indices .*integer.*float32",
    ),
    "max_unpool, indices a list": (bind(F.max_unpool, [1, 2], 14), [x2], "max_unpool: indices .*array.*list"),
    "max_unpool, output_size with batch and channels": (
        lambda x, indices: F.max_unpool(x, indices, (2, 14, 12, 4)),
        [x2, jnp.zeros((2, 7, 6, 4), jnp.int32)],
        "max_unpool: output_size .*1 to 3.*(2, 14, 12, 4)",
    ),
    "max_unpool, output_size of another rank": (
        lambda x, indices: F.max_unpool(x, indices, (14,)),
        [x2, jnp.zeros((2, 7, 6, 4), jnp.int32)],
        "max_unpool: x .*1 spatial axes .*output_size (14,).*(2, 7, 6, 4)",
    ),
    "max_unpool, int output_size for a series": (
        lambda x, indices: F.max_unpool(x, indices, 18),
        [x1, jnp.zeros((2, 9, 4), jnp.int32)],
        "max_unpool: output_size .*tuple.*output_size=18",
    ),
    "max_unpool, output_size 0": (
        lambda x, indices: F.max_unpool(x, indices, (14, 0)),
        [x2, jnp.zeros((2, 7, 6, 4), jnp.int32)],
        "max_unpool: output_size .*1.*(14, 0)",
    ),
    "adaptive_avg_pool, output_size 0": (
        bind(F.adaptive_avg_pool, 0),
        [x2],
        "adaptive_avg_pool: output_size .*1.* 0",
    ),
    "adaptive_avg_pool, output_size with None": (
        bind(F.adaptive_avg_pool, (None, 3)),
        [x2],
        "adaptive_avg_pool: output_size .*ints.*(None, 3)",
    ),
    "adaptive_avg_pool, one image": (
        bind(F.adaptive_avg_pool, (2, 3)),
        [array(7, 6, 4)],
        "adaptive_avg_pool: x .*2 spatial axes .*output_size (2, 3).*(7, 6, 4).*x[None]",
    ),
    "adaptive_max_pool, int for volumes": (
        bind(F.adaptive_max_pool, 2),
        [x3],
        "adaptive_max_pool: output_size .*tuple.*output_size=2",
    ),
    "adaptive_max_pool, output_size of another rank": (
        bind(F.adaptive_max_pool, (2, 3, 1)),
        [x2],
        "adaptive_max_pool: x .*3 spatial axes .*(2, 7, 6, 4)",
    ),
    "adaptive_max_pool, zero spatial size": (
        bind(F.adaptive_max_pool, 2),
        [array(2, 0, 6, 4)],
        "adaptive_max_pool: x .*(2, 0, 6, 4)",
    ),
    "adaptive_max_pool, integer images": (
        bind(F.adaptive_max_pool, 2),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "adaptive_max_pool: x .*float.*uint8",
    ),
    "adaptive_avg_pool, a list": (
        bind(F.adaptive_avg_pool, 2),
        [[[1.0]]],
        "adaptive_avg_pool: x .*array.*list",
    ),
    "spatial_pyramid_pool, one level without a sequence": (
        bind(F.spatial_pyramid_pool, 4),
        [x2],
        "spatial_pyramid_pool: levels .*sequence.* 4",
    ),
    "spatial_pyramid_pool, no level": (
        bind(F.spatial_pyramid_pool, ()),
        [x2],
        "spatial_pyramid_pool: levels .*at least one.*()",
    ),
    "spatial_pyramid_pool, a level 0": (
        bind(F.spatial_pyramid_pool, (1, 0)),
        [x2],
        "spatial_pyramid_pool: levels[1] .*1.* 0",
    ),
    "spatial_pyramid_pool, a float": (
        bind(F.spatial_pyramid_pool, (1, 2.0)),
        [x2],
        "spatial_pyramid_pool: levels[1] .*int.*2.0",
    ),
    "spatial_pyramid_pool, ints for volumes": (
        bind(F.spatial_pyramid_pool, (1, 2)),
        [x3],
        "spatial_pyramid_pool: levels[0] .*tuple.*levels[0]=1",
    ),
    "spatial_pyramid_pool, levels of two ranks": (
        bind(F.spatial_pyramid_pool, ((1, 1), (2, 2, 2))),
        [x2],
        "spatial_pyramid_pool: x .*3 spatial axes .*levels[1] (2, 2, 2).*(2, 7, 6, 4)",
    ),
    "global_avg_pool, no spatial axes": (
        bind(F.global_avg_pool),
        [array(2, 4)],
        "global_avg_pool: x .*(2, 4)",
    ),
    "global_avg_pool, empty": (bind(F.global_avg_pool), [array(2, 0, 4)], "global_avg_pool: x .*(2, 0, 4)"),
    "global_max_pool, empty": (
        bind(F.global_max_pool),
        [array(2, 3, 0, 4)],
        "global_max_pool: x .*(2, 3, 0, 4)",
    ),
    "global_max_pool, integers": (
        bind(F.global_max_pool),
        [array(2, 3, 4, dtype=jnp.int32)],
        "global_max_pool: x .*float.*int32",
    ),
    # resampling
    "resize, size 0": (bind(F.resize, (0, 4)), [x2], "resize: size .*1.*(0, 4)"),
    "resize, int size for one image": (
        bind(F.resize, 8),
        [array(7, 6, 4)],
        "resize: size .*tuple.*8.*x[None]",
    ),
    "resize, size of another rank": (
        bind(F.resize, (8, 8, 8)),
        [x2],
        "resize: x .*3 .*(8, 8, 8).*(2, 7, 6, 4)",
    ),
    "resize, size of the whole array": (
        bind(F.resize, (2, 8, 8, 4)),
        [x2],
        "resize: size .*1 to 3.*(2, 8, 8, 4)",
    ),
    "resize, size a float": (bind(F.resize, 3.5), [x2], "resize: size .*int.*3.5"),
    "resize, one image": (bind(F.resize, (8, 8)), [array(7, 6, 4)], "resize: x .*(7, 6, 4).*x[None]"),
    "resize, zero spatial size": (bind(F.resize, (8, 8)), [array(2, 0, 6, 4)], "resize: x .*(2, 0, 6, 4)"),
    "resize, unknown method": (
        bind(F.resize, 8, method="lanczos"),
        [x2],
        "resize: method .*bicubic.*'lanczos'",
    ),
    "resize, torch's name": (
        bind(F.resize, 8, method="trilinear"),
        [x2],
        "resize: method .*'trilinear'.*bilinear",
    ),
    "resize, torch's other name": (
        bind(F.resize, 8, method="nearest-exact"),
        [x2],
        "resize: method .*'nearest-exact'.*nearest_exact",
    ),
    "resize, method None": (bind(F.resize, 8, method=None), [x2], "resize: method .*nearest.*None"),
    "resize, align_corners with nearest": (
        bind(F.resize, 8, method="nearest", align_corners=True),
        [x2],
        "resize: align_corners.*bilinear.*'nearest'",
    ),
    "resize, antialias with area": (
        bind(F.resize, 4, method="area", antialias=True),
        [x2],
        "resize: antialias.*bilinear.*'area'",
    ),
    "resize, scale with align_corners": (
        bind(F.resize, 14, scale=2.0, align_corners=True),
        [x2],
        "resize: scale .*align_corners.*2.0",
    ),
    "resize, scale with area": (bind(F.resize, 14, scale=2, method="area"), [x2], "resize: scale .*area.*2"),
    "resize, scale the other way round": (
        bind(F.resize, (14, 12), scale=0.5),
        [x2],
        "resize: scale .*output.*0.5.*(7, 6).*(14, 12)",
    ),
    "resize, scale 0": (bind(F.resize, 8, scale=0.0), [x2], "resize: scale .*positive.*0.0"),
    "resize, scale of another rank": (bind(F.resize, 8, scale=(1.1,)), [x2], "resize: scale .*2 .*(1.1,)"),
    "resize, scale a string": (bind(F.resize, 14, scale="2"), [x2], "resize: scale .*number.*'2'"),
    "resize, integer images": (
        bind(F.resize, 8),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "resize: x .*float.*uint8",
    ),
    "resize, complex": (bind(F.resize, 8), [x2.astype(jnp.complex64)], "resize: x .*float.*complex64"),
    "resize, a list": (bind(F.resize, (8, 8)), [[[1.0]]], "resize: x .*array.*list"),
    "grid_sample, grid of another batch": (
        bind(F.grid_sample),
        [x2, array(3, 5, 5, 2)],
        "grid_sample: grid .*(2, .output, 2).*(2, 7, 6, 4).*(3, 5, 5, 2)",
    ),
    "grid_sample, grid of another rank": (
        bind(F.grid_sample),
        [x2, array(2, 5, 5, 3)],
        "grid_sample: grid .*(2, .output, 2).*(2, 5, 5, 3)",
    ),
    "grid_sample, grid with its axes first": (
        bind(F.grid_sample),
        [x2, array(2, 2, 5, 5)],
        "grid_sample: grid .*(2, .output, 2).*(2, 2, 5, 5)",
    ),
    "grid_sample, grid of numbers": (bind(F.grid_sample), [x2, array(2)], "grid_sample: grid .*(2,)"),
    "grid_sample, integer grid": (
        bind(F.grid_sample),
        [x2, jnp.ones((2, 5, 2), jnp.int32)],
        "grid_sample: grid .*float.*int32",
    ),
    "grid_sample, unknown method": (
        bind(F.grid_sample, method="area"),
        [x2, array(2, 5, 2)],
        "grid_sample: method .*bilinear.*'area'",
    ),
    "grid_sample, unknown padding_mode": (
        bind(F.grid_sample, padding_mode="circular"),
        [x2, array(2, 5, 2)],
        "grid_sample: padding_mode .*border.*'circular'",
    ),
    "grid_sample, pad's edge": (
        bind(F.grid_sample, padding_mode="edge"),
        [x2, array(2, 5, 2)],
        "grid_sample: padding_mode .*'edge'.*border",
    ),
    "grid_sample, pad's reflect": (
        bind(F.grid_sample, padding_mode="reflect"),
        [x2, array(2, 5, 2)],
        "grid_sample: padding_mode .*'reflect'.*reflection.*align_corners=True",
    ),
    "grid_sample, integer images": (
        bind(F.grid_sample),
        [array(2, 7, 6, 4, dtype=jnp.uint8), array(2, 5, 2)],
        "grid_sample: x .*float.*uint8",
    ),
    "grid_sample, a list for the grid": (
        bind(F.grid_sample),
        [x2, [[0.0]]],
        "grid_sample: grid .*array.*list",
    ),
    "pixel_shuffle, channels": (
        bind(F.pixel_shuffle, 3),
        [x2],
        "pixel_shuffle: factor.2 .*(2, 7, 6, 4).*3.* 4 ",
    ),
    "pixel_shuffle, factor 0": (bind(F.pixel_shuffle, 0), [x2], "pixel_shuffle: factor .*1.* 0"),
    "pixel_shuffle, factor a tuple": (
        bind(F.pixel_shuffle, (2, 2)),
        [x2],
        "pixel_shuffle: factor .*int.*(2, 2)",
    ),
    "pixel_shuffle, one image": (bind(F.pixel_shuffle, 2), [array(6, 4)], "pixel_shuffle: x .*(6, 4)"),
    "pixel_shuffle, integers": (
        bind(F.pixel_shuffle, 2),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "pixel_shuffle: x .*float.*uint8",
    ),
    "pixel_unshuffle, spatial size": (
        bind(F.pixel_unshuffle, 2),
        [x2],
        "pixel_unshuffle: factor .*(2, 7, 6, 4).*2.*(7, 6)",
    ),
    "pixel_unshuffle, factor negative": (
        bind(F.pixel_unshuffle, -1),
        [x2],
        "pixel_unshuffle: factor .*1.*-1",
    ),
    "pixel_unshuffle, factor a float": (
        bind(F.pixel_unshuffle, 2.0),
        [x2],
        "pixel_unshuffle: factor .*int.*2.0",
    ),
    "pixel_unshuffle, a list": (bind(F.pixel_unshuffle, 2), [[[1.0]]], "pixel_unshuffle: x .*array.*list"),
    # deformable convolution; the output is 5 by 5, the kernel has 6 taps
    "deform_conv, offset as torchvision's": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 12), k2],
        "deform_conv: offset .*(2, 5, 5, 1, 6, 2).*(2, 5, 5, 12)",
    ),
    "deform_conv, offset of the size of x": (
        bind(F.deform_conv),
        [x2, array(2, 7, 6, 1, 6, 2), k2],
        "deform_conv: offset .*(2, 5, 5, 1, 6, 2).*(2, 7, 6, 1, 6, 2)",
    ),
    "deform_conv, offset of another window": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 2, 9, 2), k2],
        "deform_conv: offset .*(2, 5, 5, 2, 6, 2).*(2, 5, 5, 2, 9, 2)",
    ),
    "deform_conv, offset groups do not divide": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 3, 6, 2), k2],
        "deform_conv: .*offset groups .*3.* 4 ",
    ),
    "deform_conv, no offset groups": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 0, 6, 2), k2],
        "deform_conv: .*offset groups .*0.* 4 ",
    ),
    "deform_conv, integer offset": (
        bind(F.deform_conv),
        [x2, jnp.zeros((2, 5, 5, 1, 6, 2), jnp.int32), k2],
        "deform_conv: offset .*float.*int32",
    ),
    "deform_conv, offset and kernel exchanged": (
        bind(F.deform_conv),
        [x2, k2, array(2, 5, 5, 1, 6, 2)],
        "deform_conv: kernel .*(height, width.*(2, 5, 5, 1, 6, 2)",
    ),
    "deform_conv, 1-D": (
        bind(F.deform_conv),
        [x1, array(2, 7, 1, 3, 1), k1],
        "deform_conv: kernel .*(height, width.*(3, 4, 6)",
    ),
    "deform_conv, one image": (
        bind(F.deform_conv),
        [array(7, 6, 4), array(2, 5, 5, 1, 6, 2), k2],
        "deform_conv: x .*(7, 6, 4).*x[None]",
    ),
    "deform_conv, mask with the offset's last axis": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 1, 6, 2), k2, array(2, 5, 5, 1, 6, 2)],
        "deform_conv: mask .*(2, 5, 5, 1, 6).*(2, 5, 5, 1, 6, 2)",
    ),
    "deform_conv, mask of another dtype": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 1, 6, 2), k2, array(2, 5, 5, 1, 6, dtype=jnp.float16)],
        "deform_conv: .*dtype.*x float32.*mask float16",
    ),
    "deform_conv, mask of bools": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 1, 6, 2), k2, array(2, 5, 5, 1, 6) > 0],
        "deform_conv: mask .*float.*bool",
    ),
    "deform_conv, bias": (
        lambda x, offset, k, b: F.deform_conv(x, offset, k, None, b),
        [x2, array(2, 5, 5, 1, 6, 2), k2, array(4)],
        "deform_conv: bias .*(6,).*(4,)",
    ),
    "deform_conv, channel mismatch": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 1, 6, 2), array(3, 2, 3, 6)],
        "deform_conv: kernel .*4 .*(2, 7, 6, 4).*(3, 2, 3, 6)",
    ),
    "deform_conv, groups": (
        bind(F.deform_conv, groups=3),
        [x2, array(2, 5, 5, 1, 6, 2), k2],
        "deform_conv: groups .*3.* 4 ",
    ),
    "deform_conv, mixed dtypes": (
        bind(F.deform_conv),
        [x2, array(2, 5, 5, 1, 6, 2), k2.astype(jnp.bfloat16)],
        "deform_conv: .*dtype.*x float32.*kernel bfloat16",
    ),
    "deform_conv, window larger than x": (
        bind(F.deform_conv),
        [array(2, 2, 6, 4), array(2, 5, 5, 1, 6, 2), k2],
        "deform_conv: window .*(3, 2).*3 .*2 ",
    ),
    "deform_conv, stride 0": (
        bind(F.deform_conv, stride=0),
        [x2, array(2, 5, 5, 1, 6, 2), k2],
        "deform_conv: stride .*1.* 0",
    ),
    "deform_conv, padding in lower case": (
        bind(F.deform_conv, padding="same"),
        [x2, array(2, 5, 5, 1, 6, 2), k2],
        "deform_conv: padding .*SAME.*'same'",
    ),
    "deform_conv, a list for the offset": (
        bind(F.deform_conv),
        [x2, [[0.0]], k2],
        "deform_conv: offset .*array.*list",
    ),
    # sizes
    "output_size, window larger": (
        lambda: F.output_size((5, 4), (6, 2)),
        [],
        "output_size: window .*(6, 2).*6 .*5 ",
    ),
    "output_size, stride 0": (
        lambda: F.output_size((5, 4), (3, 2), stride=0),
        [],
        "output_size: stride .* 0",
    ),
    "output_size, size 0": (lambda: F.output_size((0, 4), (1, 2)), [], "output_size: size .*(0, 4)"),
    "output_size, ranks": (lambda: F.output_size((5, 4), (3, 2, 1)), [], "output_size: window .*(3, 2, 1)"),
    "output_size, ceil_mode with SAME": (
        lambda: F.output_size((5, 4), (3, 2), padding="SAME", ceil_mode=True),
        [],
        "output_size: ceil_mode.*'SAME'",
    ),
    "output_size, exact": (
        lambda: F.output_size((9, 9), (3, 2), stride=2, exact=True),
        [],
        "output_size: .*stride .*2",
    ),
    "conv_transpose_output_size, output_padding": (
        lambda: F.conv_transpose_output_size((5, 4), (3, 2), stride=2, output_padding=3),
        [],
        "conv_transpose_output_size: output_padding .*3",
    ),
    "conv_transpose_output_size, with SAME": (
        lambda: F.conv_transpose_output_size((5, 4), (3, 2), stride=2, padding="SAME", output_padding=1),
        [],
        "conv_transpose_output_size: output_padding .*'SAME'",
    ),
    "conv_parameter_count, groups": (
        lambda: F.conv_parameter_count(3, 4, 6, groups=4),
        [],
        "conv_parameter_count: groups .*4.* 6 ",
    ),
    "conv_parameter_count, window": (
        lambda: F.conv_parameter_count((3, 0), 4, 6),
        [],
        "conv_parameter_count: window .*1.*(3, 0)",
    ),
    "conv_parameter_count, a kernel's shape": (
        lambda: F.conv_parameter_count((3, 3, 4, 6), 4, 6),
        [],
        "conv_parameter_count: window .*1 to 3.*(3, 3, 4, 6)",
    ),
    "conv_parameter_count, channels": (
        lambda: F.conv_parameter_count(3, 0, 6),
        [],
        "conv_parameter_count: channels_in .*1.* 0",
    ),
    "conv_parameter_count, channels a float": (
        lambda: F.conv_parameter_count(3, 4, 6.0),
        [],
        "conv_parameter_count: channels_out .*int.*6.0",
    ),
    # signals
    "convolve, ranks": (bind(F.convolve), [signal, array(3, 3)], "convolve: .*(9,).*(3, 3)"),
    "convolve, mode": (bind(F.convolve, mode="SAME"), [signal, taps], "convolve: mode .*same.*'SAME'"),
    "convolve, empty": (bind(F.convolve), [signal, array(0)], "convolve: kernel .*(0,)"),
    "convolve, integers": (bind(F.convolve), [jnp.arange(9), taps], "convolve: signal .*float.*int32"),
    "convolve, a list": (bind(F.convolve), [signal, [1.0, 2.0]], "convolve: kernel .*array.*list"),
    "convolve, four axes": (bind(F.convolve), [array(2, 2, 2, 2)] * 2, "convolve: .*(2, 2, 2, 2)"),
    "convolve, mixed dtypes": (
        bind(F.convolve),
        [signal, taps.astype(jnp.float16)],
        "convolve: .*dtype.*float32.*float16",
    ),
    "cross_correlate, valid where neither contains the other": (
        bind(F.cross_correlate, mode="valid"),
        [array(5, 2), array(3, 4)],
        "cross_correlate: .*(5, 2).*(3, 4)",
    ),
    "autocorrelate, mode": (bind(F.autocorrelate, mode="all"), [signal], "autocorrelate: mode .*full.*'all'"),
    "autocorrelate, empty": (bind(F.autocorrelate), [array(0)], "autocorrelate: signal .*(0,)"),
    # norms
    "batch_stats, a single value": (
        bind(F.batch_stats),
        [array(1, 1, 1, 4)],
        "batch_stats: x .*(1, 1, 1, 4)",
    ),
    "batch_stats, an empty batch": (bind(F.batch_stats), [array(0, 5, 4)], "batch_stats: x .*(0, 5, 4)"),
    "batch_stats, no channels axis": (bind(F.batch_stats), [array(8)], "batch_stats: x .*(8,)"),
    "batch_stats, mask with channels": (
        lambda x, mask: F.batch_stats(x, mask=mask),
        [x2, x2 > 0],
        "batch_stats: mask .*(2, 7, 6).*(2, 7, 6, 4)",
    ),
    "batch_stats, mask of examples": (
        lambda x, mask: F.batch_stats(x, mask=mask),
        [x2, jnp.array([True, False])],
        "batch_stats: mask .*(2, 7, 6).*(2,)",
    ),
    "batch_stats, mask of floats": (
        lambda x, mask: F.batch_stats(x, mask=mask),
        [x2, x2[..., 0]],
        "batch_stats: mask .*bool.*float32",
    ),
    "batch_stats, integer images": (
        bind(F.batch_stats),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "batch_stats: x .*float.*uint8",
    ),
    "batch_norm, mean": (bind(F.batch_norm), [x2, array(1), array(4)], "batch_norm: mean .*(4,).*(1,)"),
    "batch_norm, var": (
        bind(F.batch_norm),
        [x2, array(4), array(1, 1, 1, 4)],
        "batch_norm: var .*(4,).*(1, 1, 1, 4)",
    ),
    "batch_norm, scale": (
        bind(F.batch_norm),
        [x2, array(4), array(4), array(6)],
        "batch_norm: scale .*(4,).*(6,)",
    ),
    "batch_norm, no mean": (
        lambda x, v: F.batch_norm(x, None, v),
        [x2, array(4)],
        "batch_norm: mean .*array.*None",
    ),
    "batch_norm, eps that float32 does not hold": (
        bind(F.batch_norm, eps=1e-50),
        [x2, array(4), array(4)],
        "batch_norm: eps .*float32.*1e-50",
    ),
    "batch_norm, eps True": (
        bind(F.batch_norm, eps=True),
        [x2, array(4), array(4)],
        "batch_norm: eps .*True",
    ),
    "batch_stats, an axis_name that nothing maps": (
        bind(F.batch_stats, axis_name="data"),
        [x2],
        "batch_stats: axis_name .*pmap.*'data'",
    ),
    "layer_norm, axes in a matrix": (
        lambda x: F.layer_norm(x, axes=np.array([[2, 2]])),
        [x2],
        "layer_norm: axes .*(2, 7, 6, 4).*[[2, 2]]",
    ),
    "grid_sample, method an array": (
        lambda x, g: F.grid_sample(x, g, method=np.array(["nearest"])),
        [x2, array(2, 3, 2)],
        "grid_sample: method .*bilinear.*nearest",
    ),
    "grid_sample, no positions": (
        bind(F.grid_sample),
        [x2, array(2, 0, 3, 2)],
        "grid_sample: grid .*empty.*(2, 0, 3, 2)",
    ),
    "resize, antialias a number": (bind(F.resize, (3, 4), antialias=1), [x2], "resize: antialias .*True.* 1"),
    "softmax_cross_entropy, one-hot labels": (
        bind(F.softmax_cross_entropy),
        [array(2, 4), jnp.zeros((2, 4), jnp.int32)],
        "softmax_cross_entropy: labels .*(2,).*(2, 4).*one-hot.*optax",
    ),
    "softmax_cross_entropy, classes first": (
        bind(F.softmax_cross_entropy),
        [array(2, 4, 5), jnp.zeros((2, 5), jnp.int32)],
        "softmax_cross_entropy: labels .*(2, 4).*(2, 5).*classes last",
    ),
    "softmax_cross_entropy, ignore_label beyond int32": (
        bind(F.softmax_cross_entropy, ignore_label=2**31),
        [array(2, 4), jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: ignore_label .*at most.*2147483648",
    ),
    "conv_parameter_count, bias a word": (
        lambda: F.conv_parameter_count(3, 4, 8, bias="no"),
        [],
        "conv_parameter_count: bias .*True.*'no'",
    ),
    "batch_norm, eps 0": (bind(F.batch_norm, eps=0.0), [x2, array(4), array(4)], "batch_norm: eps .*0.0"),
    "batch_norm, eps negative": (
        bind(F.batch_norm, eps=-1e-5),
        [x2, array(4), array(4)],
        "batch_norm: eps .*-1e-05",
    ),
    "batch_norm, eps nan": (
        bind(F.batch_norm, eps=float("nan")),
        [x2, array(4), array(4)],
        "batch_norm: eps .*nan",
    ),
    "layer_norm, eps": (bind(F.layer_norm, eps=0.0), [x2], "layer_norm: eps .*0.0"),
    "layer_norm, eps a string": (bind(F.layer_norm, eps="1e-5"), [x2], "layer_norm: eps .*1e-5"),
    "layer_norm, eps None": (bind(F.layer_norm, eps=None), [x2], "layer_norm: eps .*None"),
    "layer_norm, scale": (bind(F.layer_norm), [x2, array(6)], "layer_norm: scale .*(4,).*(6,)"),
    "layer_norm, the batch axis": (bind(F.layer_norm, axes=(0, 3)), [x2], "layer_norm: axes .*batch.*(0, 3)"),
    "layer_norm, no such axis": (bind(F.layer_norm, axes=4), [x2], "layer_norm: axes .*4"),
    "layer_norm, an axis twice": (bind(F.layer_norm, axes=(-1, 3)), [x2], "layer_norm: axes .*(-1, 3)"),
    "layer_norm, integers": (
        bind(F.layer_norm),
        [jnp.arange(8).reshape(2, 4)],
        "layer_norm: x .*float.*int32",
    ),
    "group_norm, groups do not divide": (bind(F.group_norm, 3), [x2], "group_norm: groups .*3.* 4 "),
    "group_norm, groups 0": (bind(F.group_norm, 0), [x2], "group_norm: groups .* 0"),
    "group_norm, groups a float": (bind(F.group_norm, 2.0), [x2], "group_norm: groups .*int.*2.0"),
    "group_norm, eps": (bind(F.group_norm, 2, eps=-1.0), [x2], "group_norm: eps .*-1.0"),
    "group_norm, bias": (
        lambda x, b: F.group_norm(x, 2, None, b),
        [x2, array(2)],
        "group_norm: bias .*(4,).*(2,)",
    ),
    "group_norm, a single value": (bind(F.group_norm, 4), [array(2, 4)], "group_norm: .*(2, 4)"),
    "instance_norm, no spatial axes": (bind(F.instance_norm), [array(2, 4)], "instance_norm: x .*(2, 4)"),
    "instance_norm, a single value": (
        bind(F.instance_norm),
        [array(2, 1, 1, 4)],
        "instance_norm: x .*(2, 1, 1, 4)",
    ),
    "instance_norm, eps": (bind(F.instance_norm, eps=0), [x2], "instance_norm: eps .*0"),
    "instance_norm, a list": (bind(F.instance_norm), [[[1.0]]], "instance_norm: x .*array.*list"),
    "rms_norm, eps 0": (bind(F.rms_norm, eps=0), [x2], "rms_norm: eps .*0"),
    "rms_norm, scale": (bind(F.rms_norm), [x2, array(6)], "rms_norm: scale .*(4,).*(6,)"),
    "rms_norm, scale of two axes": (
        bind(F.rms_norm, axes=(-2, -1)),
        [x2, array(4)],
        "rms_norm: scale .*(6, 4).*(4,)",
    ),
    "rms_norm, the batch axis": (bind(F.rms_norm, axes=0), [x2], "rms_norm: axes .*batch.*0"),
    "rms_norm, a list": (bind(F.rms_norm), [[[1.0]]], "rms_norm: x .*array.*list"),
    "local_response_norm, no spatial axes": (
        bind(F.local_response_norm),
        [array(2, 4)],
        "local_response_norm: x .*(2, 4)",
    ),
    "local_response_norm, size 0": (
        bind(F.local_response_norm, 0),
        [x2],
        "local_response_norm: size .*1.* 0",
    ),
    "local_response_norm, size a float": (
        bind(F.local_response_norm, 5.0),
        [x2],
        "local_response_norm: size .*int.*5.0",
    ),
    "local_response_norm, k 0": (
        bind(F.local_response_norm, k=0.0),
        [x2],
        "local_response_norm: k .*positive.*0.0",
    ),
    "local_response_norm, alpha negative": (
        bind(F.local_response_norm, alpha=-1e-4),
        [x2],
        "local_response_norm: alpha .*0.*-0.0001",
    ),
    "local_response_norm, beta nan": (
        bind(F.local_response_norm, beta=float("nan")),
        [x2],
        "local_response_norm: beta .*nan",
    ),
    "local_response_norm, integer images": (
        bind(F.local_response_norm),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "local_response_norm: x .*float.*uint8",
    ),
    "global_response_norm, scale": (
        bind(F.global_response_norm),
        [x2, array(6), array(4)],
        "global_response_norm: scale .*(4,).*(6,)",
    ),
    "global_response_norm, bias with the axes of x": (
        bind(F.global_response_norm),
        [x2, array(4), array(1, 1, 1, 4)],
        "global_response_norm: bias .*(4,).*(1, 1, 1, 4)",
    ),
    "global_response_norm, no spatial axes": (
        bind(F.global_response_norm),
        [array(2, 4), array(4), array(4)],
        "global_response_norm: x .*(2, 4)",
    ),
    "global_response_norm, eps": (
        bind(F.global_response_norm, eps=-1.0),
        [x2, array(4), array(4)],
        "global_response_norm: eps .*-1.0",
    ),
    "standardize_kernel, of a dense layer": (
        bind(F.standardize_kernel),
        [array(8, 4)],
        "standardize_kernel: kernel .*window.*(8, 4)",
    ),
    "standardize_kernel, a single value per filter": (
        bind(F.standardize_kernel),
        [array(1, 1, 1, 4)],
        "standardize_kernel: kernel .*more than one.*(1, 1, 1, 4)",
    ),
    "standardize_kernel, eps": (bind(F.standardize_kernel, eps=0.0), [k2], "standardize_kernel: eps .*0.0"),
    "standardize_kernel, integers": (
        bind(F.standardize_kernel),
        [array(3, 2, 4, 6, dtype=jnp.int8)],
        "standardize_kernel: kernel .*float.*int8",
    ),
    # regularize
    "dropout, rate above 1": (lambda x: F.dropout(key, x, 1.5), [x2], "dropout: rate .*1.5"),
    "dropout, rate negative": (lambda x: F.dropout(key, x, -0.1), [x2], "dropout: rate .*-0.1"),
    "dropout, rate nan": (lambda x: F.dropout(key, x, float("nan")), [x2], "dropout: rate .*nan"),
    "dropout, rate a string": (lambda x: F.dropout(key, x, "0.5"), [x2], "dropout: rate .*0.5"),
    "dropout, rate an array": (lambda x: F.dropout(key, x, x[0, 0, 0, 0]), [x2], "dropout: rate "),
    "dropout, arguments exchanged": (lambda x: F.dropout(x, key, 0.5), [x2], "dropout: key "),
    "dropout, an int for the key": (lambda x: F.dropout(0, x, 0.5), [x2], "dropout: key .*jax.random.key"),
    "dropout, a seed array": (
        lambda x: F.dropout(jnp.zeros(3, jnp.uint32), x, 0.5),
        [x2],
        "dropout: key .*jax.random.key",
    ),
    "dropout, keys of another number": (
        lambda x: F.dropout(jax.random.split(key, 3), x, 0.5),
        [x2],
        "dropout: key .*2 .*(3,)",
    ),
    "dropout, integers": (lambda x: F.dropout(key, x, 0.5), [jnp.arange(4)], "dropout: x .*float.*int32"),
    "dropout, a list": (lambda x: F.dropout(key, x, 0.5), [[1.0, 2.0]], "dropout: x .*array.*list"),
    "drop_path, rate above 1": (lambda x: F.drop_path(key, x, 1.01), [x2], "drop_path: rate .*1.01"),
    "drop_path, a number": (
        lambda x: F.drop_path(key, x, 0.5),
        [jnp.float32(1.5)],
        "drop_path: x .*batch.*scalar",
    ),
    "drop_path, keys of another number": (
        lambda x: F.drop_path(jax.random.split(key, 3), x, 0.5),
        [x2],
        "drop_path: key .*2 .*(3,)",
    ),
    "channel_dropout, no spatial axes": (
        lambda x: F.channel_dropout(key, x, 0.5),
        [array(2, 4)],
        "channel_dropout: x .*(2, 4)",
    ),
    "channel_dropout, rate": (lambda x: F.channel_dropout(key, x, 50), [x2], "channel_dropout: rate .*50"),
    "channel_dropout, keys of another number": (
        lambda x: F.channel_dropout(jax.random.split(key, 3), x, 0.5),
        [x2],
        "channel_dropout: key .*2 .*(3,)",
    ),
    "drop_block, a block larger than x": (
        lambda x: F.drop_block(key, x, 0.1, 7),
        [x2],
        "drop_block: block .*(7, 6).*(7, 7)",
    ),
    "drop_block, an int block for volumes": (
        lambda x: F.drop_block(key, x, 0.1, 2),
        [x3],
        "drop_block: block .*tuple.*block=2",
    ),
    "drop_block, block 0": (lambda x: F.drop_block(key, x, 0.1, (0, 2)), [x2], "drop_block: block .*(0, 2)"),
    "drop_block, a block of another rank": (
        lambda x: F.drop_block(key, x, 0.1, (2, 2)),
        [x1],
        "drop_block: x .*2 spatial axes.*(2, 9, 4)",
    ),
    "drop_block, rate and block exchanged": (
        lambda x: F.drop_block(key, x, 7, 0.1),
        [x2],
        "drop_block: rate .*7",
    ),
    "drop_block, arguments exchanged": (
        lambda x: F.drop_block(x, key, 0.1, 2),
        [x2],
        "drop_block: key .*jax.random.key",
    ),
    "drop_block, an int for the key": (lambda x: F.drop_block(0, x, 0.1, 2), [x2], "drop_block: key .*int"),
    # patches
    "extract_patches, int window for one image": (
        bind(F.extract_patches, 2),
        [array(7, 6, 4)],
        "extract_patches: window .*tuple.*window=2.*x[None]",
    ),
    "extract_patches, window larger than x": (
        bind(F.extract_patches, (8, 2)),
        [x2],
        "extract_patches: window .*(8, 2).*8 .*7 ",
    ),
    "extract_patches, stride 0": (
        bind(F.extract_patches, 2, stride=0),
        [x2],
        "extract_patches: stride .* 0",
    ),
    "extract_patches, negative padding": (
        bind(F.extract_patches, 2, padding=-1),
        [x2],
        "extract_patches: padding .*-1",
    ),
    "extract_patches, dilation 0": (
        bind(F.extract_patches, 2, dilation=(1, 0)),
        [x2],
        "extract_patches: dilation .*(1, 0)",
    ),
    "extract_patches, integer images": (
        bind(F.extract_patches, 2),
        [array(2, 7, 6, 4, dtype=jnp.uint8)],
        "extract_patches: x .*float.*uint8",
    ),
    "fold_patches, the channels of torch's layout": (
        bind(F.fold_patches, (7, 6), (3, 2)),
        [array(2, 5, 5, 25)],
        "fold_patches: patches .*5, 5, 6 .* channels.*(2, 5, 5, 25)",
    ),
    "fold_patches, positions of another stride": (
        bind(F.fold_patches, (7, 6), (3, 2), stride=2),
        [array(2, 5, 5, 24)],
        "fold_patches: patches .*3, 3, 6 .* channels.*(2, 2).*(2, 5, 5, 24)",
    ),
    "fold_patches, an int size for sequences": (
        bind(F.fold_patches, 9, (3,)),
        [array(2, 7, 12)],
        "fold_patches: output_size .*tuple.*output_size=9 .*patches ",
    ),
    "fold_patches, a rank too low": (
        bind(F.fold_patches, (7, 6), (3, 2)),
        [array(5, 5, 24)],
        "fold_patches: patches .*(5, 5, 24)",
    ),
    "fold_patches, window larger than the output": (
        bind(F.fold_patches, (7, 2), (3, 4)),
        [array(2, 5, 1, 12)],
        "fold_patches: window .*(3, 4)",
    ),
    "fold_patches, integers": (
        bind(F.fold_patches, (7, 6), (3, 2)),
        [array(2, 5, 5, 24, dtype=jnp.int32)],
        "fold_patches: patches .*float.*int32",
    ),
    "conv_as_matmul, channel mismatch": (
        bind(F.conv_as_matmul),
        [x2, array(3, 2, 5, 6)],
        "conv_as_matmul: kernel .*4 channels.*(3, 2, 5, 6)",
    ),
    "conv_as_matmul, mixed dtypes": (
        bind(F.conv_as_matmul),
        [x2, k2.astype(jnp.bfloat16)],
        "conv_as_matmul: .*dtype.*x.*float32.*kernel.*bfloat16",
    ),
    "conv_as_matmul, bias": (
        bind(F.conv_as_matmul),
        [x2, k2, array(4)],
        "conv_as_matmul: bias .*(6,).*(4,)",
    ),
    "conv_as_matmul, kernel larger than x": (
        bind(F.conv_as_matmul),
        [array(2, 2, 6, 4), k2],
        "conv_as_matmul: window .*(3, 2).*3 .*2 ",
    ),
    "dense_to_conv, size does not divide": (
        bind(F.dense_to_conv, (5, 4)),
        [array(72, 10)],
        "dense_to_conv: kernel .*20 .* channels.*(5, 4).*(72, 10)",
    ),
    "dense_to_conv, an int size": (
        bind(F.dense_to_conv, 6),
        [array(72, 10)],
        "dense_to_conv: input_size .*6",
    ),
    "dense_to_conv, a size of floats": (
        bind(F.dense_to_conv, (6.0, 4.0)),
        [array(72, 10)],
        "dense_to_conv: input_size .*int.*(6.0, 4.0)",
    ),
    "dense_to_conv, a kernel of conv": (
        bind(F.dense_to_conv, (6, 4)),
        [k2],
        "dense_to_conv: kernel .*(3, 2, 4, 6)",
    ),
    # losses
    "softmax_cross_entropy, a string label": (
        lambda x: F.softmax_cross_entropy(x, "cat"),
        [array(2, 4)],
        "softmax_cross_entropy: labels .*integers.*str",
    ),
    "softmax_cross_entropy, string labels": (
        lambda x: F.softmax_cross_entropy(x, np.array(["cat", "dog"])),
        [array(2, 4)],
        "softmax_cross_entropy: labels .*integers.*<U3",
    ),
    "softmax_cross_entropy, a list of labels": (
        lambda x: F.softmax_cross_entropy(x, [0, 1]),
        [array(2, 4)],
        "softmax_cross_entropy: labels .*array.*list",
    ),
    "softmax_cross_entropy, soft labels": (
        bind(F.softmax_cross_entropy),
        [array(2, 4), array(2, 4)],
        "softmax_cross_entropy: labels .*integers.*float32.*one-hot.*optax",
    ),
    "softmax_cross_entropy, labels of another shape": (
        bind(F.softmax_cross_entropy),
        [x2, jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: labels .*(2, 7, 6).*(2,)",
    ),
    "softmax_cross_entropy, labels with an axis of one": (
        bind(F.softmax_cross_entropy),
        [array(2, 4), jnp.zeros((2, 1), jnp.int32)],
        "softmax_cross_entropy: labels .*(2,).*(2, 1)",
    ),
    "softmax_cross_entropy, one logit": (
        bind(F.softmax_cross_entropy),
        [array(2, 1), jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: logits .*2 classes.*(2, 1).*sigmoid",
    ),
    "softmax_cross_entropy, no batch": (
        bind(F.softmax_cross_entropy),
        [array(4), jnp.int32(1)],
        "softmax_cross_entropy: logits .*batch.*(4,)",
    ),
    "softmax_cross_entropy, integer logits": (
        bind(F.softmax_cross_entropy),
        [jnp.zeros((2, 4), jnp.int32), jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: logits .*float.*int32",
    ),
    "softmax_cross_entropy, smoothing": (
        bind(F.softmax_cross_entropy, smoothing=1.1),
        [array(2, 4), jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: smoothing .*[0, 1].*1.1",
    ),
    "softmax_cross_entropy, ignore_label a string": (
        bind(F.softmax_cross_entropy, ignore_label="void"),
        [array(2, 4), jnp.zeros(2, jnp.int32)],
        "softmax_cross_entropy: ignore_label .*int.*void",
    ),
    "softmax_cross_entropy, weights of the classes": (
        lambda x, labels, w: F.softmax_cross_entropy(x, labels, weights=w),
        [array(2, 4), jnp.zeros(2, jnp.int32), array(4)],
        "softmax_cross_entropy: weights .*labels .*(2,).*(4,)",
    ),
    "softmax_cross_entropy, integer weights": (
        lambda x, labels, w: F.softmax_cross_entropy(x, labels, weights=w),
        [array(2, 4), jnp.zeros(2, jnp.int32), jnp.ones(2, jnp.int32)],
        "softmax_cross_entropy: weights .*float.*int32",
    ),
    "softmax_focal_loss, gamma negative": (
        bind(F.softmax_focal_loss, gamma=-1),
        [array(2, 4), jnp.zeros(2, jnp.int32)],
        "softmax_focal_loss: gamma .*0.*-1",
    ),
    "softmax_focal_loss, float labels": (
        bind(F.softmax_focal_loss),
        [array(2, 4), array(2)],
        "softmax_focal_loss: labels .*integers.*float32",
    ),
    "multiclass_svm_loss, margin nan": (
        bind(F.multiclass_svm_loss, margin=float("nan")),
        [array(2, 4), jnp.zeros(2, jnp.int32)],
        "multiclass_svm_loss: margin .*nan",
    ),
    "multiclass_svm_loss, arguments exchanged": (
        bind(F.multiclass_svm_loss),
        [jnp.zeros(2, jnp.int32), array(2, 4)],
        "multiclass_svm_loss: scores .*float.*int32",
    ),
}


def pattern(fragments):
    """The fragments as a regular expression: only ".*" and "|" are not literal."""
    for special in "()[]":
        fragments = fragments.replace(special, "\\" + special)
    return fragments


@pytest.mark.parametrize("wrong", TABLE)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_wrong_input_names_function_argument_value_and_expectation(unchecked, transform, wrong):
    call, arrays, fragments = TABLE[wrong]
    with pytest.raises((ValueError, TypeError), match=pattern(fragments)) as error:
        transform(call)(*arrays)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert type(error.value) in (ValueError, TypeError)


WRONG_ARRAYS = {
    "a list": lambda array: array.tolist(),
    "integers": lambda array: array.astype(np.int32),
    "complex": lambda array: array.astype(np.complex64),
    "strings": lambda array: array.astype(str),
}


@pytest.mark.parametrize("wrong", WRONG_ARRAYS)
@pytest.mark.parametrize("entry", CALLS)
def test_every_array_argument_is_checked(unchecked, entry, wrong):
    if entry == "pad" and wrong in ("integers", "complex"):
        return  # pad takes any numbers
    function, arrays, _ = CALLS[entry]
    arrays = [array.astype(np.float32) for array in arrays]
    for place, array in enumerate(arrays):
        others = [WRONG_ARRAYS[wrong](array) if i == place else a for i, a in enumerate(arrays)]
        with pytest.raises(TypeError, match=rf"^{NAMES[entry]}: \w+ .*(array|floating)"):
            function(*others)


def test_numpy_arrays_are_arrays(unchecked):
    x, kernel = np.asarray(x2), np.asarray(k2)
    np.testing.assert_array_equal(F.conv(x, kernel), F.conv(x2, k2))
    np.testing.assert_array_equal(F.max_pool(x, 2), F.max_pool(x2, 2))
    np.testing.assert_array_equal(F.layer_norm(x), F.layer_norm(x2))


def test_options_may_be_lists(unchecked):
    conv = functools.partial(F.conv, x2, k2)
    np.testing.assert_array_equal(
        conv(stride=[2, 1], padding=[[1, 0], [0, 1]]), conv(stride=(2, 1), padding=((1, 0), (0, 1)))
    )
