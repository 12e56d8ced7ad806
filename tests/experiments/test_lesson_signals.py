"""The lessons of course/signals.py: the course's numbers, and NumPy's for the same signals."""

import numpy as np
import pytest
from course import signals

from tests.experiments.lesson import run


def test_two_signals(tmp_path):
    numbers = run(signals.two_signals, tmp_path)
    f, g = [1, 2, 3, 1], [2, 1, -1]
    found = {
        start: [value for text, value in numbers.items() if text.startswith(start)]
        for start in ("(f * g)[", "(g ⋆ f)[", "(f ⋆ f)[")
    }
    assert found["(f * g)["] == list(np.convolve(f, g))
    assert found["(g ⋆ f)["] == list(np.correlate(f, g, "full"))
    assert found["(f ⋆ f)["] == list(np.correlate(f, f, "full")[3:])
    # Convolution is commutative, correlation is not; autocorrelation is symmetric and largest in its middle.
    assert numbers["max |(f * g) - (g * f)|"] == 0 and numbers["max |(g ⋆ f) - (f ⋆ g)|"] > 0
    assert numbers["max |(g ⋆ f)[n] - (f ⋆ g)[-n]|"] == numbers["max |(f ⋆ f)[n] - (f ⋆ f)[-n]|"] == 0
    assert numbers["argmax of (f ⋆ f)"] == 0


def test_which_one_networks_use(tmp_path):
    numbers = run(signals.which_one_networks_use, tmp_path)
    assert numbers["max |F.conv(x, w) - F.cross_correlate(x, w)|"] == 0
    assert numbers["max |F.conv(x, flip(w)) - F.convolve(x, w)|"] == 0
    learned = [value for text, value in numbers.items() if text.startswith("learned")]
    np.testing.assert_allclose(np.reshape(learned, (2, 2)), np.flip([[1, 2], [0, -1]]), atol=1e-4)


def test_one_window_three_channels(tmp_path):
    numbers = run(signals.one_window_three_channels, tmp_path)
    sums = [value for text, value in numbers.items() if text.startswith("channel ")]
    assert sums == [7, 15, 4]
    assert numbers["7 + 15 + 4"] == 26 and numbers["7 + 15 + 4 + 1"] == 27
    sliding = [value for text, value in numbers.items() if text.startswith("y[")]
    assert sliding == [4, 3, 4, 2, 4, 3, 2, 3, 4]


def test_the_sums_that_are_written_out_are_those_of_the_window():
    for number, (channel, kernel) in enumerate(zip(signals.CHANNELS, signals.KERNELS, strict=True)):
        product = np.asarray(channel)[:3, :3] * np.asarray(kernel)
        assert product.sum() == pytest.approx([7, 15, 4][number]) and (product != 0).sum() == 3
