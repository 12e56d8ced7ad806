"""The lessons of course/batch_norm.py: numbers by hand, gradients by finite differences, what is learnt."""

import jax.numpy as jnp
import numpy as np
import pytest
from course import batch_norm
from flax import nnx

from tests.experiments.lesson import run


@pytest.mark.slow
def test_what_batch_norm_does(tmp_path):
    numbers = run(batch_norm.what_batch_norm_does, tmp_path)
    values = np.array([2, 4, 4, 4, 5, 5, 7, 9])
    assert numbers["μ = (2 + 4 + 4 + 4 + 5 + 5 + 7 + 9) / 8"] == values.mean()
    assert numbers["σ² = (9 + 1 + 1 + 1 + 0 + 0 + 4 + 16) / 8"] == values.var()
    assert numbers["(9 - 5) / √(4 + 1e-5)"] == pytest.approx((9 - 5) / np.sqrt(4 + 1e-5), abs=1e-6)
    assert numbers["σ(8) / σ(1)"] < 0.02 and numbers["BN: σ(8) / σ(1)"] == pytest.approx(1, abs=0.1)
    assert numbers["σ(w) = 0.05: test accuracy"] < 0.3 and numbers["σ(w) = 0.05, BN: test accuracy"] > 0.9


@pytest.mark.slow
def test_relu_against_sigmoid(tmp_path):
    numbers = run(batch_norm.relu_against_sigmoid, tmp_path)
    assert numbers["σ'(0) = 1/2·(1 - 1/2)"] == 0.25 and numbers["ReLU'(5)"] == 1
    assert numbers["σ'(5)"] == pytest.approx(np.exp(-5) / (1 + np.exp(-5)) ** 2, rel=1e-4)
    assert numbers["0.25⁸"] == 2.0**-16
    assert numbers["sigmoid: |∂L/∂z(1)| / |∂L/∂z(8)|"] < 1e-3 < numbers["ReLU: |∂L/∂z(1)| / |∂L/∂z(8)|"]
    assert numbers["sigmoid: test accuracy"] < 0.3 and numbers["ReLU: test accuracy"] > 0.85


@pytest.mark.slow
def test_dead_relus(tmp_path):
    numbers = run(batch_norm.dead_relus, tmp_path)
    assert numbers["ReLU'(-1)"] == 0 and numbers["leaky ReLU'(-1)"] == pytest.approx(0.1)
    assert numbers["b = -0.5: dead in layer 6"] > 0.9
    assert numbers["b = 0: dead in layer 6"] == numbers["b = 0.1: dead in layer 6"] == 0
    assert numbers["ReLU, b = -0.5: test accuracy"] < 0.3
    assert numbers["leaky ReLU, b = -0.5: test accuracy"] > 0.85
    assert numbers["η = 0.1: dead"] < 0.05 and numbers["η = 1.0: dead"] > 0.2


def test_gradient_norms_are_those_of_finite_differences():
    model = batch_norm.Stack(depth=2, width=3, activation=jnp.tanh, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.normal(size=(1, 2, 3, 1)), jnp.float32), jnp.array([4])

    def loss(layer, place, step):
        nudges = [np.zeros((1, 2, 3, 3), np.float32) for _ in range(2)]
        nudges[layer].flat[place] = step
        logits = np.asarray(model.features(images, [jnp.asarray(nudge) for nudge in nudges])[-1], float)[0]
        return np.log(np.exp(logits).sum()) - logits[4]

    numeric = [[(loss(i, j, 0.02) - loss(i, j, -0.02)) / 0.04 for j in range(18)] for i in range(2)]
    norms = batch_norm._gradient_norms(model, images, labels)
    np.testing.assert_allclose(norms, np.linalg.norm(numeric, axis=1), rtol=0.01)


def test_silence_counts_units_over_all_images_and_positions():
    model = batch_norm.Stack(depth=1, width=2, rngs=nnx.Rngs(0))
    kernel = np.zeros((3, 3, 1, 2), np.float32)
    kernel[1, 1, 0] = 1, -1  # the image and its negative
    model.convs[0].kernel.set_value(jnp.asarray(kernel))
    images = np.zeros((2, 3, 4, 1), np.float32)
    images[1, 2, 3] = 5  # the first unit fires once in 24 places, the second never
    zeros, dead = batch_norm._silence(model, jnp.asarray(images))
    assert zeros == [pytest.approx(47 / 48)] and dead == [0.5]
