"""The lesson of course/receptive_fields.py: the numbers of the literature, listed here once more."""

import numpy as np
import pytest
from course import receptive_fields

from tests.experiments.lesson import run


def test_receptive_fields(tmp_path):
    numbers = run(receptive_fields.receptive_fields, tmp_path)
    # Araujo, Norris and Sim 2019, table 1: AlexNet 195, VGG-16 212, ResNet-50 483.
    stated = {
        "3×3, 3×3: 1 + 2 + 2": 5,
        "3×3, 3×3, 3×3: 1 + 2 + 2 + 2": 7,
        "3×3 (s = 2), 3×3: 1 + 2 + 2 · 2": 7,
        "AlexNet, pool5": 195,
        "VGG-16, conv5_3": 196,
        "VGG-16, pool5": 212,
        "ResNet-18, layer4": 435,
        "ResNet-50, layer4, 3×3 s = 2": 427,
        "ResNet-50, layer4, 1×1 s = 2": 483,
        "ResNet-18, layer2: dy/dx ≠ 0": 99,
        "ResNet-18, layer3: dy/dx ≠ 0": 211,
        "VGG-16, conv4_3: dy/dx ≠ 0": 92,
        "VGG-16, conv5_3: dy/dx ≠ 0": 196,
    }
    halves = {name: numbers.pop(name) for name in list(numbers) if "50 %" in name}
    assert numbers == stated
    assert len(halves) == 4 and all(0.2 < share < 0.5 for share in halves.values())


def test_the_square_that_holds_half():
    even = np.zeros((20, 20))
    even[4:15, 4:15] = 1
    found = receptive_fields.measure("even", even)
    # Of 11 x 11 ones 9 x 9 = 81 are the first odd square that holds 60.5.
    assert (found.first, found.reach, found.half) == (4, 11, 9)


@pytest.mark.parametrize(
    ("layers", "field"), [([], 1), ([(5, 1)], 5), ([(1, 2), (3, 1)], 5), ([(3, 2), (2, 2), (3, 1)], 13)]
)
def test_the_formula(layers, field):
    assert receptive_fields.receptive_field(layers) == field
