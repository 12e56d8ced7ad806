"""What README.md shows is so."""

import builtins
import re
from pathlib import Path
from typing import Any

import pytest

import jaxcnn.functional as F
from jaxcnn import models

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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


def test_it_names_every_model():
    assert all(name in README for name in models.list_models())
