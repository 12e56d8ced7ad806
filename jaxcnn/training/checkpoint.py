"""Checkpoints of a train state with orbax: written whole or not at all, and restored bit for bit."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcnn.training.state import TrainState


def save(directory: str | Path, state: TrainState) -> None:
    """Write the state as the checkpoint of its step and remove all but the newest two.

    The checkpoint appears under its name only when it is complete, so a process killed at any moment leaves
    the previous one. A step that is there already is left as it is. Of several processes all call this.

    Args:
        directory: where the checkpoints are; it is made if need be.
        state: the state, as `DataParallel.fetch` gives it.

    Raises:
        ValueError: the state has a leading axis of devices, or the directory holds a later step.
        OSError: the checkpoint cannot be written, because the disk is full for example.

    Example:
        >>> import tempfile
        >>> state = TrainState(step=np.int32(7), params={"w": np.ones(3)}, batch_stats={}, opt_state=())
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save(directory, state)
        ...     latest_step(directory)
        7
    """
    if np.shape(state.step):
        raise ValueError(
            f"save: state.step has shape {np.shape(state.step)}, expected () as DataParallel.fetch gives"
        )
    step, latest = int(state.step), latest_step(directory)
    if step == latest:
        return
    if latest is not None and latest > step:
        raise ValueError(f"save: {directory} holds step {latest}, expected none later than step {step}")
    try:
        with _manager(directory) as manager:
            manager.save(step, args=ocp.args.StandardSave(_by_path(jax.device_get(state))))
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(f"save: step {step} cannot be written to {directory}: {_first_line(error)}") from error


def latest_step(directory: str | Path) -> int | None:
    """The step of the newest complete checkpoint in a directory, None if there is none.

    Args:
        directory: where the checkpoints are; it need not exist.

    Example:
        >>> print(latest_step("/no/such/directory"))
        None
    """
    with _manager(directory, read_only=True) as manager:
        return manager.latest_step()


def restore(directory: str | Path, target: TrainState) -> TrainState:
    """Read the newest checkpoint of a directory.

    Every array is found by its path, such as params.conv.kernel, and its shape and dtype are compared with
    the target's before any is read.

    Args:
        directory: where the checkpoints are.
        target: a state of the same model and optimizer, such as the one `create_train_state` gave, or
            jax.ShapeDtypeStructs in its place.

    Returns:
        The state with the arrays of the checkpoint, in NumPy, bit for bit as they were saved.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint and the target differ in their paths, shapes or dtypes.
        OSError: the checkpoint cannot be read, because a file of it is damaged for example.

    Example:
        >>> import tempfile
        >>> state = TrainState(step=np.int32(7), params={"w": np.ones(3)}, batch_stats={}, opt_state=())
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save(directory, state)
        ...     restore(directory, jax.tree.map(np.zeros_like, state)).params
        {'w': array([1., 1., 1.])}
    """
    with _manager(directory, read_only=True) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"restore: there is no checkpoint in {directory}")
        where = f"restore: step {step} in {directory}"
        expected = _by_path(target)
        with _damaged(where):
            found = manager.item_metadata(step).tree
        _compare(where, found, expected)
        with _damaged(where):
            arrays = manager.restore(step, args=ocp.args.StandardRestore())
    return jax.tree.unflatten(jax.tree.structure(target), [arrays[path] for path in expected])


@contextlib.contextmanager
def _manager(directory: str | Path, *, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """Orbax's manager, which saves before it returns and logs nothing: what fails is raised."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.FATAL)
    try:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            read_only=read_only,
        )
        with ocp.CheckpointManager(
            Path(directory).absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
        ) as manager:
            yield manager
    finally:
        absl.logging.set_verbosity(verbosity)


def _by_path(state: TrainState) -> dict[str, Any]:
    """Name every array by its path, such as params.conv.kernel."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _compare(where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse a checkpoint of another model or optimizer."""
    for path in sorted(found.keys() | expected.keys()):
        ours, theirs = (
            f"{tuple(tree[path].shape)} {np.dtype(tree[path].dtype)}" if path in tree else "nothing"
            for tree in (expected, found)
        )
        if ours != theirs:
            raise ValueError(f"{where} has {theirs} at {path}, expected {ours}")


@contextlib.contextmanager
def _damaged(where: str) -> Iterator[None]:
    """Say in one line whatever orbax stumbles over in a damaged file."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{where} is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
