"""The lesson of course/features.py, and the photograph it looks at."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from course import features, photograph

from tests.experiments.lesson import run

needs_the_cat = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="no scikit-image")


@needs_the_cat
def test_the_photograph_is_in_colour():
    cat = photograph.cat()
    assert cat.shape == (300, 451, 3) and cat.dtype == np.uint8
    red, _, blue = cat.reshape(-1, 3).mean(0)
    assert red > blue + 20  # a ginger cat


@pytest.mark.parametrize("package", ["missing", "without its photograph"])
def test_a_missing_photograph_says_what_to_install(monkeypatch, package):
    found = None if package == "missing" else importlib.util.find_spec("course")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(FileNotFoundError, match=r"cat: .*chelsea\.png.* pip install scikit-image"):
        photograph.cat()


@needs_the_cat
def test_three_random_convolutions(tmp_path):
    numbers = run(features.three_random_convolutions, tmp_path)
    stated = {
        "H = 150 - 3 · (5 - 1)": 138,
        "W = 225 - 3 · (5 - 1)": 213,
        "conv 2: 5 · 5 · 6 · 6": 900,
        "min f(z) / z": 0.1,
        "rank y, w[..., c]": 6,
        "rank y, w[..., 0]": 1,
        "max |y[..., c] - y[..., d]|, w[..., 0]": 0,
    }
    assert numbers.pop("max |y[..., c] - y[..., d]|, w[..., c]") > 0.1
    assert numbers == pytest.approx(stated, abs=1e-5)


@needs_the_cat
def test_a_feature_map_by_its_definition():
    x = np.random.default_rng(0).normal(size=(1, 14, 15, 3)).astype(np.float32)
    kernels = features.random_kernels(jax.random.key(1))
    first = features.feature_maps(jnp.asarray(x), kernels)[1]
    z = (np.asarray(x[0, 3:8, 2:7])[..., None] * np.asarray(kernels[0])).sum((0, 1, 2))
    np.testing.assert_allclose(first[0, 3, 2], np.where(z > 0, z, 0.1 * z), rtol=1e-4, atol=1e-5)
