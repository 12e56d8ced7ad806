from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.interpret.gradients import integrated_gradients, saliency, smooth_grad
from tests.interpret import small_network
from tests.interpret.small_network import CLASSES, InNumPy, images, linear_net, small_net
from tests.reference import normal

KEYS = jax.random.split(jax.random.key(7), 2)
METHODS = {
    "saliency": saliency,
    "smooth_grad": lambda model, x, classes, key=KEYS: smooth_grad(key, model, x, classes, samples=3),
    "integrated_gradients": lambda model, x, classes: integrated_gradients(model, x, classes, steps=3),
}
each = pytest.mark.parametrize("name", METHODS)


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_saliency_is_the_largest_gradient_of_the_channels():
    expected = np.abs(InNumPy(small_net()).gradient(images(), CLASSES)).max(-1)
    close(saliency(small_net(), images(), CLASSES), expected)


def test_a_linear_model_has_its_weights_for_saliency():
    model, x = linear_net(), normal(0, 2, 5, 3, 2)
    weights = np.asarray(model.output.kernel[...]).T[[3, 1]].reshape(2, 5, 3, 2)
    close(saliency(model, x, [3, 1]), np.abs(weights).max(-1))
    # Whatever the noise: a linear model has the same gradient everywhere.
    close(smooth_grad(jax.random.key(0), model, x, [3, 1], noise=1), np.abs(weights).max(-1))


def test_without_noise_smooth_grad_is_saliency():
    found = smooth_grad(jax.random.key(0), small_net(), images(), CLASSES, samples=3, noise=0)
    close(found, saliency(small_net(), images(), CLASSES))


def test_smooth_grad_is_the_magnitude_of_the_mean_gradient_under_noise_of_a_share_of_the_range():
    x, samples = images()[:1], 2000
    network, spread = InNumPy(small_net()), 0.2 * np.ptp(x)
    noisy = x + spread * np.random.default_rng(0).normal(size=(samples, *x.shape[1:]))
    gradients = network.gradient(noisy, np.full(samples, 2))
    expected = np.abs(gradients.mean(0)).max(-1)
    found = np.asarray(smooth_grad(jax.random.key(0), small_net(), x, 2, samples=samples, noise=0.2))[0]
    close(found, expected, 0.1)
    # The tolerance tells the paper's mean from the mean of magnitudes, and this noise from half of it.
    assert np.abs(np.abs(gradients).mean(0).max(-1) - found).max() > 0.2 * found.max()
    less = smooth_grad(jax.random.key(0), small_net(), x, 2, samples=samples, noise=0.1)
    assert np.abs(less[0] - found).max() > 0.2 * found.max()


def test_one_key_gives_each_image_noise_of_its_own():
    twice = np.concatenate([images()[:1]] * 2)
    first, second = smooth_grad(jax.random.key(0), small_net(), twice, 2, samples=3)
    assert np.abs(first - second).max() > 1e-2


def test_integrated_gradients_are_the_mean_gradient_on_the_way_times_the_way():
    x, start = images(), normal(5, *images().shape)
    network, steps = InNumPy(small_net()), 2000
    gradients = [network.gradient(start + t * (x - start), CLASSES) for t in (np.arange(steps) + 0.5) / steps]
    found = integrated_gradients(small_net(), x, CLASSES, baseline=start, steps=1000)
    close(found, (x - start) * np.mean(gradients, 0), 2e-3)


@pytest.mark.parametrize("start", [None, normal(3, 1, 8, 6, 3)], ids=["zeros", "one for all"])
def test_integrated_gradients_are_complete(start):
    x, network = images(), InNumPy(small_net())
    baseline = 0 * x if start is None else np.concatenate([start] * 2)
    difference = network.logits(x, CLASSES) - network.logits(baseline, CLASSES)
    found = integrated_gradients(small_net(), x, CLASSES, baseline=start, steps=256)
    np.testing.assert_allclose(found.sum((1, 2, 3)), difference, rtol=0.01)


def test_a_linear_model_takes_one_step():
    model, x = linear_net(), normal(0, 2, 5, 3, 2)
    weights = np.asarray(model.output.kernel[...]).T[1].reshape(5, 3, 2)
    close(integrated_gradients(model, x, 1, baseline=np.ones_like(x), steps=1), weights * (x - 1))


@each
def test_a_batch_gives_what_each_image_gives_alone(name):
    together = METHODS[name](small_net(), images(), CLASSES)
    for i, label in enumerate(CLASSES):
        of_image = {"key": KEYS[i : i + 1]} if name == "smooth_grad" else {}
        alone = METHODS[name](small_net(), images()[i : i + 1], int(label), **of_image)
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-4, atol=1e-5)


@each
def test_the_model_stays_as_it_is(name):
    model = small_net()
    before = small_network.snapshot(model)
    METHODS[name](model, images(), CLASSES)
    assert small_network.is_unchanged(model, before)


@each
def test_a_model_of_bfloat16_gives_bfloat16(name):
    x = normal(0, 2, 5, 3, 2)
    rough = METHODS[name](linear_net(jnp.bfloat16), x, 1)
    assert rough.dtype == jnp.bfloat16
    close(rough.astype(jnp.float32), METHODS[name](linear_net(), x, 1), 0.02)


@each
def test_wrong_models_images_and_classes_are_refused(name, unchecked):
    method = METHODS[name]
    for model, x, classes, message in (
        (
            None,
            images(),
            0,
            "model must be a jaxcnn classifier, which names its stages, got <class 'NoneType'>",
        ),
        (small_net(), images()[0], 0, r"x must have shape \(batch, \*spatial, channels\) .* x\[None\]"),
        (small_net(), images(), [0], r"classes must be one int or have shape \(2,\), .* got shape \(1,\)"),
        (small_net(), images(), [0, -1], r"classes must be in \[0, 4\), got -1 to 0"),
        (small_net(), images(), 1.0, "classes must be integers, got 1.0 of dtype float64"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{name}: {message}"):
            method(model, x, classes)


@each
def test_classes_may_be_traced_and_one_that_the_model_does_not_have_gives_nan(name):
    model, x = small_net(), images()
    traced = jax.jit(lambda x, classes: METHODS[name](model, x, classes))
    close(traced(x, jnp.asarray(CLASSES)), METHODS[name](model, x, CLASSES), 1e-5)
    assert (
        jnp.isnan(traced(x, jnp.array([4, -1]))).any(tuple(range(1, METHODS[name](model, x, 0).ndim))).all()
    )
    with pytest.raises(TypeError, match=f"^{name}: classes must be integers, got .* of dtype float32"):
        traced(x, jnp.ones(2))


@each
def test_a_model_that_is_abstract_or_has_an_attribute_without_a_hash_is_refused(name, unchecked):
    with pytest.raises(TypeError, match=f"^{name}: model must hold arrays, got an abstract model"):
        METHODS[name](nnx.eval_shape(small_net), images(), 0)
    model: Any = small_net()
    model.sizes = nnx.static([3, 4])
    with pytest.raises(
        TypeError,
        match=f"^{name}: model must hold attributes that can be hashed, .*: unhashable type: 'list'",
    ):
        METHODS[name](model, images(), 0)


def test_wrong_options_are_refused(unchecked):
    key = jax.random.key(0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"samples": 0, "key": key}, "samples must be at least 1, got 0"),
        ({"samples": 2.5, "key": key}, "samples must be an int, got 2.5"),
        ({"noise": -0.1, "key": key}, "noise must be a Python number of at least 0, got -0.1"),
        ({"key": 3}, "key must come from jax.random.key, got int"),
        ({"key": jax.random.split(key, 3)}, "key must be one key or one for each of the 2 examples"),
    ]
    for options, message in wrong:
        with pytest.raises((ValueError, TypeError), match=f"^smooth_grad: {message}"):
            smooth_grad(options.pop("key"), small_net(), images(), 0, **options)
    wrong = [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"baseline": 0.0}, "baseline must be a JAX or NumPy array, got float"),
        ({"baseline": images()[0]}, r"baseline must have x's shape \(2, 8, 6, 3\), or \(1, 8, 6, 3\) .* got"),
    ]
    for options, message in wrong:
        with pytest.raises((ValueError, TypeError), match=f"^integrated_gradients: {message}"):
            integrated_gradients(small_net(), images(), 0, **options)
