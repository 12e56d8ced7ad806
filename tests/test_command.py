"""`python -m jaxcnn models`."""

from pathlib import Path

import pytest

from jaxcnn import __main__ as command
from jaxcnn.models import list_models

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_models_is_what_the_command_writes(tmp_path, capsys):
    page = tmp_path / "models.md"
    command.main(["models", "--markdown", str(page)])
    assert page.read_text("utf-8") == (DOCS / "models.md").read_text("utf-8")
    assert all(f"| {name} |" in page.read_text("utf-8") for name in list_models())
    assert "resnet152" in capsys.readouterr().out


def test_a_pattern_chooses(capsys):
    command.main(["models", "resnet5?"])
    shown = capsys.readouterr().out
    assert "25,557,032" in shown and "4.089" in shown and "76.13" in shown and " resnet.py" in shown
    assert "resnet56" in shown and "resnet18" not in shown


def test_a_pattern_without_a_match_says_so(capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(["models", "transformer*"])
    assert exit.value.code == 1
    assert "no model matches 'transformer*'" in capsys.readouterr().err


def test_counting_again_renews_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "COUNTS", tmp_path / "models.csv")
    monkeypatch.setattr(command, "list_models", lambda: ["lenet5", "resnet20"])
    command.main(["models", "--measure"])
    assert [(c.model, c.parameters) for c in command.read_counts()] == [
        ("lenet5", 61_706),
        ("resnet20", 269_722),
    ]
    assert command.read_counts()[0].macs == 416_520  # 117,600 + 240,000 + 48,000 + 10,080 + 840
