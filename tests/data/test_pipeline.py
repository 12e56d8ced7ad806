"""Batches: which examples come, in which order, on which process."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from jaxcnn.data import Split, StreamedSplit, evaluation_batches, pipeline, training_batches

EXAMPLES = 23


def held_split(examples=EXAMPLES):
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (examples, 4, 6, 3), np.uint8), rng.integers(0, 10, examples))


def streamed_split(examples=EXAMPLES):
    split = held_split(examples)
    return StreamedSplit(split.__getitem__, len(split))


both_kinds = pytest.mark.parametrize("make_split", [held_split, streamed_split])


def take(batches, number):
    return [jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, number)]


def assert_same_batches(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def as_process(monkeypatch, process, processes):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(jax, "process_count", lambda: processes)


@both_kinds
@pytest.mark.parametrize("batch_size", [1, 5, 8, EXAMPLES])
def test_an_epoch_has_every_example_at_most_once_and_drops_the_remainder(make_split, batch_size):
    split = make_split()
    steps = len(split) // batch_size
    batches = take(training_batches(split, batch_size, seed=3), 3 * steps)
    for epoch in range(3):
        index = np.concatenate([batch["index"] for batch in batches[epoch * steps : (epoch + 1) * steps]])
        assert len(index) == steps * batch_size == len(set(index.tolist()))
        assert set(index.tolist()) <= set(range(EXAMPLES))


@both_kinds
def test_images_and_labels_belong_to_the_index(make_split):
    split, held = make_split(), held_split()
    for batch in take(training_batches(split, 5, seed=0), 8) + take(evaluation_batches(split, 5), 5):
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"], held.images[batch["index"]])
        np.testing.assert_array_equal(batch["label"], held.labels[batch["index"]])


@both_kinds
def test_batches_are_dicts_of_arrays_on_the_device(make_split):
    for batches in (training_batches(make_split(), 4, seed=0), evaluation_batches(make_split(), 4)):
        assert all(isinstance(array, jax.Array) for array in next(batches).values())


@both_kinds
def test_epochs_and_seeds_have_permutations_of_their_own(make_split):
    def orders(seed):
        batches = take(training_batches(make_split(), EXAMPLES, seed=seed), 3)
        return [tuple(batch["index"].tolist()) for batch in batches]

    assert len({*orders(0), *orders(1), *orders(2**32 - 1)}) == 9
    assert orders(1) == orders(1)


@both_kinds
@pytest.mark.parametrize("start_step", [0, 1, 3, 4, 9])
def test_a_later_start_is_the_same_as_skipping(make_split, start_step):
    split = make_split()
    skipped = take(training_batches(split, 5, seed=7), start_step + 6)[start_step:]
    assert_same_batches(take(training_batches(split, 5, seed=7, start_step=start_step), 6), skipped)


def test_a_streamed_split_gives_the_batches_of_a_held_one():
    assert_same_batches(
        take(training_batches(streamed_split(), 6, seed=5, start_step=2), 7),
        take(training_batches(held_split(), 6, seed=5, start_step=2), 7),
    )
    assert_same_batches(
        list(map(dict, evaluation_batches(streamed_split(), 6))),
        list(map(dict, evaluation_batches(held_split(), 6))),
    )


def test_the_shuffle_is_uniform():
    """Each example is equally often in the first batch."""
    epochs, size = 600, 6
    batches = training_batches(held_split(), size, seed=1)
    steps = EXAMPLES // size
    counts = np.zeros(EXAMPLES)
    for batch in itertools.islice(batches, 0, epochs * steps, steps):
        counts[np.asarray(batch["index"])] += 1
    share = size / EXAMPLES
    assert np.all(np.abs(counts - epochs * share) < 5 * np.sqrt(epochs * share * (1 - share)))


@both_kinds
@pytest.mark.parametrize("batch_size", [1, 7, EXAMPLES, 40])
def test_evaluation_has_every_example_exactly_once_in_order(make_split, batch_size):
    batches = take(evaluation_batches(make_split(), batch_size), 1000)
    assert len(batches) == -(-EXAMPLES // batch_size)
    assert all(array.shape[0] == batch_size for batch in batches for array in batch.values())
    index = np.concatenate([batch["index"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.dtype == bool
    np.testing.assert_array_equal(index[mask], np.arange(EXAMPLES))
    assert np.all(index[~mask] == EXAMPLES - 1)


@both_kinds
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_global_batch(make_split, processes, monkeypatch):
    split = make_split()
    whole = take(training_batches(split, 6, seed=2, start_step=1), 7), take(evaluation_batches(split, 6), 4)
    parts = []
    for process in range(processes):
        as_process(monkeypatch, process, processes)
        parts.append(
            (take(training_batches(split, 6, seed=2, start_step=1), 7), take(evaluation_batches(split, 6), 4))
        )
    assert all(array.shape[0] == 6 // processes for array in jax.tree.leaves(parts))
    assert_same_batches(jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts), whole)


def test_evaluation_on_processes_covers_a_last_batch_that_begins_beyond_the_split(monkeypatch):
    split = held_split(5)
    found = []
    for process in range(2):
        as_process(monkeypatch, process, 2)
        batches = take(evaluation_batches(split, 4), 10)
        assert (
            len(batches) == 2
        )  # the same number on every process, or they would wait for each other for ever
        found += [batch["index"][batch["mask"]] for batch in batches]
    assert sorted(np.concatenate(found).tolist()) == list(range(5))


def test_steps_of_a_held_split_are_compiled_once():
    gather: Any = pipeline._gather
    before = gather._cache_size()
    take(training_batches(held_split(), 9, seed=0), 7)
    assert gather._cache_size() == before + 1


def test_wrong_batches_are_refused_at_the_call(monkeypatch, unchecked):
    split = held_split()
    with pytest.raises(ValueError, match="training_batches: batch_size must be at most 23, .* got 24"):
        training_batches(split, 24, seed=0)
    with pytest.raises(ValueError, match="training_batches: batch_size must be at least 1, got 0"):
        training_batches(split, 0, seed=0)
    with pytest.raises(ValueError, match="evaluation_batches: batch_size must be at least 1, got -1"):
        evaluation_batches(split, -1)
    with pytest.raises(TypeError, match=r"training_batches: batch_size must be an int, got 2\.0"):
        training_batches(split, 2.0, seed=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="training_batches: seed must be at least 0, got -1"):
        training_batches(split, 2, seed=-1)
    with pytest.raises(ValueError, match=r"training_batches: seed must be less than 2\*\*32"):
        training_batches(split, 2, seed=2**32)
    with pytest.raises(ValueError, match="training_batches: start_step must be at least 0"):
        training_batches(split, 2, seed=0, start_step=-1)
    as_process(monkeypatch, 0, 2)
    with pytest.raises(
        ValueError, match="training_batches: batch_size must be a multiple of the 2 processes, got 5"
    ):
        training_batches(split, 5, seed=0)
    with pytest.raises(
        ValueError, match="evaluation_batches: batch_size must be a multiple of the 2 processes"
    ):
        evaluation_batches(split, 5)


def test_wrong_arrays_are_refused(unchecked):
    images = np.zeros((3, 4, 6, 1), np.uint8)
    with pytest.raises(ValueError, match="Split: images must be uint8 .* got float32"):
        Split(images.astype(np.float32), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"Split: images must be uint8 .* shape \(3, 4, 6\)"):
        Split(images[..., 0], np.zeros(3, int))
    with pytest.raises(
        ValueError, match=r"Split: images .* none of them 0, got uint8 of shape \(0, 4, 6, 1\)"
    ):
        Split(images[:0], np.zeros(0, int))
    with pytest.raises(
        ValueError, match=r"Split: labels must have one class number per image, shape \(3,\), got \(2,\)"
    ):
        Split(images, np.zeros(2, int))
    with pytest.raises(ValueError, match="Split: labels must be at least 0, got -1 at position 2"):
        Split(images, np.array([0, 1, -1]))


def test_labels_of_a_streamed_split():
    np.testing.assert_array_equal(streamed_split().labels, held_split().labels)
    assert streamed_split().labels.dtype == np.int32


def test_an_error_while_streaming_reaches_the_caller():
    def read(index):
        raise OSError(f"cannot read example {index}")

    with pytest.raises(OSError, match="cannot read example"):
        next(evaluation_batches(StreamedSplit(read, 4), 2))
