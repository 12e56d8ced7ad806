"""Timing calls against each other: in turns, in one process, on so many CPU cores."""

import gc
import importlib.metadata
import importlib.util
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxcnn.training.run import environment

TURN = 0.02
"""Seconds that a turn takes at least: a call that is shorter is made more often."""

KEEP_MEMORY = ":".join(
    (
        "glibc.malloc.mmap_max=0",
        "glibc.malloc.trim_threshold=17179869184",
        "glibc.malloc.top_pad=268435456",
        "glibc.malloc.arena_max=1",
    )
)
"""GLIBC_TUNABLES under which freed memory stays with the process.

By default every array above 32 MB is given back to the system, and the next one costs a page fault for every
4 KB: on a virtual machine that is several times the arithmetic, in every library, and differs by chance from
run to run.
"""

RIVALS = ("torch", "torchvision", "keras", "dm-haiku", "equinox")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that a call takes, and what it gives."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


class Timing(NamedTuple):
    """The median time of a call in seconds, and what its first call gave."""

    seconds: float
    result: Any


def medians(calls: Mapping[str, Callable[[], Any]], *, repetitions: int, seconds: float) -> dict[str, Timing]:
    """The median time of each call.

    The calls take turns, to and fro, so that a machine that slows down slows all of them. Before the turn of
    a short call the process rests, because the threads of the library that was timed before spin for a while,
    and one call that does not count wakes this library's own.

    Args:
        calls: by name, functions that return when their result is there.
        repetitions: turns of each call, after a first call that does not count.
        seconds: a call has no further turn once it has been timed for so long; it has one in any case.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    first = {name: Timing(*timed(call)) for name, call in calls.items()}
    gc.collect()
    for turn in range(repetitions):
        for name in [*calls][:: -1 if turn % 2 else 1]:
            if times[name] and sum(times[name]) >= seconds:
                continue
            expected = min([first[name].seconds, *times[name]])
            if expected < TURN:
                time.sleep(0.005)
                calls[name]()
            count = max(1, min(round(TURN / expected), 100))
            times[name] += [timed(calls[name])[0] for _ in range(count)]
    return {name: Timing(statistics.median(values), first[name].result) for name, values in times.items()}


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean, NaN of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


@contextmanager
def process_on(cores: int) -> Iterator[Executor]:
    """A process of its own on so many CPU cores: JAX and PyTorch start in it and see no others.

    Raises:
        ValueError: the machine does not let this process have so many cores.
    """
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= cores <= len(available):
        raise ValueError(f"--cores must be from 1 to {len(available)}, got {cores}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(cores,)) as executor:
        # The new process inherits both, and reads the second before it starts Python.
        os.sched_setaffinity(0, available[:cores])
        tunables = os.environ.get("GLIBC_TUNABLES")
        os.environ.setdefault("GLIBC_TUNABLES", KEEP_MEMORY)
        try:
            executor.submit(os.getpid).result()
        finally:
            os.sched_setaffinity(0, available)
            if tunables is None:
                del os.environ["GLIBC_TUNABLES"]
        yield executor


def installed(module: str) -> bool:
    """Whether a module can be imported, which is not done."""
    return importlib.util.find_spec(module) is not None


def circumstances() -> dict[str, Any]:
    """What the figures of this process depend on: machine, versions, date and command."""
    found = environment(jax.devices())
    rivals = {name: importlib.metadata.version(name) for name in RIVALS if _has(name)}
    return found | {
        "versions": found["versions"] | rivals,
        "processor": _processor(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "date": date.today().isoformat(),
    }


def command() -> str:
    """The command line that this process was started with."""
    return shlex.join(["python", *sys.argv])


def _start(cores: int) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed too
    if installed("torch"):
        importlib.import_module("torch").set_num_threads(cores)


def _has(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def _processor() -> str:
    """The processor's name, with the widest vectors it has where Linux says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = next((v for v in ("avx512f", "avx2", "avx") if v in facts.get("flags", "").split()), "")
    return f"{facts.get('model name', platform.machine())} {vectors}".strip()
