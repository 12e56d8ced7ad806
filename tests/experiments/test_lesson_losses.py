"""The lesson of course/losses.py: the numbers of CS231n's slides, listed here once more."""

import pytest
from course import losses

from tests.experiments.lesson import run


def test_softmax_and_svm(tmp_path):
    numbers = run(losses.softmax_and_svm, tmp_path)
    assert numbers.pop("softmax(4.9 + 0.5) - softmax(4.9 - 0.5)") < -0.05
    stated = {
        "cat: max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1)": 2.9,
        "car: max(0, 1.3 - 4.9 + 1) + max(0, 2.0 - 4.9 + 1)": 0.0,
        "frog: max(0, 2.2 + 3.1 + 1) + max(0, 2.5 + 3.1 + 1)": 12.9,
        "(2.9 + 0 + 12.9) / 3": 5.27,
        "exp(3.2)": 24.5,
        "exp(5.1)": 164.0,
        "exp(-1.7)": 0.18,
        "p(cat) = 24.5 / (24.5 + 164.0 + 0.18)": 0.13,
        "-ln 0.13": 2.04,
        "-log10 0.13": 0.89,
        "SVM, s = 0: C - 1": 2.0,
        "softmax, s = 0: ln C = ln 3": 1.0986,
        "SVM(4.9 + 0.5) - SVM(4.9 - 0.5)": 0.0,
        "SVM, frog: dL/ds(frog) = -1 - 1": -2.0,
        "softmax, cat: dL/ds(cat) = p(cat) - 1": -0.87,
    }
    assert numbers == pytest.approx(stated, abs=0.005, rel=0.002)
