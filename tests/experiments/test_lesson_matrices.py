"""The lessons of course/matrices.py: the course's numbers; how long a product took is printed, not tested."""

import numpy as np
from course import matrices

from tests.experiments.lesson import run


def test_im2col(tmp_path):
    numbers = run(matrices.im2col, tmp_path)
    x = np.array([[1, 2, 0, 1], [0, 1, 3, 2], [2, 0, 1, 1], [1, 1, 0, 2]])
    w = np.array([[1, 0, -1], [2, 1, 0], [0, 1, 1]])
    assert numbers["rows: 2·2 windows"] == 4 and numbers["columns: 3·3·1"] == 9
    assert numbers["1·1 + 0·(-1) + 0·2 + 1·1 + 0·1 + 1·1"] == (x[:3, :3] * w).sum() == 3
    assert numbers["patches / x, p = 1"] == 9
    differences = [value for text, value in numbers.items() if text.endswith("max |product - conv|")]
    assert len(differences) == 4 and max(differences) < 1e-4


def test_fully_connected_as_convolution(tmp_path):
    numbers = run(matrices.fully_connected_as_convolution, tmp_path)
    stated = {
        "24 - 24 + 1": 1,
        "filters": 10,
        "24·24·10·10": 57_600,
        "30 - 24 + 1": 7,
        "34 - 24 + 1": 11,
        "argmax y[:, :, 3]: row": 2,
        "argmax y[:, :, 3]: column": 7,
    }
    assert {text: numbers[text] for text in stated} == stated
    assert numbers["max |conv - dense|"] < 1e-4
    assert numbers["max |conv[2, 7] - dense(x[2:26, 7:31])|"] < 1e-3
