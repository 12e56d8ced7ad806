"""The lessons of course/sizes.py: the course's numbers, listed here once more."""

import numpy as np
import pytest
from course import sizes

from tests.experiments.lesson import run


def test_output_sizes(tmp_path):
    numbers = run(sizes.output_sizes, tmp_path)
    stated = {
        "(7 - 3) / 1 + 1": 5,
        "(7 - 3) / 2 + 1": 3,
        "⌊(7 - 3) / 3⌋ + 1": 2,
        "7 - 2·3": 1,
        "(7 + 2·1 - 3) / 1 + 1": 7,
        "(28 + 2·1 - 3) / 1 + 1": 28,
        "(56 + 2·1 - 3) / 1 + 1": 56,
        "(224 + 2·1 - 3) / 1 + 1": 224,
        "(28 + 2·2 - 5) / 1 + 1": 28,
        "(28 - 3) / 1 + 1": 26,
        "N": 16,
        "(32 + 2·2 - 5) / 1 + 1": 32,
        "filters": 10,
        "5·5·3·10": 750,
        "(5·5·3 + 1)·10": 760,
        "(224 - 2) / 2 + 1": 112,
        "channels, pooled": 64,
        "⌊(26 - 5) / 5⌋ + 1": 5,
        "(26 - 6) / 5 + 1": 5,
        "adaptive": 5,
        "max |adaptive - (k = 6, s = 5)|": 0,
    }
    assert numbers.pop("(7 - 3) / 3 + 1") == pytest.approx(7 / 3)
    assert numbers == stated


def test_a_stride_that_does_not_fit_is_shown_as_refused():
    assert sizes._refusal(7, 3, stride=3).startswith(
        "ValueError: output_size: exact=True needs a stride that"
    )
    assert sizes._refusal(7, 3, stride=2) == "3"


def test_padding_kinds(tmp_path):
    numbers = run(sizes.padding_kinds, tmp_path)
    x = np.arange(1, 13).reshape(3, 4)
    assert numbers == {
        "valid: 5 - 3 + 1": 3,
        "same: 5 + 2·1 - 3 + 1": 5,
        "full: 5 + 2·2 - 3 + 1": 7,
        "zeros: y[0, 0]": 0,
        "reflect: y[0, 0] = x[2, 2]": np.pad(x, 2, mode="reflect")[0, 0],
        "replicate: y[0, 0] = x[0, 0]": np.pad(x, 2, mode="edge")[0, 0],
        "circular: y[0, 0] = x[1, 2]": np.pad(x, 2, mode="wrap")[0, 0],
    }
