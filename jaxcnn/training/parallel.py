"""The one place that knows about devices: the same step on one device, by jit over a mesh, or by pmap."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Step = Callable[..., Any]


def data_parallel(kind: Literal["none", "jit", "pmap"] = "jit") -> "DataParallel":
    """Choose how a step runs.

    Args:
        kind: "none" is the first device alone, "jit" is jax.jit over a mesh of the devices of all processes,
            "pmap" is jax.pmap over the devices of one process. They give the same numbers up to rounding.

    Returns:
        The object that places states and batches and compiles steps.

    Raises:
        ValueError: the kind is unknown, or is for one process and there are several.

    Example:
        >>> data_parallel("none").describe(64).startswith("1 ")
        True
    """
    if kind not in ("none", "jit", "pmap"):
        raise ValueError(f"data_parallel: kind {kind!r} is unknown, expected 'none', 'jit' or 'pmap'")
    if kind != "jit" and jax.process_count() > 1:
        raise ValueError(
            f"data_parallel: kind {kind!r} is for one process, got {jax.process_count()}: expected 'jit'"
        )
    if kind == "pmap":
        return PmapParallel(jax.devices())
    return DataParallel(jax.devices()[:1] if kind == "none" else jax.devices())


class DataParallel:
    """A step compiled by jit over a mesh of devices: the state is replicated, the batch is split.

    The step sees global arrays, so its mean over the batch is the global mean; XLA adds the communication.

    Args:
        devices: the devices of the mesh, whose one axis is "data".
    """

    _how = "jit"

    def __init__(self, devices: list[Any]):
        mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        self.devices = devices
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        # The result of a program is memory of its own. device_put may share the memory of what it is given,
        # which the first training step would then overwrite.
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=self._replicated)

    def describe(self, batch_size: int) -> str:
        """Say in one line what the step runs on.

        Args:
            batch_size: the number of examples in a global batch.

        Raises:
            ValueError: the devices do not divide the batch.
        """
        count, per_device = len(self.devices), self._per_device(batch_size)
        platform, model = self.devices[0].platform, self.devices[0].device_kind
        line = f"{count} {platform} device{'s' if count > 1 else ''}"
        if model != platform:
            line += f" ({model})"
        if jax.process_count() > 1:
            line += f" in {jax.process_count()} processes"
        if count == 1:
            return f"{line}, not parallel, batch {batch_size}"
        return f"{line}, parallel by {self._how}, batch {batch_size} = {count} x {per_device}"

    def replicate(self, tree: Any) -> Any:
        """Copy arrays, such as a train state, whole to every device.

        The result shares no memory with the arrays given, so a compiled training step may overwrite it.
        """
        return self._copy(jax.device_get(tree))

    def shard(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Split a batch over the devices.

        Args:
            batch: arrays with the batch as their leading axis; of several processes each gives its own slice.

        Returns:
            The global batch, each device holding its part.

        Raises:
            ValueError: the devices do not divide the batch.
        """
        processes = jax.process_count()
        for x in batch.values():
            self._per_device(processes * x.shape[0])
        if processes == 1:
            return jax.device_put(dict(batch), self._split)
        return {
            name: jax.make_array_from_process_local_data(self._split, np.asarray(x))
            for name, x in batch.items()
        }

    def compile_train(self, step: Step) -> Step:
        """Compile step(state, batch, key) -> (state, metrics); the state given is overwritten (donated).

        Args:
            step: a `train_step` whose keyword arguments are bound, all but axis_name.
        """
        return jax.jit(
            step,
            in_shardings=(self._replicated, self._split, self._replicated),
            out_shardings=self._replicated,
            donate_argnums=0,
        )

    def compile_eval(self, step: Step) -> Step:
        """Compile step(state, batch) -> outputs, which every device gets whole.

        Args:
            step: an `eval_step` whose keyword arguments are bound, all but axis_name.
        """
        return jax.jit(step, in_shardings=(self._replicated, self._split), out_shardings=self._replicated)

    def fetch(self, tree: Any) -> Any:
        """Bring what `replicate` or a compiled step returned back as NumPy arrays, the same for every kind.

        This waits for the device: in a training loop fetch the metrics of every n-th step.
        """
        return jax.device_get(tree)

    def _per_device(self, batch_size: int) -> int:
        """Divide a batch by the devices."""
        count = len(self.devices)
        if batch_size % count or not batch_size:
            raise ValueError(
                f"DataParallel: a batch of {batch_size} does not split over {count} devices, "
                f"expected a multiple of {count}"
            )
        return batch_size // count


class PmapParallel(DataParallel):
    """A step compiled by pmap: each device runs it on its part of the batch and they meet on the axis "data".

    The state has a leading axis of devices, which `fetch` takes away.
    """

    _how = "pmap"

    def __init__(self, devices: list[Any]):
        super().__init__(devices)
        self._copy = jax.jit(
            lambda tree: jax.tree.map(lambda x: jnp.broadcast_to(x, (len(devices), *x.shape)), tree),
            out_shardings=self._split,
        )
        # (batch, ...) -> (devices, batch per device, ...): each device keeps its part.
        self._rows = jax.jit(
            lambda batch: jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch),
            out_shardings=self._split,
        )

    def compile_train(self, step: Step) -> Step:  # noqa: D102
        mapped = jax.pmap(
            partial(step, axis_name="data"),
            axis_name="data",
            in_axes=(0, 0, None),
            devices=self.devices,
            donate_argnums=0,
        )
        return lambda state, batch, key: mapped(state, self._rows(batch), key)

    def compile_eval(self, step: Step) -> Step:  # noqa: D102
        mapped = jax.pmap(partial(step, axis_name="data"), axis_name="data", devices=self.devices)
        return lambda state, batch: mapped(state, self._rows(batch))

    def fetch(self, tree: Any) -> Any:  # noqa: D102
        rows = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
        return jax.tree.map(lambda row: row[0, ...], rows)
