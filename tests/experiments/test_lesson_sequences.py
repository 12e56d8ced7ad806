"""The lesson of course/sequences.py: what the network is, and the accuracy that it must reach."""

import builtins

import jax.numpy as jnp
import numpy as np
import pytest
from course import sequences
from flax import nnx

from tests.experiments.lesson import run


@pytest.mark.slow
def test_several_windows(tmp_path):
    pytest.importorskip("mnist1d")
    numbers = run(sequences.several_windows, tmp_path)
    assert numbers.pop("MNIST-1D: test accuracy") >= 0.93
    assert numbers == {"train": 4000, "test": 1000, "len(x)": 40}


def test_each_branch_keeps_its_largest_response_wherever_it_is():
    model = sequences.SeveralWindows((3, 5), layers=1, channels=4, rngs=nnx.Rngs(0))
    model.eval()
    signal = np.zeros((1, 24, 1), np.float32)
    signal[0, 6:12, 0] = np.random.default_rng(0).normal(size=6)
    maps = model.maps(jnp.asarray(signal))
    assert [of.shape for of in maps] == [(1, 24, 4), (1, 24, 4)]
    largest = np.concatenate([np.asarray(of).max(1) for of in maps], axis=-1)
    expected = largest @ np.asarray(model.output.kernel) + np.asarray(model.output.bias)
    np.testing.assert_allclose(model(jnp.asarray(signal)), expected, rtol=1e-5, atol=1e-6)
    moved = model(jnp.asarray(np.roll(signal, 7, axis=1)))
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def test_a_missing_package_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without_mnist1d(name, *args, **kwargs):
        if name.startswith("mnist1d"):
            raise ModuleNotFoundError("No module named 'mnist1d'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_mnist1d)
    with pytest.raises(ImportError, match=r"several_windows: .*pip install mnist1d"):
        sequences._mnist_1d()
