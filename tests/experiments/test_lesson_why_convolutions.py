"""The lesson of course/why_convolutions.py: the course's numbers, and what the networks reach."""

import jax.numpy as jnp
import numpy as np
import pytest
from course import why_convolutions
from course.training import Digits
from flax import nnx

from tests.experiments.lesson import run


@pytest.mark.slow
def test_why_not_fully_connected(tmp_path):
    numbers = run(why_convolutions.why_not_fully_connected, tmp_path)
    stated = {
        "32·32·3": 3_072,
        "224·224·3": 150_528,
        "5·5·3": 75,
        "MLP: (32·32 + 1)·64 + (64 + 1)·10": 66_250,
        # LeCun et al. 1998 with all of S2 read by C3: 156 + 2,416 + 48,120 + 10,164 + 850
        "LeNet-5: parameters": 61_706,
    }
    assert {text: numbers[text] for text in stated} == stated
    assert numbers["MLP, 0 px"] > 0.88 and numbers["LeNet-5, 0 px"] > 0.92
    # Shared weights alone do not make a network indifferent to where the digit is; pooling over all does.
    assert max(numbers["MLP, 3 px"], numbers["LeNet-5, 3 px"]) < 0.4
    assert numbers["CNN + GMP, 3 px"] > 0.8


def test_a_shift_cuts_nothing_off():
    images = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (3, 8, 8, 1)), jnp.float32)
    digits = Digits(images, jnp.zeros(3, jnp.int32))
    centred = np.asarray(why_convolutions._on_canvas(digits).images)
    assert centred.shape == (3, 32, 32, 1)
    furthest = max(why_convolutions.SHIFTS)
    for dy, dx in why_convolutions.DIRECTIONS:
        moved = why_convolutions._on_canvas(digits, furthest * dy, furthest * dx).images
        np.testing.assert_array_equal(moved, np.roll(centred, (furthest * dy, furthest * dx), (1, 2)))
        np.testing.assert_allclose(np.sum(moved), centred.sum(), rtol=1e-6)


def test_the_pooled_network_does_not_mind_a_shift_by_its_strides():
    network = why_convolutions.Anywhere(rngs=nnx.Rngs(0))
    image = np.zeros((1, 40, 36, 1), np.float32)
    image[:, 16:22, 16:21] = np.random.default_rng(1).uniform(0, 1, (1, 6, 5, 1))
    logits = network(jnp.asarray(image))
    by_four = network(jnp.asarray(np.roll(image, (4, -4), (1, 2))))
    by_one = network(jnp.asarray(np.roll(image, (1, 0), (1, 2))))
    np.testing.assert_allclose(by_four, logits, atol=1e-5)
    assert np.abs(np.asarray(by_one - logits)).max() > 1e-3
