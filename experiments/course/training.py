"""What the lessons that train share: the handwritten digits, a short loop and its curves."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from jaxcnn import nn
from jaxcnn.data.stratify import stratified_split
from jaxcnn.training.state import create_train_state
from jaxcnn.training.step import softmax_cross_entropy, train_step

Model = TypeVar("Model", bound=nnx.Module)


class Digits(NamedTuple):
    """Ten classes of examples: images (examples, *spatial, channels) and labels (examples,)."""

    images: Array
    labels: Array


def load_digits() -> tuple[Digits, Digits]:
    """scikit-learn's digits, 8x8 in [0, 1]: 1,437 to train and 360 to test, split as jaxcnn.data does."""
    from sklearn import datasets  # half a second, and only the lessons that train need it

    digits: Any = datasets.load_digits()
    images = jnp.asarray(digits["images"][..., None] / 16, jnp.float32)
    labels = jnp.asarray(digits["target"], jnp.int32)
    train, test = stratified_split(digits["target"])
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def fit(
    model: Model,
    digits: Digits,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int = 64,
    seed: int = 0,
) -> tuple[Model, np.ndarray]:
    """The trained model, in evaluation mode, and the loss of every step; `model` stays as it was."""
    merge, state = create_train_state(model, optimizer)
    step = jax.jit(
        partial(
            train_step,
            merge=merge,
            optimizer=optimizer,
            loss=softmax_cross_entropy,
            set_random_keys=nn.set_random_keys,
        )
    )
    key, losses = jax.random.key(seed), []
    for chosen in _batches(len(digits.labels), batch_size, steps, seed):
        batch = {
            "image": digits.images[chosen],
            "target": jax.nn.one_hot(digits.labels[chosen], 10),
            "index": jnp.asarray(chosen, jnp.int32),
        }
        state, metrics = step(state, batch, key)
        losses.append(metrics["loss"])
    trained: Any = merge(state.params, state.batch_stats)
    trained.eval()
    return trained, np.array(losses)


def accuracy(model: nnx.Module, digits: Digits) -> float:
    """The share of the digits that the model, in evaluation mode, names rightly."""
    right = _logits(*nnx.split(model), digits.images).argmax(-1) == digits.labels
    return float(right.mean(dtype=jnp.float32))


def smooth(losses: np.ndarray, steps: int = 15) -> np.ndarray:
    """The mean of each loss and those just before it: the trend, without the luck of the batches."""
    sums = np.cumsum(np.concatenate([[0.0], losses]))
    last = np.arange(1, len(losses) + 1)
    first = np.maximum(last - steps, 0)
    return (sums[last] - sums[first]) / (last - first)


@partial(jax.jit, static_argnums=0)
def _logits(graphdef: Any, state: Any, images: Array) -> Array:
    return nnx.merge(graphdef, state)(images)  # the weights are arguments, not constants to be compiled in


def _batches(examples: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """The positions of each batch: every epoch in a new order, and what would not fill a batch left out."""
    rng, left = np.random.default_rng(seed), np.empty(0, int)
    for _ in range(steps):
        if len(left) < size:
            left = rng.permutation(examples)
        yield left[:size]
        left = left[size:]
