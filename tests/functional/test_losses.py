"""Losses against loops and the courses' example; labels that do not count, and wrong ones."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn.functional as F
from tests import reference

LOSSES = {
    "cross_entropy": F.softmax_cross_entropy,
    "focal": F.softmax_focal_loss,
    "svm": F.multiclass_svm_loss,
}


def value_and_gradient(loss, logits, labels, **options):
    """Compiled once, which takes less time than operation by operation."""
    return jax.jit(jax.value_and_grad(functools.partial(loss, **options)))(logits, labels)


EACH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def log_softmax(scores):
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


def smoothed(of_log_p, smoothing):
    def loss(scores, label):
        losses = [of_log_p(log_p) for log_p in log_softmax(scores)]
        return (1 - smoothing) * losses[label] + smoothing * np.mean(losses)

    return loss


def svm(margin):
    def loss(scores, label):
        return sum(max(0, s - scores[label] + margin) for j, s in enumerate(scores) if j != label)

    return loss


CASES = {
    "cross_entropy": (F.softmax_cross_entropy, {}, smoothed(lambda log_p: -log_p, 0.0)),
    "smoothed": (F.softmax_cross_entropy, {"smoothing": 0.2}, smoothed(lambda log_p: -log_p, 0.2)),
    "focal": (F.softmax_focal_loss, {}, smoothed(lambda log_p: -((1 - np.exp(log_p)) ** 2) * log_p, 0.0)),
    "focal, smoothed": (
        F.softmax_focal_loss,
        {"gamma": 0.5, "smoothing": 0.3},
        smoothed(lambda log_p: -((1 - np.exp(log_p)) ** 0.5) * log_p, 0.3),
    ),
    "svm": (F.multiclass_svm_loss, {}, svm(1.0)),
    "svm, margin": (F.multiclass_svm_loss, {"margin": 0.3}, svm(0.3)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 3, 2)])
def test_losses_are_the_weighted_means_of_their_formulas(name, shape):
    loss, options, of_class = CASES[name]
    scores, generator = 2 * reference.normal(0, 5, *shape, 4), np.random.default_rng(1)
    labels = generator.integers(-1, 4, (5, *shape)).astype(np.int32)
    losses, counts = reference.loss_of_each(of_class, scores, labels), labels >= 0
    per_example = generator.random(5).astype(np.float32)
    per_label = generator.random(labels.shape).astype(np.float32)
    of_examples = np.broadcast_to(per_example.reshape(5, *(1 for _ in shape)), labels.shape)
    apply = functools.partial(loss, ignore_label=-1, **options)
    given = (None, per_example, per_label)
    values = jax.jit(lambda *arrays: [apply(*arrays, weights=weights) for weights in given])(scores, labels)
    for value, spread in zip(values, (np.ones(labels.shape), of_examples, per_label), strict=True):
        assert value.shape == ()
        counted = spread * counts
        np.testing.assert_allclose(value, (counted * losses).sum() / counted.sum(), rtol=1e-5)


def test_the_svm_loss_of_the_courses_example():
    scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    for example, expected in enumerate([2.9, 0.0, 12.9]):
        value = F.multiclass_svm_loss(scores[example : example + 1], jnp.array([example]))
        np.testing.assert_allclose(value, expected, atol=1e-5)


def test_the_svm_loss_with_two_classes_is_optaxs_other_one():
    scores, labels = jnp.asarray(reference.normal(0, 9, 2)), jnp.arange(9) % 2
    crammer_singer = optax.losses.multiclass_hinge_loss(scores, labels).mean()
    np.testing.assert_allclose(F.multiclass_svm_loss(scores, labels), crammer_singer, rtol=1e-6)


def test_gamma_zero_is_the_cross_entropy_and_a_larger_gamma_counts_sure_labels_less():
    logits, labels = jnp.asarray(reference.normal(0, 6, 5)), jnp.arange(6) % 5
    for options in ({}, {"smoothing": 0.1}):
        chex.assert_trees_all_equal(
            value_and_gradient(F.softmax_focal_loss, logits, labels, gamma=0, **options),
            value_and_gradient(F.softmax_cross_entropy, logits, labels, **options),
        )
    values = [F.softmax_focal_loss(logits, labels, gamma=gamma) for gamma in (0, 0.5, 2)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))


@pytest.mark.parametrize("gamma", [0, 0.1, 1, 2.5])
def test_the_focal_loss_of_a_sure_label_has_finite_derivatives(gamma):
    logits, labels = jnp.array([[200.0, 0.0, -5.0], [1.0, 2.0, 0.5]]), jnp.array([0, 1])
    loss = functools.partial(F.softmax_focal_loss, gamma=gamma)
    gradient, hessian = jax.jit(lambda x: (jax.grad(loss)(x, labels), jax.hessian(loss)(x, labels)))(logits)
    chex.assert_tree_all_finite((gradient, hessian))
    np.testing.assert_array_equal(gradient[0], [0, 0, 0])
    assert (gradient[1] != 0).all()


@EACH
def test_an_ignored_label_meets_no_loss_and_no_gradient_whatever_its_logits(loss):
    logits, labels = reference.normal(0, 4, 3, 5), np.array([[0, 1, 2], [3, 255, 4], [0] * 3, [255] * 3])
    counts, labels = labels != 255, labels.astype(np.uint8)
    value, gradient = value_and_gradient(loss, jnp.asarray(logits), labels, ignore_label=255)
    np.testing.assert_allclose(value, loss(logits[counts][:, None], labels[counts][:, None]), rtol=1e-6)
    logits[1, 1], logits[3, 0], logits[3, 1] = np.nan, np.inf, -np.inf
    again = value_and_gradient(loss, jnp.asarray(logits), labels, ignore_label=255)
    chex.assert_trees_all_equal(again, (value, gradient))
    assert (np.asarray(gradient)[~counts] == 0).all() and (np.asarray(gradient)[counts] != 0).any()


@EACH
def test_no_label_that_counts_gives_zero(loss):
    logits, labels = jnp.asarray(reference.normal(0, 4, 5)), jnp.full(4, -1)
    value, gradient = value_and_gradient(loss, logits, labels, ignore_label=-1)
    assert value == 0 and not gradient.any()
    assert loss(logits, jnp.zeros(4, jnp.int32), weights=jnp.zeros(4)) == 0
    assert loss(logits[:0], jnp.zeros(0, jnp.int32)) == 0


@EACH
@pytest.mark.parametrize("label", [-1, 5, 255])
def test_a_label_that_is_no_class_gives_nan_in_the_loss_and_its_gradient(loss, label):
    logits, labels = jnp.asarray(reference.normal(0, 4, 5)), jnp.array([0, 1, label, 2])
    value, gradient = value_and_gradient(loss, logits, labels)
    assert jnp.isnan(value)
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=1), [False, False, True, False])


@EACH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_losses_are_computed_in_float32_or_wider(loss, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        logits = jnp.asarray(reference.normal(0, 40, 30, 5)).astype(dtype)
        labels = jnp.asarray(np.random.default_rng(1).integers(0, 5, (40, 30)).astype(np.int32))
        value = jax.jit(loss)(logits, labels, weights=jnp.ones(40, jnp.float32))
        assert value.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    with jax.enable_x64(True):
        exact = jax.jit(loss)(logits.astype(jnp.float64), labels)
    np.testing.assert_allclose(value, exact, rtol=1e-12 if dtype == jnp.float64 else 1e-5)


def test_a_class_ruled_out_by_a_logit_of_minus_infinity_does_no_harm():
    logits = jnp.array([[-jnp.inf, 0.5, 1.0], [0.0, 1.0, -jnp.inf]])
    for loss in (F.softmax_cross_entropy, F.softmax_focal_loss):
        value, gradient = value_and_gradient(loss, logits, jnp.array([1, 1]))
        np.testing.assert_allclose(
            value, loss(jnp.array([[0.5, 1.0], [1.0, 0.0]]), jnp.array([0, 0])), rtol=1e-6
        )
        assert np.isfinite(gradient).all() and gradient[0, 0] == gradient[1, 2] == 0


def test_a_weight_of_zero_hides_label_and_logits():
    logits = jnp.asarray(reference.normal(0, 3, 4)).at[1].set(jnp.nan)
    labels, weights = jnp.array([2, 0, -1]), jnp.array([0.5, 0.0, 0.0])
    for loss in (F.softmax_cross_entropy, F.softmax_focal_loss, F.multiclass_svm_loss):
        value, gradient = jax.value_and_grad(loss)(logits, labels, weights=weights)
        np.testing.assert_allclose(value, loss(logits[:1], labels[:1]), rtol=1e-6)
        assert not gradient[1:].any()
