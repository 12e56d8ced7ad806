"""A process that computes a batch of cases, and says before every step what it is about to do.

Its standard output holds oneDNN's own lines as well, and ends anywhere if the process does.
"""

import contextlib
import importlib
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import jaxcnn
from tests.fuzz import check, forms
from tests.fuzz.draw import Case
from tests.fuzz.guard import Guard
from tests.fuzz.onednn import Configuration, configurations
from tests.fuzz.reference import Reference

RUNS = 4
SLOW, FAST = 5.0, 1.0  # seconds of a compilation
OPERATIONS = 300  # for one convolution
MARK = "@fuzz "


@dataclass
class Job:
    """What the parent sends: cases by their numbers, and what earlier processes of the batch came to."""

    cases: list[tuple[int, Case]]
    mode: str = "plain"
    plant: str = ""
    done: set[tuple[int, str]] = field(default_factory=set)
    deadly: set[str] = field(default_factory=set)  # configurations that ended a process
    endless: set[tuple[int, str]] = field(default_factory=set)  # forms that were compiled for too long


def main() -> None:
    """Compute the job that is read from standard input."""
    job: Job = pickle.load(sys.stdin.buffer)
    if job.plant:
        module, name = job.plant.split(":")
        getattr(importlib.import_module(module), name)()
    _Worker(job).work()


def _say(**what: Any) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(what)}\n")
    sys.stdout.flush()


class _Worker:
    def __init__(self, job: Job) -> None:
        self.job, self.guard = job, Guard()
        self.known = set(job.deadly)

    def work(self) -> None:
        for number, case in self.job.cases:
            for name in case.forms:
                if (number, name) in self.job.done:
                    continue
                _say(number=number, form=name, stage="start")
                findings = self.attempt(case, name, (number, name) in self.job.endless)
                _say(number=number, form=name, stage="end", findings=findings, blocks=self.guard.blocks)
            jax.clear_caches()

    def attempt(self, case: Case, name: str, endless: bool) -> list[str]:
        """The findings of a form, of which an error is one unless lax raises it too."""
        try:
            return self.compare_with_lax(case, name) if endless else self.compute(case, name)
        except Exception as error:
            try:
                _lowered(forms.form(case, name), _arrays(case, name), name, False).compile()
            except Exception:
                return []
            return [f"raises {type(error).__name__}: {str(error).splitlines()[0][:200]}"]

    def compute(self, case: Case, name: str) -> list[str]:
        form, arrays = forms.form(case, name), _arrays(case, name)
        _say(stage="trace")
        with _timed() as tracing:
            lowered = _lowered(form, arrays, name)
        text = lowered.as_text()
        findings, operations = [], text.count(" stablehlo.")
        if operations > OPERATIONS * form.convolutions:
            findings.append(f"{operations:,} operations for {form.convolutions} convolutions")
        if operations > 2 * OPERATIONS * form.convolutions:
            return findings  # it might be compiled for minutes
        instructions = configurations(text)
        for configuration in instructions:
            if configuration.key not in self.known:
                self.known.add(configuration.key)
                findings += self.alone(configuration)
        if any(configuration.key in self.job.deadly for configuration in instructions):
            return [*findings, "not run: a configuration of it ends the process alone"]
        _say(stage="compile")
        with _timed() as compiling:
            compiled = lowered.compile()
        seconds = tracing() + compiling()
        if seconds > SLOW:
            findings += self.compare_with_lax(case, name, seconds)
        _say(stage="run")
        results = self.run(
            compiled, arrays, at_once=2 if self.job.mode == "threads" else 1, put=name != "pmap"
        )
        _say(stage="check")
        with np.errstate(invalid="ignore"):  # inf - inf
            expected = form.reference(*arrays)
        if case.dtype == "float16" and max(abs(array).max(initial=0) for array in expected) > 3e4:
            return findings  # float16 ends at 65504

        def plain() -> Any:
            _say(stage="lax")
            with jaxcnn.accelerate(False):
                return _lowered(form, arrays, name, False).compile()(*arrays)

        return findings + _verdict(results, expected, check.limit(case.problem, case.dtype), plain)

    def alone(self, configuration: Configuration) -> list[str]:
        """The findings of one instruction whose every operand has a guard page."""
        _say(stage="alone", configuration=str(configuration), key=configuration.key)
        problem = configuration.problem
        arrays = problem.arrays()[:2]
        compiled = jax.jit(configuration.function()).lower(*arrays).compile()
        results = [[y] for y in self.run(compiled, arrays)]

        def plain() -> Any:
            with jaxcnn.accelerate(False):
                return [jax.jit(problem.conv)(*arrays)]

        expected = [Reference(problem).y(*arrays)]
        words = _verdict(results, expected, check.limit(problem, "float32"), plain)
        return [f"{each}, alone: {configuration}" for each in words]

    def run(self, compiled: Any, arrays: Any, *, at_once: int = 1, put: bool = True) -> list[Any]:
        """The results of four runs, or of four times two by two threads at once."""
        results: list[Any] = []

        def once() -> None:
            # Copies, which are guarded as XLA's own arrays are; pmap makes its own.
            given = [jax.device_put(array, may_alias=False) for array in arrays] if put else arrays
            results.append(jax.device_get(jax.block_until_ready(compiled(*given))))

        with self.guard.on():
            for _ in range(RUNS):
                threads = [threading.Thread(target=once) for _ in range(at_once - 1)]
                for thread in threads:
                    thread.start()
                once()
                for thread in threads:
                    thread.join()
        return results

    def compare_with_lax(self, case: Case, name: str, seconds: float | None = None) -> list[str]:
        """A finding, if lax compiles at once what took `seconds`, or longer than the parent waited."""
        _say(stage="lax")
        form, arrays = forms.form(case, name), _arrays(case, name)
        with _timed() as by_lax:
            _lowered(form, arrays, name, False).compile()
        if by_lax() > FAST:
            return []
        took = "too long" if seconds is None else f"{seconds:.0f} s"
        return [f"compiles in {took}, lax in {by_lax():.1f} s"]


def _arrays(case: Case, name: str) -> Any:
    arrays = forms.examples(case)
    return forms.of_devices(arrays) if name == "pmap" else arrays


def _lowered(form: Any, arrays: Any, name: str, accelerated: bool = True) -> Any:
    """The program before it is compiled."""
    with jaxcnn.accelerate(accelerated):

        def function(*given: Any) -> Any:  # a new one: jax keeps what it traced by the function
            return form.function(*given)

        return (jax.pmap if name == "pmap" else jax.jit)(function).lower(*arrays)


def _verdict(results: list[Any], expected: Any, allowed: float, plain: Callable[[], Any]) -> list[str]:
    first, *others = [b"".join(array.tobytes() for array in result) for result in results]
    findings = ["differs between runs"] if any(other != first for other in others) else []
    for result in results if findings else results[:1]:
        wrong = check.what_is_wrong(result, expected, allowed, plain)
        if wrong:
            return [*findings, wrong]
    return findings


@contextlib.contextmanager
def _timed() -> Any:
    """Seconds by the clock or of the processor, whichever is less: the machine may be shared."""
    clock, processor = time.monotonic(), time.process_time()
    taken = [0.0]
    yield lambda: taken[0]
    taken[0] = min(time.monotonic() - clock, time.process_time() - processor)
