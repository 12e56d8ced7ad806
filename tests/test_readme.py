"""What README.md shows is so."""

import builtins
import re
from pathlib import Path
from typing import Any

import pytest

import jaxcnn.functional as F

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_every_file_it_points_to_is_there():
    targets = re.findall(r"\]\(([\w./-]+)\)", README)
    assert "docs/models.md" in targets
    assert all((ROOT / target).is_file() for target in targets)
