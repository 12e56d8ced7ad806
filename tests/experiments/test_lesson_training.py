"""The loop that the lessons share: what it learns from, in which order, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from course.training import Digits, _batches, accuracy, fit, load_digits, smooth
from flax import nnx

from jaxcnn import models
from jaxcnn.analysis import count_parameters


def test_digits():
    train, test = load_digits()
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 8, 8, 1)
    assert float(train.images.min()) == 0 and float(train.images.max()) == 1
    seen = {image.tobytes() for image in np.asarray(train.images)}
    assert len(seen) == 1437 and not any(image.tobytes() in seen for image in np.asarray(test.images))


def test_fit_takes_the_optimizers_steps_and_leaves_the_model():
    rng = np.random.default_rng(0)
    digits = Digits(jnp.asarray(rng.normal(size=(4, 2, 3, 1)), jnp.float32), jnp.array([7, 0, 3, 3]))
    model = models.MLP(hidden=(), input_size=(2, 3), rngs=nnx.Rngs(0))
    before = np.asarray(model.output.kernel)
    trained, losses = fit(model, digits, optax.sgd(0.5), steps=2, batch_size=4)

    # Softmax regression on all four examples, twice, by hand.
    x, target, kernel, bias = np.asarray(digits.images).reshape(4, 6), np.eye(10)[[7, 0, 3, 3]], before, 0.0
    for loss in losses:
        scores = np.exp(x @ kernel + bias)
        p = scores / scores.sum(1, keepdims=True)
        np.testing.assert_allclose(loss, -np.log((p * target).sum(1)).mean(), rtol=1e-5)
        kernel, bias = kernel - 0.5 * x.T @ (p - target) / 4, bias - 0.5 * (p - target).mean(0)
    np.testing.assert_allclose(trained.output.kernel[...], kernel, atol=1e-5)
    np.testing.assert_array_equal(model.output.kernel[...], before)

    right = (x @ kernel + bias).argmax(1) == [7, 0, 3, 3]
    assert accuracy(trained, digits) == right.mean()
    assert count_parameters(trained) == 6 * 10 + 10


def test_every_epoch_draws_each_example_once():
    batches = list(_batches(10, 3, 6, seed=0))
    epochs = [np.concatenate(batches[:3]), np.concatenate(batches[3:])]
    assert [len(set(epoch.tolist())) for epoch in epochs] == [9, 9] and (epochs[0] != epochs[1]).any()
    assert {len(batch) for batch in batches} == {3}


def test_smooth_is_the_mean_of_the_last_losses():
    losses = np.array(jax.random.normal(jax.random.key(0), (20,)))
    expected = [losses[max(0, i - 3) : i + 1].mean() for i in range(20)]
    np.testing.assert_allclose(smooth(losses, 4), expected, rtol=1e-5, atol=1e-6)
