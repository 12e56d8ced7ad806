"""Patches against loops and the identities that make them the linear algebra of convolution."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxcnn.functional as F
from tests import reference


@st.composite
def slides(draw):
    """A spatial size and the window, stride, padding and dilation of a slide over it."""
    rank = draw(st.integers(1, 3))
    window, stride, dilation = (tuple(draw(st.integers(1, high)) for _ in range(rank)) for high in (3, 3, 2))
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    size = tuple(
        draw(st.integers(least := max(reference.reach(k, d) - low - high, 1), least + 3))
        for k, d, (low, high) in zip(window, dilation, padding, strict=True)
    )
    return size, window, {"stride": stride, "padding": padding, "dilation": dilation}


@given(slides())
def test_patches_equal_the_loops_fold_is_the_adjoint_and_a_product_is_conv(case):
    size, window, options = case
    x, kernel, bias = (
        reference.normal(0, 2, *size, 3),
        reference.normal(1, *window, 3, 4),
        reference.normal(2, 4),
    )
    expected = reference.extract_patches(x, window, **options)
    others = reference.normal(3, *expected.shape)

    @jax.jit
    def apply(x, kernel, bias, others):
        patches = F.extract_patches(x, window, **options)
        folded = F.fold_patches(others, size, window, **options)
        return (
            patches,
            folded,
            F.conv_as_matmul(x, kernel, bias, **options),
            F.conv(x, kernel, bias, **options),
        )

    patches, folded, y, z = map(np.asarray, apply(x, kernel, bias, others))
    np.testing.assert_array_equal(patches, expected.astype(np.float32))
    np.testing.assert_allclose(
        folded, reference.fold_patches(others, size, window, **options), rtol=1e-5, atol=1e-5
    )
    inner = np.vdot(patches.astype(np.float64), others), np.vdot(x.astype(np.float64), folded)
    np.testing.assert_allclose(*inner, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", 1])
def test_every_padding_spec_is_that_of_conv(padding):
    x, kernel = reference.normal(0, 2, 7, 6, 3), reference.normal(1, 3, 2, 3, 4)
    y = F.conv(x, kernel, stride=(2, 1), padding=padding)
    chex.assert_trees_all_close(
        F.conv_as_matmul(x, kernel, stride=(2, 1), padding=padding), y, rtol=1e-5, atol=1e-5
    )
    patches = F.extract_patches(x, (3, 2), stride=(2, 1), padding=padding)
    assert patches.shape == (*y.shape[:-1], 18)
    assert F.fold_patches(patches, (7, 6), (3, 2), stride=(2, 1), padding=padding).shape == x.shape


def test_fold_sums_in_float32_and_keeps_the_dtype():
    # 256 + 1 + 1, where bfloat16 counts by 2: the middle element is read by all three windows
    patches = jnp.array([[[0, 0, 256], [0, 1, 0], [1, 0, 0]]], jnp.bfloat16)
    y = F.fold_patches(patches, (5,), (3,))
    chex.assert_trees_all_equal(y, jnp.array([0, 0, 258, 0, 0], jnp.bfloat16).reshape(1, 5, 1))


def test_preferred_element_type_is_that_of_the_result():
    x, kernel = (jnp.asarray(reference.normal(seed, 2, 3, 3, 3)).astype(jnp.bfloat16) for seed in range(2))
    y = F.conv_as_matmul(x, kernel, preferred_element_type=jnp.float32)
    assert y.dtype == jnp.float32 and F.conv_as_matmul(x, kernel).dtype == jnp.bfloat16
    wide = F.conv_as_matmul(x.astype(jnp.float32), kernel.astype(jnp.float32))
    chex.assert_trees_all_close(y, wide, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 2)])
def test_dense_to_conv_is_the_dense_layer_at_every_position(size):
    kernel = reference.normal(0, int(np.prod(size)) * 3, 7)
    larger = tuple(n + 1 + axis for axis, n in enumerate(size))
    x = reference.normal(1, 2, *larger, 3)
    y = np.asarray(F.conv(x, F.dense_to_conv(kernel, size)))
    assert y.shape == (2, *(2 + axis for axis in range(len(size))), 7)
    for place in np.ndindex(*y.shape[1:-1]):
        crop = x[(slice(None), *(slice(p, p + n) for p, n in zip(place, size, strict=True)))]
        np.testing.assert_allclose(
            y[(slice(None), *place)], crop.reshape(2, -1) @ kernel, rtol=1e-4, atol=1e-4
        )


def test_options_that_jit_must_not_trace_can_be_closed_over():
    x = jnp.asarray(reference.normal(0, 2, 7, 6, 3))
    there_and_back = jax.jit(lambda x: F.fold_patches(F.extract_patches(x, 2), (7, 6), 2))
    windows = np.outer(np.r_[1, [2] * 5, 1], np.r_[1, [2] * 4, 1])
    chex.assert_trees_all_close(there_and_back(x), x * windows[None, ..., None].astype(np.float32), rtol=1e-6)


def test_a_large_window_is_a_short_program():
    x = jnp.zeros((1, 32, 48, 3), jnp.float32)

    def loss(x):
        return (F.fold_patches(F.extract_patches(x, 16, stride=16), (32, 48), 16, stride=16) ** 2).sum()

    # One slice for each tap of each axis and its transpose, not one for each of 256 taps.
    assert len(jax.make_jaxpr(jax.grad(loss))(x).eqns) < 256
