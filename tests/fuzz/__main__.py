"""Fuzz how convolutions are lowered.

python -m tests.fuzz --seed 1 --cases 2000 --minutes 10     the corpus, then drawn cases
python -m tests.fuzz --corpus --repeats 20                  the corpus, each run in a process of its own
python -m tests.fuzz --seed 1 --only 345                    shape 345 of that seed
ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.fuzz                oneDNN's code for older processors

A case is a shape in one form. The exit status is 1 if there was a finding.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import draw, guard
from tests.fuzz.corpus import CORPUS
from tests.fuzz.parent import Batch, Settings, Tally, compute

AT_ONCE = 2  # processes


def main() -> int:
    """Fuzz as the command line says."""
    options = _options()
    settings = Settings(options.seed, options.plant, options.limit)
    tally = Tally()
    end = time.monotonic() + 60 * options.minutes
    batches = _batches(options)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                batch = next(batches, None)
            if batch is None:
                return
            compute(batch, settings, tally, stop)

    with tempfile.TemporaryDirectory(prefix="jaxcnn-fuzz-") as folder:
        settings.library = guard.build(Path(folder))
        if settings.library is None:
            print("No guard pages: there is no C compiler, or it cannot build guard.c.", flush=True)
        lock = threading.Lock()
        threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            if time.monotonic() > end or tally.cases >= options.cases:
                stop.set()
    if settings.library is not None and tally.cases and not tally.blocks:
        print("No block of memory was guarded: the library was not loaded.", flush=True)
    print(tally.summary())
    if options.report:
        options.report.write_text(json.dumps(tally.report() | {"seed": options.seed}, indent=1))
    return bool(tally.findings)


def _batches(options: argparse.Namespace) -> Iterator[Batch]:
    if options.only is not None:
        yield Batch(
            [(options.only, draw.draw(options.seed, options.only))], draw.mode(options.seed, options.only)
        )
        return
    if not options.drawn_only:
        for _ in range(options.repeats):
            for place, entry in enumerate(CORPUS):
                yield Batch([(-1 - place, entry.case)])
    if options.corpus:
        return
    first = 0
    while True:
        numbers = range(first, first + draw.BATCH)
        yield Batch([(n, draw.draw(options.seed, n)) for n in numbers], draw.mode(options.seed, first))
        first += draw.BATCH


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description="Fuzz how convolutions are lowered.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10_000, help="stop after this many")
    parser.add_argument("--minutes", type=float, default=60, help="stop after this long")
    parser.add_argument(
        "--corpus", "--corpus-only", action="store_true", help="the corpus, and nothing drawn"
    )
    parser.add_argument("--repeats", type=int, default=1, help="processes for each case of the corpus")
    parser.add_argument("--drawn-only", action="store_true", help="without the corpus")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one drawn shape")
    parser.add_argument("--limit", type=float, default=60, help="seconds until a program is said to hang")
    parser.add_argument(
        "--plant", default="", metavar="MODULE:FUNCTION", help="called in every process first"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
