import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcnn.nn import set_random_keys
from jaxcnn.training.state import create_train_state
from jaxcnn.training.step import eval_step, multiclass_hinge, softmax_cross_entropy, train_step


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TrainStep(chex.TestCase):
    @chex.all_variants()  # pyright: ignore[reportCallIssue]
    def test_equals_softmax_regression_with_momentum_in_numpy(self):
        """Three steps with soft targets: gradient of W is x^T (p - t) / n, of b the column mean of p - t."""
        random = np.random.default_rng(0)
        optimizer = optax.sgd(0.3, momentum=0.9)
        merge, state = create_train_state(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), optimizer)
        key = jax.random.key(0)

        variant: Any = self.variant

        @variant
        def step(state, batch):
            return train_step(
                state,
                batch,
                key,
                merge=merge,
                optimizer=optimizer,
                loss=softmax_cross_entropy,
                set_random_keys=lambda model, keys: None,
            )

        weight, bias = np.array(state.params["kernel"], float), np.array(state.params["bias"], float)
        weight_velocity, bias_velocity = np.zeros_like(weight), np.zeros_like(bias)
        for k in range(3):
            x, target = random.normal(size=(5, 4)), softmax(random.normal(size=(5, 3)))
            z = x @ weight + bias
            loss = np.mean([-np.sum(target[i] * np.log(softmax(z)[i])) for i in range(5)])
            accuracy = np.mean([np.argmax(z[i]) == np.argmax(target[i]) for i in range(5)])
            error = (softmax(z) - target) / 5
            weight_velocity = 0.9 * weight_velocity + x.T @ error
            bias_velocity = 0.9 * bias_velocity + error.sum(0)
            weight, bias = weight - 0.3 * weight_velocity, bias - 0.3 * bias_velocity

            batch = {
                "image": x.astype(np.float32),
                "target": target.astype(np.float32),
                "index": np.arange(5, dtype=np.int32),
            }
            state, metrics = step(state, batch)
            np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
            np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
            assert int(state.step) == k + 1
        np.testing.assert_allclose(state.params["kernel"], weight, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.params["bias"], bias, rtol=1e-4, atol=1e-6)


def convolve(x, kernel, bias):
    """A 3x3 convolution with padding 1, tap by tap."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    taps = (x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return sum(taps) + bias


@pytest.fixture(scope="module")
def bound(small_net):
    """A jitted train step, the matching eval step and a state."""
    optimizer = optax.adam(1e-2)
    merge, state = create_train_state(small_net(), optimizer)
    options = {"merge": merge, "loss": softmax_cross_entropy}
    train = functools.partial(train_step, optimizer=optimizer, set_random_keys=set_random_keys, **options)
    return jax.jit(train), jax.jit(functools.partial(eval_step, **options)), state


def test_new_batch_statistics_move_by_a_tenth_to_those_of_the_batch(bound, make_batch):
    train, _, state = bound
    batch = make_batch(8)
    new, _ = train(state, batch, jax.random.key(0))
    y = convolve(
        batch["image"], np.array(state.params["conv"]["kernel"]), np.array(state.params["conv"]["bias"])
    )
    np.testing.assert_allclose(new.batch_stats["norm"]["mean"], 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        new.batch_stats["norm"]["var"], 0.9 + 0.1 * y.var((0, 1, 2), ddof=1), rtol=1e-5
    )


def test_an_example_gets_the_same_dropout_wherever_it_stands_in_the_batch(bound, make_batch):
    train, _, state = bound
    batch = make_batch(8)
    order = np.random.default_rng(0).permutation(8)
    a, a_metrics = train(state, batch, jax.random.key(0))
    b, b_metrics = train(state, {name: x[order] for name, x in batch.items()}, jax.random.key(0))
    np.testing.assert_allclose(a_metrics["loss"], b_metrics["loss"], rtol=1e-6)
    chex.assert_trees_all_close(a.batch_stats, b.batch_stats, atol=1e-6)
    _, other = train(state, batch | {"index": batch["index"] + 1}, jax.random.key(0))
    assert abs(other["loss"] - a_metrics["loss"]) > 1e-3


def test_dropout_changes_with_the_step_and_with_the_key(bound, make_batch):
    train, _, state = bound
    batch = make_batch(8)
    later = dataclasses.replace(state, step=state.step + 1)
    losses = [
        float(train(start, batch, jax.random.key(seed))[1]["loss"])
        for start, seed in ((state, 0), (later, 0), (state, 1))
    ]
    assert len({round(loss, 4) for loss in losses}) == 3
    assert float(train(state, batch, jax.random.key(0))[1]["loss"]) == losses[0]


def test_the_step_leaves_what_it_is_given_alone(bound, make_batch):
    train, _, state = bound
    before = jax.tree.map(np.array, state)
    train(state, make_batch(8), jax.random.key(0))
    chex.assert_trees_all_equal(jax.tree.map(np.array, state), before)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_eager_and_jitted_steps_agree_and_keep_the_dtypes(small_net, make_batch, dtype):
    """With bfloat16 compute the parameters, the loss and the statistics stay float32."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    merge, state = create_train_state(small_net(dtype), optimizer)
    step = functools.partial(
        train_step,
        merge=merge,
        optimizer=optimizer,
        loss=multiclass_hinge,
        set_random_keys=set_random_keys,
    )
    batch = jax.tree.map(jnp.asarray, make_batch(4))
    eager, metrics = step(state, batch, jax.random.key(0))
    jitted, jitted_metrics = jax.jit(step)(state, batch, jax.random.key(0))
    chex.assert_trees_all_close(eager, jitted, atol=1e-6 if dtype is None else 1e-2)
    chex.assert_trees_all_close(metrics, jitted_metrics, atol=1e-6 if dtype is None else 1e-2)
    assert metrics["loss"].dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(eager, state)


def test_evaluation_sums_over_the_marked_examples_only(bound, make_batch):
    _, evaluate, state = bound
    batch = make_batch(7)
    label = batch["target"].argmax(-1).astype(np.int32)
    mask = np.array([1, 1, 0, 1, 1, 0, 1], bool)
    image = np.where(mask[:, None, None, None], batch["image"], np.nan).astype(np.float32)
    outputs = evaluate(state, {"image": image, "label": label, "index": batch["index"], "mask": mask})

    conv = jax.tree.map(np.array, state.params["conv"])
    y = convolve(batch["image"], conv["kernel"], conv["bias"])
    y = np.maximum(y / np.sqrt(1 + 1e-5), 0).reshape(7, -1)  # running mean 0 and variance 1; no dropout
    probability = softmax(y @ np.array(state.params["linear"]["kernel"]))
    kept = [i for i in range(7) if mask[i]]
    np.testing.assert_allclose(
        outputs["loss"], -sum(np.log(probability[i, label[i]]) for i in kept), rtol=1e-5
    )
    assert outputs["correct"] == sum(probability[i].argmax() == label[i] for i in kept)
    assert outputs["count"] == 5
    np.testing.assert_array_equal(outputs["index"], np.where(mask, batch["index"], -1))
    np.testing.assert_array_equal(outputs["prediction"][mask], probability.argmax(-1)[mask])
    np.testing.assert_allclose(outputs["probability"][mask], probability.max(-1)[mask], rtol=1e-5)


def test_multiclass_hinge_equals_the_definition():
    random = np.random.default_rng(0)
    logits, target = random.normal(size=(9, 4)), random.dirichlet(np.ones(4), 9)
    target[:3] = np.eye(4)[:3]  # one-hot and soft targets
    hinge = [[max(z[j] + (j != y) for j in range(4)) - z[y] for y in range(4)] for z in logits]
    expected = (target * hinge).sum(axis=1)
    actual = multiclass_hinge(jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [multiclass_hinge, softmax_cross_entropy])
def test_losses_have_their_numerical_gradients(loss):
    random = np.random.default_rng(1)
    logits = jnp.asarray(3 * random.normal(size=(5, 4)), jnp.float32)
    target = jnp.asarray(softmax(random.normal(size=(5, 4))), jnp.float32)
    chex.assert_numerical_grads(lambda z: loss(z, target).sum(), (logits,), order=1, atol=0.02)


def test_a_target_of_other_width_than_the_logits_is_refused(bound, make_batch):
    train, _, state = bound
    batch = make_batch(4)
    batch["target"] = np.eye(10, dtype=np.float32)[:4]
    with pytest.raises(
        ValueError, match=r"train_step: the model gives logits of shape \(4, 3\), expected .* \(4, 10\)"
    ):
        train(state, batch, jax.random.key(0))


def test_a_loss_that_is_already_averaged_is_refused(small_net, make_batch, unchecked):
    merge, state = create_train_state(small_net(), optax.sgd(0.1))
    batch = make_batch(4)
    batch |= {"label": batch["target"].argmax(-1).astype(np.int32), "mask": np.ones(4, bool)}
    with pytest.raises(
        ValueError, match=r"eval_step: loss gives shape \(\), expected one number per example, \(4,\)"
    ):
        eval_step(state, batch, merge=merge, loss=lambda logits, target: logits.mean())
