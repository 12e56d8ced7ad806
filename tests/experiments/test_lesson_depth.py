"""The lessons of course/depth.py: the course's numbers, and gradients by a computation of their own."""

import numpy as np
import pytest
from course import depth
from flax import nnx
from scipy.signal import convolve2d

from tests.experiments.lesson import run


def test_plain_against_residual(tmp_path):
    numbers = run(depth.plain_against_residual, tmp_path)
    ratio = {text.split(":")[0]: value for text, value in numbers.items() if "^" not in text}
    assert set(ratio) == {"plain", "residual", "plain, He", "plain, BN", "residual, BN"}
    # The weights keep the norm and a ReLU passes half of its square, less what the padding takes.
    assert 0.6**49 < ratio["plain"] < 2**-24.5
    assert 1 < ratio["residual, BN"] < 20 < 100 < ratio["plain, BN"]
    assert ratio["residual"] > 1 and ratio["plain, He"] > 0.01


def test_the_shortcut_alone_passes_the_gradient_unchanged():
    norms = depth._gradient_norms(nnx.initializers.zeros, shortcut=True)
    np.testing.assert_allclose(norms, np.ones(depth.DEPTH), rtol=1e-6)


def test_concatenation_against_addition(tmp_path):
    numbers = run(depth.concatenation_against_addition, tmp_path)
    assert numbers == {
        "DenseNet-121, c(0)": 64,
        "64 + 6·32": 256,
        "ResNet-18, c(0)": 64,
        "ResNet-18, x + f(x)": 64,
        "256 / 2": 128,
        "1·1·256·128": 32_768,
        "512 + 15·32": 992,
        "1·1·992·128 + 3·3·128·32": 163_840,
        "3·3·992·32": 285_696,
    }


def test_two_small_against_one_large(tmp_path):
    numbers = run(depth.two_small_against_one_large, tmp_path)
    assert numbers == {
        "1 + 2·(3 - 1)": 5,
        "1 + 1·(5 - 1)": 5,
        "1 + 3·(3 - 1)": 7,
        "1 + 1·(7 - 1)": 7,
        "2·3²·64² = 18·64²": 73_728,
        "5²·64² = 25·64²": 102_400,
        "3·3²·64² = 27·64²": 110_592,
        "7²·64² = 49·64²": 200_704,
    }


@pytest.mark.parametrize("windows", [(3,), (3, 3), (3, 3, 3), (5, 3)])
def test_paths_are_the_full_convolution_of_the_kernels(windows):
    paths = np.ones((1, 1))
    for size in windows:
        paths = convolve2d(paths, np.ones((size, size)))
    around = (9 - len(paths)) // 2
    np.testing.assert_array_equal(depth._paths(windows), np.pad(paths, around))
