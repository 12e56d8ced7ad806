"""Deformable convolution against loops, ONNX's reference and the convolutions that it contains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxcnn.functional as F
from tests import reference

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@st.composite
def deformations(draw):
    """x, kernel, an offset of zeros and the options of a deformable convolution."""

    def two(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    window, stride, dilation = two(1, 3), two(1, 3), two(1, 2)
    groups, offset_groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4]))
    padding = draw(st.sampled_from(["SAME", "VALID", ((1, 0), (0, 2))]))
    size = tuple(
        reference.reach(k, d) + draw(st.integers(0, 3)) for k, d in zip(window, dilation, strict=True)
    )
    x, kernel = reference.normal(0, 2, *size, 4), reference.normal(1, *window, 4 // groups, 2 * groups)
    pairs = reference.pairs(padding, size, window, stride, dilation)
    output = reference.output_size(size, window, stride, pairs, dilation)
    offset = np.zeros((2, *output, offset_groups, window[0] * window[1], 2), np.float32)
    return x, kernel, offset, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


def in_pairs(x, kernel, options):
    """The options as the reference wants them."""
    window, stride, dilation = kernel.shape[:2], options["stride"], options["dilation"]
    return options | {"padding": reference.pairs(options["padding"], x.shape[1:-1], window, stride, dilation)}


@given(deformations())
def test_deform_conv_equals_the_loops(case):
    x, kernel, zeros, options = case
    offset = np.random.default_rng(2).normal(size=zeros.shape).astype(np.float32) * 1.5
    mask, bias = reference.normal(3, *offset.shape[:-1]), reference.normal(4, kernel.shape[-1])
    deform = jax.jit(functools.partial(F.deform_conv, **options))
    expected = reference.deform_conv(x, offset, kernel, mask, bias, **in_pairs(x, kernel, options))
    np.testing.assert_allclose(deform(x, offset, kernel, mask, bias), expected, rtol=1e-4, atol=1e-4)


@given(deformations())
def test_without_offset_it_is_conv(case):
    x, kernel, zeros, options = case
    y = jax.jit(functools.partial(F.deform_conv, **options))(x, zeros, kernel)
    close(y, jax.jit(functools.partial(F.conv, **options))(x, kernel))


def test_whole_offsets_read_shifted_images():
    x, kernel = reference.normal(0, 2, 7, 6, 4), reference.normal(1, 3, 2, 4, 3)
    for dy, dx in [(1, 0), (-2, 1), (3, -1)]:
        offset = np.broadcast_to(np.array([dy, dx], np.float32), (2, 7, 7, 1, 6, 2))
        y = F.deform_conv(x, offset, kernel, padding=1)
        pad = np.pad(x, [(0, 0), (4, 4), (4, 4), (0, 0)])[:, 3 + dy : 12 + dy, 3 + dx : 11 + dx]
        close(y, F.conv(pad, kernel))


def test_each_offset_group_moves_its_own_channels():
    x, kernel = reference.normal(0, 1, 6, 5, 4), np.eye(4, dtype=np.float32).reshape(1, 1, 4, 4)
    offset = np.zeros((1, 6, 5, 2, 1, 2), np.float32)
    offset[:, :, :, 1] = [1, -1]  # the second pair of channels reads from below on the left
    y = F.deform_conv(x, offset, kernel)
    close(y[..., :2], x[..., :2])
    close(y[:, :-1, 1:, 2:], x[:, 1:, :-1, 2:])
    np.testing.assert_array_equal(y[:, -1, :, 2:], 0)


def test_the_mask_weighs_the_taps():
    x, kernel, bias = reference.normal(0, 2, 6, 5, 2), reference.normal(1, 3, 3, 2, 3), reference.normal(2, 3)
    offset = reference.normal(3, 2, 4, 3, 1, 9, 2)
    one_tap = np.zeros((2, 4, 3, 1, 9), np.float32)
    one_tap[..., 5] = 0.5
    y = F.deform_conv(x, offset, kernel, one_tap, bias)
    expected = reference.deform_conv(
        x,
        offset,
        np.where(np.arange(9).reshape(3, 3, 1, 1) == 5, kernel / 2, 0),
        bias=bias,
        stride=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation=(1, 1),
    )
    close(y, expected)


@pytest.mark.parametrize("far", [50.0, 1e30, np.inf])
def test_far_outside_there_is_only_the_bias(far):
    x, kernel, bias = reference.normal(0, 2, 6, 5, 2), reference.normal(1, 3, 3, 2, 3), reference.normal(2, 3)
    offset = np.full((2, 4, 3, 1, 9, 2), far, np.float32)
    y = F.deform_conv(x, offset, kernel, None, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, y.shape))


def test_it_equals_the_onnx_reference():
    reference_evaluator = pytest.importorskip("onnx.reference.ops.op_deform_conv")
    x, kernel, bias = reference.normal(0, 2, 6, 5, 4), reference.normal(1, 3, 2, 2, 6), reference.normal(2, 6)
    offset, mask = reference.normal(3, 2, 3, 6, 2, 6, 2), reference.normal(4, 2, 3, 6, 2, 6)
    options = {"stride": (2, 1), "padding": 1, "groups": 2}
    y = F.deform_conv(x, offset, kernel, mask, bias, **options)
    first = functools.partial(np.moveaxis, source=-1, destination=1)
    theirs = reference_evaluator._deform_conv_implementation(
        first(x),
        np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
        first(offset.reshape(2, 3, 6, 24)),
        bias,
        first(mask.reshape(2, 3, 6, 12)),
        dilations=[1, 1],
        group=2,
        kernel_shape=[3, 2],
        offset_group=2,
        pads=[1, 1, 1, 1],
        strides=[2, 1],
    )
    np.testing.assert_allclose(first(np.asarray(y)), theirs, rtol=1e-4, atol=1e-4)


def test_every_argument_has_its_gradient():
    with jax.enable_x64(True):
        x = jnp.asarray(reference.normal(0, 1, 4, 5, 4, dtype=np.float64))
        kernel = jnp.asarray(reference.normal(1, 2, 3, 2, 4, dtype=np.float64))
        # Away from whole positions, where the interpolation has a kink.
        whole, part = np.random.default_rng(2).integers(-2, 3, (1, 3, 5, 2, 6, 2)), np.random.default_rng(3)
        offset = jnp.asarray(whole + part.uniform(0.1, 0.9, whole.shape))
        mask = jnp.asarray(reference.normal(4, 1, 3, 5, 2, 6, dtype=np.float64))
        bias = jnp.asarray(reference.normal(5, 4, dtype=np.float64))
        deform = functools.partial(F.deform_conv, padding=((0, 0), (1, 1)), groups=2)
        check_grads(
            jax.jit(deform), (x, offset, kernel, mask, bias), order=1, modes=["rev"], atol=1e-6, rtol=1e-6
        )


def test_positions_are_computed_in_float32_for_half_precision():
    x = jnp.asarray(reference.normal(0, 1, 3, 300, 2)).astype(jnp.bfloat16)
    kernel = jnp.eye(2, dtype=jnp.bfloat16).reshape(1, 1, 2, 2)
    offset = jnp.full((1, 3, 300, 1, 1, 2), jnp.array([0.0, 0.5]), jnp.bfloat16)
    y = F.deform_conv(x, offset, kernel)
    assert y.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float32)
    half_way = (wide[:, :, :-1] + wide[:, :, 1:]) / 2  # at 256.5 bfloat16 has no halves
    np.testing.assert_allclose(np.asarray(y, np.float32)[:, :, :-1], half_way, rtol=1e-2, atol=1e-2)
    wider = F.deform_conv(x, offset, kernel, preferred_element_type=jnp.float32)
    assert wider.dtype == jnp.float32
