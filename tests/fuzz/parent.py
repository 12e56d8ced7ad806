"""Starts the processes that compute, reads what they say, and knows which case a dead one was at."""

import json
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.fuzz.draw import Case
from tests.fuzz.worker import MARK, Job

ROOT = Path(__file__).parents[2]
# One core has to be asked for before numpy and jax start their threads.
START = """
import os, sys
if "one core" in sys.argv: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from tests.fuzz.worker import main
main()
"""
LAST_RESORT = re.compile(r"(^|:)(gemm|ref)(:|$)")


class Batch(NamedTuple):
    """Cases by their numbers (negative in the corpus) for processes of one kind."""

    cases: list[tuple[int, Case]]
    mode: str = "plain"


@dataclass
class Settings:
    """What holds for the whole run."""

    seed: int
    plant: str
    limit: float
    library: Path | None = None


@dataclass
class Tally:
    """What came out; several threads add to it."""

    cases: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)  # cases that ran each of oneDNN's codes
    stages: dict[str, float] = field(default_factory=dict)  # seconds
    busy: dict[str, float] = field(default_factory=dict)
    alone: int = 0  # configurations that were run alone
    blocks: int = 0
    processes: int = 0
    onednn: set[str] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, form: str, mode: str, codes: set[str], findings: list[str]) -> None:
        """One case."""
        with self._lock:
            self.cases += 1
            self.forms[form] += 1
            self.modes[mode] += 1
            self.codes.update(codes)
            self.findings += findings
            for finding in findings:
                print(finding, flush=True)

    def spent(self, stage: str, mode: str, seconds: float) -> None:
        """Add to the time of a stage, and of a kind of process."""
        with self._lock:
            self.stages[stage] = self.stages.get(stage, 0) + seconds
            self.busy[mode] = self.busy.get(mode, 0) + seconds

    def count(self, **more: int) -> None:
        """Add to the numbers that are not of one case."""
        with self._lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def report(self) -> dict[str, Any]:
        """The same for JSON."""
        return vars(self) | {"onednn": sorted(self.onednn), "_lock": None}

    def summary(self) -> str:
        """The tally in a few lines."""
        self.seconds = round(time.monotonic() - self.started, 1)

        def listed(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in counter.most_common()) or "none"

        def seconds(table: dict[str, float]) -> str:
            return ", ".join(f"{name} {taken:.0f}" for name, taken in table.items())

        lines = [
            f"{self.cases:,} cases, {len(self.findings)} findings, {self.seconds:.0f} s",
            f"{self.processes} processes: {listed(self.modes)}",
            f"forms: {listed(self.forms)}",
            f"{'; '.join(sorted(self.onednn)) or 'oneDNN was not used'}: {self.alone:,} configurations alone",
            f"cases by oneDNN's code: {listed(self.codes)}",
            f"seconds: {seconds(self.stages)}; {seconds(self.busy)}",
            f"blocks with a guard page: {self.blocks:,}",
        ]
        return "\n".join(lines)


def compute(batch: Batch, settings: Settings, tally: Tally, stop: threading.Event) -> None:
    """Compute a batch, in as many processes as it takes."""
    job = Job(batch.cases, batch.mode, settings.plant)
    while not stop.is_set() and not _Process(job, settings, tally, stop).read():
        pass


class _Process:
    """One process, up to its end; `read` tells whether it came to the end of the job."""

    def __init__(self, job: Job, settings: Settings, tally: Tally, stop: threading.Event) -> None:
        self.job, self.settings, self.tally, self.stop = job, settings, tally, stop
        self.cases = dict(job.cases)
        self.at: dict[str, Any] = {}
        self.codes: set[str] = set()
        self.guard_said = self.version = ""
        self.blocks = 0

    def read(self) -> bool:
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "ONEDNN_VERBOSE": "2"}
        environment["JAX_NUM_CPU_DEVICES"] = "4" if self.job.mode == "devices" else "1"
        if self.settings.library is not None:
            environment["LD_PRELOAD"] = str(self.settings.library)
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", START, self.job.mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
            )
            self.tally.count(processes=1)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(pickle.dumps(self.job))
            process.stdin.close()
            hangs = not self._follow(process.stdout)
            if hangs or self.stop.is_set():
                process.kill()
            status = process.wait()
            process.stdout.close()
            errors.seek(0)
            last_words = errors.read().strip().splitlines()[-1:]
        self.tally.count(blocks=self.blocks)
        if self.stop.is_set() or status == 0:
            return True
        return self._died(status, hangs, last_words)

    def _follow(self, output: IO[bytes]) -> bool:
        """Read until the end, or until nothing new is begun for too long: then False."""
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def fetch() -> None:
            try:
                for line in output:
                    lines.put(line.decode(errors="replace").rstrip("\n"))
            except ValueError:  # closed, after the process was ended
                pass
            lines.put(None)

        threading.Thread(target=fetch, daemon=True).start()
        last = time.monotonic()
        while not self.stop.is_set():
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() - last > self.settings.limit:
                    return False
                continue
            if line is None:
                return True
            if line.startswith(MARK):
                now = time.monotonic()
                self.tally.spent(self.at.get("stage", "begin"), self.job.mode, now - last)
                last = now
                self._mark(json.loads(line.removeprefix(MARK)))
            elif line.startswith("onednn_verbose"):
                self._onednn(line)
            elif line.startswith("guard: "):
                self.guard_said = line
        return True

    def _mark(self, what: dict[str, Any]) -> None:
        if what["stage"] == "end":
            self._end(what["findings"])
            self.blocks = what["blocks"]
        elif what["stage"] == "start":
            self.at = what
        else:
            if what["stage"] == "alone":
                self.tally.count(alone=1)
            self.at = {"number": self.at["number"], "form": self.at["form"], **what}

    def _onednn(self, line: str) -> None:
        fields = line.split(",")
        if "convolution" in fields[:6] and self.at:
            self.codes.add(fields[fields.index("convolution") + 1])
        elif "info" in fields[:4] and re.search(r"oneDNN v|,isa:", line):
            words = line.split("info,")[1].removeprefix("cpu,isa:").split(" (")[0]
            self.version = f"{self.version}, {words}" if self.version else words
            if ",isa:" in line:
                self.tally.onednn.add(self.version)

    def _end(self, words: list[str]) -> None:
        number, form = self.at["number"], self.at["form"]
        words = words + sorted(filter(LAST_RESORT.search, self.codes))
        where = f"--only {number}" if number >= 0 else "corpus"
        kind = "" if self.job.mode == "plain" else f", {self.job.mode}"
        findings = [
            f"FINDING {word} [{form}{kind}, --seed {self.settings.seed} {where}] {self.cases[number]}"
            for word in words
        ]
        self.tally.add(form, self.job.mode, self.codes, findings)
        self.job.done.add((number, form))
        self.at, self.codes = {}, set()

    def _died(self, status: int, hangs: bool, last_words: list[str]) -> bool:
        if not self.at:
            self.tally.add(
                "none", self.job.mode, set(), [f"FINDING a process ended with {status}: {last_words}"]
            )
            return True
        how = f"no end in {self.settings.limit:.0f} s" if hangs else _name(status)
        if self.guard_said and not hangs:
            how += f" ({self.guard_said.removeprefix('guard: ')})"
        stage, key = self.at["stage"], (self.at["number"], self.at["form"])
        if stage == "alone":
            self.job.deadly.add(self.at["key"])
            how += f", alone: {self.at['configuration']}"
        elif hangs and stage in ("trace", "compile") and key not in self.job.endless:
            self.job.endless.add(key)  # the next process asks lax
            return False
        elif not (hangs and stage == "lax" and key in self.job.endless):
            how += f", {stage}"
        else:
            self._end([])  # neither does lax
            return False
        self._end([f"{how} {last_words}" if status > 0 else how])
        return False


def _name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"
