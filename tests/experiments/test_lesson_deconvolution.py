"""The lessons of course/deconvolution.py: their numbers, listed here once more."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from course import deconvolution

from tests.experiments.lesson import run


def test_transposed_not_inverse(tmp_path):
    numbers = run(deconvolution.transposed_not_inverse, tmp_path)
    assert numbers == {
        "C: 2 · 2": 4,
        "C: 4 · 4": 16,
        "max |conv_transpose - Cᵀ|": 0,
        "⟨conv(x), y⟩ - ⟨x, conv_transpose(y)⟩": 0,
        "x[0, 0]": 2,
        "(C x)[0, 0] = 1·2 + 3·1 + 4·1 + 5·1 + 8·3 + 9·1": 47,
        "(Cᵀ C x)[0, 0] = 1 · 47": 47,
        "rank CᵀC": 4,
        "max |d⟨conv(x), y⟩/dx - conv_transpose(y)|": 0,
    }


def test_the_matrix_of_a_linear_function():
    a = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    found = deconvolution.matrix(lambda x: jnp.asarray(a) @ x.reshape(6), (2, 3))
    np.testing.assert_allclose(found, a, rtol=1e-6)


def test_transposed_sizes(tmp_path):
    numbers = run(deconvolution.transposed_sizes, tmp_path)
    assert numbers == {
        "(2 - 1) · 1 - 2 · 0 + 3": 4,
        "(2 - 1) · 2 - 2 · 0 + 2": 4,
        "(2 - 1) · 2 - 2 · 1 + 4": 4,
        "(4 - 1) · 2 - 2 · 1 + 4": 8,
        "(7 - 1) · 2 - 2 · 1 + 4": 14,
        "(2 - 1) · 2 - 2 · 0 + 3": 5,
        "(3 - 1) · 2 - 2 · 1 + 3": 5,
        "(3 - 1) · 2 - 2 · 1 + 3 + 1": 6,
        "y[2, 2] = 1 + 2 + 3 + 4": 10,
    }


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="no scikit-image")
def test_checkerboard(tmp_path):
    numbers = run(deconvolution.checkerboard, tmp_path)
    assert numbers == {
        "k = 3, s = 2: min": 1,
        "k = 3, s = 2: 1 · 2": 2,
        "k = 3, s = 2: max = 2 · 2": 4,
        "k = 4, s = 2: max / min": 1,
        "k = 4, s = 2: 2 · 2": 4,
        "resize + conv: max / min": 1,
    }
