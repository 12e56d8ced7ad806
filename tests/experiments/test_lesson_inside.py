"""The lesson of course/inside.py: what a unit looks for excites it more than any training image."""

import jax
import numpy as np
import pytest
from course import inside
from course.training import Digits
from flax import nnx

from jaxcnn import models
from tests.experiments.lesson import run


@pytest.mark.slow
def test_what_a_unit_looks_for(tmp_path):
    numbers = run(inside.what_a_unit_looks_for, tmp_path)
    assert numbers["LeNet-5: accuracy"] > 0.93
    assert len([name for name in numbers if name.endswith("max of 1,000")]) == 5


def test_the_best_image_is_the_one_with_the_largest_mean_activation():
    model = models.LeNet5(rngs=nnx.Rngs(1))
    images = jax.random.uniform(jax.random.key(0), (7, 32, 32, 1), minval=-1.0)
    alone = [float(np.mean(model.features(image[None], ("c3",))["c3"][..., 9])) for image in images]
    unit = inside._ask(model, "c3", 9, images)
    assert unit.reached_by_best == pytest.approx(max(alone), abs=1e-6)
    np.testing.assert_array_equal(unit.best, images[int(np.argmax(alone)), ..., 0])
    value = model.features(unit.maximum[None, ..., None], ("c3",))["c3"][..., 9].mean()
    assert unit.reached == pytest.approx(float(value), abs=1e-5) and unit.reached > unit.reached_by_best
    assert np.abs(unit.maximum).max() <= 1


def test_a_digit_lies_in_the_middle_of_a_dark_frame():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=0.1)
    found = np.asarray(inside._in_the_middle(Digits(images, jax.numpy.zeros(2, int))).images)[..., 0]
    assert found.shape == (2, 32, 32)
    assert (found[:, 4:28, 4:28] > -1).all() and (found == -1).sum() == 2 * (32**2 - 24**2)
