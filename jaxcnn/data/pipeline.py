"""Batches for training and evaluation.

A batch is a dict of arrays on the device: "image" uint8 (batch, height, width, channels), "label" int32
(batch,) and "index" int32 (batch,), the position of the example in its split; for evaluation also "mask" bool
(batch,).
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8

from jaxcnn.data.split import Split, StreamedSplit
from jaxcnn.functional.checks import as_int

Batch = dict[str, Array]

ORDER = 2**32 - 2
"""Folded into the key of a seed for the order of the examples."""


def training_batches(
    split: Split | StreamedSplit, batch_size: int, *, seed: int, start_step: int = 0
) -> Iterator[Batch]:
    """Shuffled batches without end.

    Each epoch is a new permutation of the split, drawn from (seed, epoch), and has len(split) // batch_size
    steps; what is left over is dropped, so that no example comes twice in an epoch. The batch of a step
    depends on the seed and the step alone: a run that goes on at `start_step` sees what an uninterrupted one
    would have seen, and a streamed split gives the same batches as one on the device.

    With several processes each yields its own rows of every global batch: process p of P those from p *
    batch_size / P.

    Args:
        split: the examples.
        batch_size: examples per step, over all processes.
        seed: 0 to 2**32 - 1.
        start_step: the step of the first batch; 0 is the beginning of the first epoch.

    Returns:
        An endless iterator of {"image", "label", "index"}.

    Raises:
        ValueError: a batch larger than the split, or one that the processes do not divide.

    Example:
        >>> split = Split(np.zeros((10, 8, 6, 1), np.uint8), np.arange(10))
        >>> batch = next(training_batches(split, 4, seed=0))
        >>> {name: array.shape for name, array in batch.items()}
        {'image': (4, 8, 6, 1), 'index': (4,), 'label': (4,)}
    """
    batch_size = as_int("training_batches", "batch_size", batch_size, minimum=1)
    seed = as_int("training_batches", "seed", seed, minimum=0)
    start_step = as_int("training_batches", "start_step", start_step, minimum=0)
    if seed >= 2**32:
        raise ValueError(f"training_batches: seed must be less than 2**32, got {seed}")
    if batch_size > len(split):
        raise ValueError(
            f"training_batches: batch_size must be at most {len(split)}, "
            f"the number of training examples, got {batch_size}"
        )
    first, rows = _own_rows("training_batches", batch_size)
    steps_per_epoch = len(split) // batch_size

    if isinstance(split, Split):
        return _shuffled(split, seed, steps_per_epoch, batch_size, start_step, first, rows)

    def example(number: int) -> dict[str, np.generic | np.ndarray]:
        step, row = divmod(number, rows)
        epoch, step = divmod(step, steps_per_epoch)
        return _numbered(
            split, int(_host_permutation(seed, epoch, len(split))[step * batch_size + first + row])
        )

    return _stream(example, range(start_step * rows, 2**62), rows)


def evaluation_batches(split: Split | StreamedSplit, batch_size: int) -> Iterator[Batch]:
    """Every example exactly once, in order.

    The last batch is filled up to `batch_size` with copies of the last example, whose mask is False: a mean
    over the split is sum(mask * value) / sum(mask), summed over all batches. So every batch has one shape,
    any batch size will do, and all batch sizes give the same result.

    With several processes each yields its own rows of every global batch, as `training_batches` does.

    Args:
        split: the examples.
        batch_size: examples per batch, over all processes.

    Returns:
        An iterator of {"image", "label", "index", "mask"}.

    Raises:
        ValueError: a batch that the processes do not divide.

    Example:
        >>> split = Split(np.zeros((5, 8, 6, 1), np.uint8), np.arange(5))
        >>> for batch in evaluation_batches(split, 3):
        ...     print(batch["label"], batch["mask"])
        [0 1 2] [ True  True  True]
        [3 4 4] [ True  True False]
    """
    batch_size = as_int("evaluation_batches", "batch_size", batch_size, minimum=1)
    first, rows = _own_rows("evaluation_batches", batch_size)
    starts = range(first, len(split) + first, batch_size)

    if isinstance(split, Split):
        return (_in_order(*split.on_device, start, rows) for start in starts)

    def example(number: int) -> dict[str, np.generic | np.ndarray]:
        batch, row = divmod(number, rows)
        place = starts[batch] + row
        return {**_numbered(split, min(place, len(split) - 1)), "mask": np.bool_(place < len(split))}

    return _stream(example, range(len(starts) * rows), rows)


def _own_rows(function: str, batch_size: int) -> tuple[int, int]:
    """First row and number of rows of this process in a global batch."""
    processes = jax.process_count()
    if batch_size % processes:
        raise ValueError(
            f"{function}: batch_size must be a multiple of the {processes} processes, got {batch_size}"
        )
    rows = batch_size // processes
    return jax.process_index() * rows, rows


def _shuffled(
    split: Split, seed: int, steps_per_epoch: int, batch_size: int, start_step: int, first: int, rows: int
) -> Iterator[Batch]:
    for epoch in itertools.count(start_step // steps_per_epoch):
        order = _permutation(np.uint32(seed), epoch, len(split))
        for step in range(start_step % steps_per_epoch, steps_per_epoch):
            yield _gather(*split.on_device, order, step * batch_size + first, rows)
        start_step = 0


@functools.partial(jax.jit, static_argnums=2)
def _permutation(seed: np.uint32 | Array, epoch: int | Array, examples: int) -> Int[Array, " examples"]:
    # Models and experiments draw from the same seed; ORDER keeps these keys apart from theirs.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), ORDER), epoch)
    return jax.random.permutation(key, jnp.arange(examples, dtype=jnp.int32))


@functools.lru_cache(maxsize=4)
def _host_permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    return np.asarray(_permutation(np.uint32(seed), epoch, examples))


@functools.partial(jax.jit, static_argnums=4)
def _gather(
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    order: Int[Array, " examples"],
    start: int | Array,
    rows: int,
) -> Batch:
    index = lax.dynamic_slice(order, (start,), (rows,))
    return {"image": images[index], "label": labels[index], "index": index}


@functools.partial(jax.jit, static_argnums=3)
def _in_order(
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    start: int | Array,
    rows: int,
) -> Batch:
    place = start + jnp.arange(rows, dtype=jnp.int32)
    mask: Bool[Array, " rows"] = place < len(images)
    index = jnp.minimum(place, len(images) - 1)
    return {"image": images[index], "label": labels[index], "index": index, "mask": mask}


def _numbered(split: StreamedSplit, index: int) -> dict[str, np.generic | np.ndarray]:
    example = split[index]
    return {"image": example["image"], "label": np.int32(example["label"]), "index": np.int32(index)}


def _stream(
    example: Callable[[int], dict[str, np.generic | np.ndarray]], numbers: range, rows: int
) -> Iterator[Batch]:
    """Batches of examples that grain's threads read ahead."""
    import grain  # a quarter of a second, which sets on the device need not wait for

    examples = grain.MapDataset.range(numbers.start, numbers.stop).map(example)
    return map(jax.device_put, examples.to_iter_dataset().batch(rows))
