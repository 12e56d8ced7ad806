"""One training step and one evaluation step: pure functions that are the same on any number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from jaxcnn.functional.checks import AnyArray
from jaxcnn.training.state import Merge, TrainState

Batch = dict[str, Any]
"""Arrays by name, all with the batch as their leading axis."""
Loss = Callable[[Float[Array, "batch classes"], Float[Array, "batch classes"]], Float[Array, " batch"]]
"""loss(logits, target) -> the loss of each example."""

softmax_cross_entropy: Loss = optax.losses.softmax_cross_entropy


def multiclass_hinge(
    logits: Float[AnyArray, "batch classes"], target: Float[AnyArray, "batch classes"]
) -> Float[Array, " batch"]:
    """The multiclass support vector machine's hinge loss with the largest rival, for soft targets too.

        loss = sum_y target_y * (max_j (logits_j + [j != y]) - logits_y)

    For a one-hot target that is the loss of its class, for a soft one (mixup, smoothing) the mean over it.
    The courses sum over all rivals instead: `jaxcnn.functional.multiclass_svm_loss`.

    Args:
        logits: the scores, (batch, classes).
        target: one-hot or soft targets, (batch, classes).

    Returns:
        The loss of each example, (batch,).

    Reference: Crammer and Singer, On the algorithmic implementation of multiclass kernel-based vector
    machines, JMLR 2001; for one-hot targets optax.losses.multiclass_hinge_loss.

    Example:
        >>> multiclass_hinge(jnp.array([[2.0, 0.5, 1.5]]), jnp.array([[1.0, 0.0, 0.0]]))
        Array([0.5], dtype=float32)
    """
    # The rival of a class is the best of the others: the second best for the best, the best for the rest.
    best, place = jax.lax.top_k(logits, 2)
    is_best = jnp.arange(logits.shape[-1])[None] == place[:, :1]
    rival = jnp.where(is_best, best[:, 1:], best[:, :1])
    return jnp.sum(target * jax.nn.relu(1.0 + rival - logits), axis=-1)


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    merge: Merge,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    set_random_keys: Callable[[Any, Key[Array, " batch"]], None],
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Take one step of the optimizer on the mean loss of a batch.

    The random key of an example is fold_in(fold_in(key, step), index). It depends neither on the device nor
    on the place in the batch, so a run gives the same numbers however its batches are split.

    Args:
        state: the state before the step.
        batch: "image" (batch, height, width, channels), augmented and normalised; "target" (batch, classes),
            one-hot or soft; "index" (batch,) int32, the example's position in the data set.
        key: the key of the whole run.
        merge: what `create_train_state` returned.
        optimizer: the optimizer whose state `state.opt_state` is.
        loss: loss(float32 logits, target) -> (batch,).
        set_random_keys: set_random_keys(model, keys) gives the model's random layers one key per example, as
            `jaxcnn.nn.set_random_keys` does.
        axis_name: under pmap the name of the axis over which the batch is split. Gradients, metrics and the
            batch statistics of the norm layers are averaged over it.

    Returns:
        The state after the step, and the means over the global batch of "loss" and "accuracy".

    Raises:
        ValueError: the logits and the target differ in shape, or the loss is not one number per example.

    Example:
        >>> from jaxcnn.training.state import create_train_state
        >>> optimizer = optax.sgd(0.1)
        >>> model = nnx.Linear(2, 2, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
        >>> merge, state = create_train_state(model, optimizer)
        >>> batch = {"image": jnp.array([[1.0, 0.0]]), "target": jnp.array([[0.0, 1.0]]),
        ...     "index": jnp.array([0])}
        >>> state, metrics = train_step(state, batch, jax.random.key(0), merge=merge, optimizer=optimizer,
        ...     loss=softmax_cross_entropy, set_random_keys=lambda model, keys: None)
        >>> print(f"{metrics['loss']:.4f}", state.params["kernel"][0])
        0.6931 [-0.05  0.05]
    """
    step_key = jax.random.fold_in(key, state.step)
    example_keys = jax.vmap(lambda index: jax.random.fold_in(step_key, index))(batch["index"])

    def mean_loss(params):
        model = merge(params, state.batch_stats)
        model.train(axis_name=axis_name)
        set_random_keys(model, example_keys)
        logits = model(batch["image"]).astype(jnp.float32)
        value = _example_losses("train_step", loss, logits, batch["target"]).mean()
        return value, (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    (value, (logits, batch_stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    correct = logits.argmax(-1) == batch["target"].argmax(-1)
    metrics = {"loss": value, "accuracy": correct.mean(dtype=jnp.float32)}
    if axis_name is not None:
        gradient, metrics = jax.lax.pmean((gradient, metrics), axis_name)

    with jax.numpy_dtype_promotion("standard"):  # optax.adam computes decay ** count, a float to an int
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return state, metrics


def eval_step(
    state: TrainState, batch: Batch, *, merge: Merge, loss: Loss, axis_name: str | None = None
) -> dict[str, Array]:
    """Evaluate a batch: sums over the examples that its mask marks, and what the model said of each of them.

    Args:
        state: the state to evaluate.
        batch: "image" (batch, height, width, channels), normalised; "label" (batch,) int32; "index" (batch,)
            int32, the example's position in the data set; "mask" (batch,) bool, False where it is padding.
        merge: what `create_train_state` returned.
        loss: loss(float32 logits, one-hot target) -> (batch,).
        axis_name: under pmap the name of the axis over which the batch is split.

    Returns:
        The sums "loss", "correct" and "count" and, for each example of the global batch, "index" (-1 where it
        is padding), "prediction" (the class) and "probability" (the softmax of that class).

    Raises:
        ValueError: the loss is not one number per example.

    Example:
        >>> from jaxcnn.training.state import create_train_state
        >>> model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        >>> model.kernel[...] = jnp.eye(2)
        >>> merge, state = create_train_state(model, optax.sgd(0.1))
        >>> batch = {"image": jnp.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]), "label": jnp.array([0, 0, 0]),
        ...     "index": jnp.array([4, 5, 0]), "mask": jnp.array([True, True, False])}
        >>> outputs = eval_step(state, batch, merge=merge, loss=softmax_cross_entropy)
        >>> int(outputs["correct"]), int(outputs["count"]), outputs["index"].tolist()
        (1, 2, [4, 5, -1])
    """
    model = merge(state.params, state.batch_stats)
    model.eval()
    logits = model(batch["image"]).astype(jnp.float32)
    target = jax.nn.one_hot(batch["label"], logits.shape[-1], dtype=logits.dtype)
    losses = _example_losses("eval_step", loss, logits, target)
    prediction, mask = logits.argmax(-1), batch["mask"]

    sums = {
        "loss": jnp.where(mask, losses, 0.0).sum(),
        "correct": (mask & (prediction == batch["label"])).sum(),
        "count": mask.sum(),
    }
    examples = {
        "index": jnp.where(mask, batch["index"], -1),
        "prediction": prediction,
        "probability": jax.nn.softmax(logits).max(-1),
    }
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
        examples = jax.lax.all_gather(examples, axis_name, tiled=True)
    return sums | examples


def _example_losses(name: str, loss: Loss, logits: Array, target: AnyArray) -> Array:
    """Apply the loss after comparing the shapes, which would otherwise broadcast or fail far from here."""
    if logits.shape != target.shape:
        raise ValueError(
            f"{name}: the model gives logits of shape {logits.shape}, expected the target's {target.shape}"
        )
    losses = loss(logits, jnp.asarray(target))
    if losses.shape != logits.shape[:1]:
        raise ValueError(
            f"{name}: loss gives shape {losses.shape}, expected one number per example, {logits.shape[:1]}"
        )
    return losses
