"""The fuzzer's own parts, faults planted for it to find, and one short run over what is drawn."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given

from tests.fuzz import draw, guard
from tests.fuzz.check import what_is_wrong
from tests.fuzz.corpus import CORPUS
from tests.fuzz.reference import Reference
from tests.lowering.oracle import errors, problems

ROOT = Path(__file__).parents[2]
NO_GUARD = "there is no C compiler"


def fuzz(folder, *options):
    report = folder / "report.json"
    command = [sys.executable, "-m", "tests.fuzz", "--report", str(report), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert report.is_file(), done.stderr
    return json.loads(report.read_text()), done


@given(problems())
def test_the_reference_is_the_oracle(problem):
    assume(min(problem.output) > 0)
    x, kernel, dy = problem.arrays()
    exact = Reference(problem)
    found = exact.y(x, kernel), exact.dx(kernel, dy), exact.dkernel(x, dy)
    assert max(errors(found, problem.oracle(x, kernel, dy))) < 1e-12


def test_a_seed_draws_the_same_and_another_does_not():
    drawn = [str(draw.draw(3, n)) for n in range(40)]
    assert drawn == [str(draw.draw(3, n)) for n in range(40)]
    assert drawn != [str(draw.draw(4, n)) for n in range(40)]


def test_every_family_dtype_and_kind_of_process_is_drawn():
    cases = [draw.draw(0, n) for n in range(1000)]
    assert {case.origin for case in cases} > {"faces", *draw.USERS}
    assert {case.dtype for case in cases} == {"float32", "bfloat16", "float16"}
    assert {form for case in cases for form in case.forms} == {*draw.FORMS, "pmap", "flax"}
    assert {case.special for case in cases} == {"", "inf", "nan"}
    modes = {draw.mode(0, n) for n in range(0, 3000, draw.BATCH)}
    assert modes == {"plain", "one core", "devices", "threads"}


@pytest.mark.parametrize(
    ("found", "lax", "words"),
    [
        ([1.0, 2], [9, 9], ""),
        ([1.0, 2.1], [1, 2], "wrong by 0.05"),
        ([1.0, 2.0001], [1, 2.0001], ""),
        ([1.0, 2.1], [1, 2.1], "wrong by 0.05"),
        ([np.nan, 2], [1, 2], "inf or nan"),
        ([np.nan, 2], [np.nan, 2], ""),
    ],
    ids=["right", "wrong", "as lax is", "not even lax may", "nan", "nan of lax"],
)
def test_what_is_a_finding(found, lax, words):
    expected = [np.array([1.0, 2])]
    said = what_is_wrong([np.array(found)], expected, 1e-5, lambda: [np.array(lax, float)])
    assert words in said and bool(words) == bool(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "words"), [("wrong_lines", "wrong by 0.001"), ("byte_past_the_end", "past the end of a block")]
)
def test_a_planted_fault_is_found(plant, words, tmp_path):
    if plant == "byte_past_the_end" and guard.build(tmp_path) is None:
        pytest.skip(NO_GUARD)
    number = next(n for n in range(100) if draw.draw(0, n).origin == "dilated line")
    report, done = fuzz(tmp_path, "--only", str(number), "--plant", f"tests.fuzz.plants:{plant}")
    assert done.returncode == 1 and any(words in finding for finding in report["findings"])


@pytest.mark.slow
def test_the_corpus(tmp_path):
    report, _ = fuzz(tmp_path, "--corpus")
    assert report["findings"] == [] and report["cases"] == sum(len(entry.case.forms) for entry in CORPUS)


@pytest.mark.slow
def test_drawn_cases(tmp_path):
    report, _ = fuzz(tmp_path, "--drawn-only", "--seed", "7", "--minutes", "1.7")
    assert report["findings"] == [] and report["cases"] > 50
