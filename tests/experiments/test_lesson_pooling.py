"""The lessons of course/pooling.py: the course's numbers, and those of a computation of its own."""

import numpy as np
import pytest
from course import pooling

from tests.experiments.lesson import run


def test_max_and_average(tmp_path):
    numbers = run(pooling.max_and_average, tmp_path)
    values = list(numbers.values())
    assert values[:4] == [6, 8, 3, 4]
    assert values[4:8] == [3.25, 5.25, 2, 2]
    assert numbers["parameters of nn.MaxPool(2)"] == numbers["parameters of nn.AvgPool(2)"] == 0
    assert values[10:] == [1, 0, 0.25]


def test_aliasing(tmp_path):
    numbers = run(pooling.aliasing, tmp_path)
    x = np.cos(2 * np.pi * 60 * np.arange(256) / 256)
    mean = x.reshape(64, 4).mean(1)
    assert numbers["x[::4]: periods"] == 64 - 60
    assert numbers["x[::4]: amplitude"] == pytest.approx(1, abs=1e-4)
    assert numbers["avg: amplitude = |H(60 / 256)|"] == pytest.approx(np.sqrt(2 * np.mean(mean**2)), abs=1e-4)
    assert numbers["avg, avg: amplitude = |H|²"] == pytest.approx(2 * np.mean(mean**2), abs=1e-4)
    swing = x.reshape(64, 4).max(1)
    assert numbers["max: largest - smallest, 60 periods"] == pytest.approx(np.ptp(swing), abs=1e-4)


def test_global_pooling(tmp_path):
    numbers = run(pooling.global_pooling, tmp_path)
    stated = {
        "7·7·512": 25_088,
        "7·7·512·4,096 + 4,096": 102_764_544,
        "7·7·512·1,000 + 1,000": 25_089_000,
        "512·1,000 + 1,000": 513_000,
        "parameters of nn.GlobalAvgPool()": 0,
        "parameters of nn.GlobalMaxPool()": 0,
        "GAP, 7x7x512": 512,
        "GMP, 7x7x512": 512,
        "flatten, 7x7x512": 25_088,
        "GAP, 10x13x512": 512,
        "GMP, 10x13x512": 512,
        "flatten, 10x13x512": 10 * 13 * 512,
    }
    assert {text: numbers[text] for text in stated} == stated
    assert numbers["Σ softmax"] == pytest.approx(1, abs=1e-5)
    assert numbers["max |GAP(conv1x1(x)) - dense(GAP(x))|"] < 1e-5
    # Where the object is matters to flatten + dense alone.
    moved = [value for text, value in numbers.items() if text.endswith("max |y - y moved|")]
    assert moved[0] < 1e-6 and moved[1] < 1e-6 and moved[2] > 0.5
