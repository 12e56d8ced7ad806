"""What README.md, README.ko.md and docs/ show is so: their code runs, their commands and files are there."""

import builtins
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro
from course.korean_readme import korean_readme

import jaxcnn.functional as F

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

DOCUMENTS = {
    path.name: path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
}


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that the Python blocks leave behind, run in their order."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    return names


def test_the_code_gives_the_shapes_it_says(names):
    assert names["y"].shape == (8, 7, 8, 16)
    assert names["logits"].shape == (2, 10)
    assert {name: x.shape[1:] for name, x in names["maps"].items()} == {
        "layer1": (32, 32, 16),
        "layer3": (8, 8, 64),
    }


def test_the_messages_are_those_it_shows(names, unchecked):
    shown = re.findall(r"^>>> (.*)\n(\w+Error): (.*)$", README, re.MULTILINE)
    assert len(shown) == 3
    for call, error, message in shown:
        with pytest.raises(getattr(builtins, error), match=f"^{re.escape(message)}$"):
            eval(call, names)


def test_it_names_every_function():
    assert set(F.__all__) <= set(re.findall(r"`(\w+)`", README))


def test_the_backbone_of_the_pyramid_gives_its_three_levels(names):
    assert [names[level].shape for level in ("p3", "p4", "p5")] == [
        (1, 8, 12, 64),
        (1, 4, 6, 64),
        (1, 2, 3, 64),
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_it_points_to_is_there(document):
    folder = ROOT if document.startswith("README") else ROOT / "docs"
    targets = re.findall(r"\]\(([\w./-]+)[#)]", DOCUMENTS[document])
    assert all((folder / target).is_file() for target in targets)


def test_it_points_to_its_pages():
    assert {"docs/models.md", "docs/lessons.md"} <= set(re.findall(r"\]\(([\w./-]+)\)", README))


def test_no_document_has_code_that_is_not_run():
    ran = set(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    for document, text in DOCUMENTS.items():
        assert set(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) <= ran, document


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the documents that starts one of the scripts: its script and its flags."""
    blocks = [
        block for text in DOCUMENTS.values() for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    ]
    found = []
    for line in (line for block in blocks for line in block.replace("\\\n", "").splitlines()):
        match shlex.split(line.removeprefix("$ "), comments=True) if line.startswith(STARTS) else []:
            case ["make", target, *variables] if target in MAKES:
                flags = [value.removeprefix("ARGS=") for value in variables if value.startswith("ARGS=")]
                found.append((MAKES[target], shlex.split(" ".join(flags))))
            case [python, script, *flags] if python.endswith("python") and script.startswith("experiments/"):
                found.append((Path(script).stem, flags))
    return found


STARTS = ("make ", "python ", "$ python ", "$ .venv/bin/python ")
MAKES = {"train": "train_classifier", "lessons": "lessons"}


def test_every_command_has_flags_that_the_script_takes():
    assert len(commands()) >= 12
    for script, flags in commands():
        if flags != ["--help"]:
            tyro.cli(importlib.import_module(script).Config, args=flags)


def test_the_korean_readme_is_made_from_this_one():
    lessons = DOCUMENTS["lessons.ko.md"].partition("\n1. ")[2].partition("\n\n")[0]
    contents = "1. " + lessons.replace("](#", "](docs/lessons.ko.md#") + "\n"
    assert DOCUMENTS["README.ko.md"] == korean_readme(README, contents)


def test_a_korean_readme_of_code_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"README.md has 0 code blocks that begin with 'git clone'"):
        korean_readme("# Nothing", "")
