"""Ordinary mistakes at the command line: one clear line, a non-zero exit, no traceback, nothing written."""

import importlib.util
from pathlib import Path

import classify
import numpy as np
import pytest
import train_classifier
import tyro
from PIL import Image

from jaxcnn.training.console import read_flags
from jaxcnn.training.run import write_json


def save_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def mistake(tmp_path, capsys):
    """Run a script's main with flags and give the one line it leaves on stderr."""

    def run(*flags: object, script=train_classifier) -> str:
        words = [str(flag) for flag in flags]
        if script is train_classifier:
            words = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data"), *words]
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            script.main(tyro.cli(script.Config, args=words))
        assert stopped.value.code not in (0, None)
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Preparing")]
        assert len(lines) == 1, lines
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "digit"], "unknown data set 'digit'; did you mean digits"),
        (["--model", "lenet"], "unknown model 'lenet'; did you mean \"lenet5\"?"),
        (["--dataset", "folder:no/such/folder"], "no/such/folder"),
        (["--dataset", "idx:no/such/folder"], "no/such/folder"),
        (["--dataset", "folder:"], "folder:DIR"),
        (["--batch-size", "2000"], "--batch-size must be at most the 1437 training images, got 2000"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--batch-size", "63"], "batch of 63 does not split over 4 devices"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--learning-rate", "0"], "--learning-rate must be positive, got 0"),
        (["--dropout", "1.5"], "--dropout must be in [0, 1), got 1.5"),
        (["--dropout", "0.5"], "lenet5 has no option dropout"),
        (["--mixup", "-1"], "--mixup must be 0 or more, got -1"),
        (["--image-size", "28", "28"], "lenet5 takes images of 32x32, got --image-size 28x28"),
        (["--mixup", "nan"], "--mixup must be 0 or more, got nan"),
        (["--resume"], "there is no run"),
        (["--resume", "--name", "x"], "there is no run"),
        (["--name", "a/b"], "name must be the name of a folder"),
        (["--seed", "-1"], "--seed must be in [0, 2**32), got -1"),
    ],
)
def test_a_wrong_setting_is_named(mistake, flags, message):
    assert message in mistake(*flags)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_a_stock_set_without_tensorflow_gives_the_command(mistake):
    assert "pip install -e '.[train,tensorflow]'" in mistake("--dataset", "cifar10")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--modle", "lenet5"], "Unrecognized options: --modle, lenet5 Perhaps you meant: --model STR"),
        (["--loss", "hinge"], "invalid choice 'hinge' for argument '--loss'"),
        (["--epochs", "many"], "Error parsing --epochs"),
    ],
)
def test_an_unknown_flag_or_value_is_named_in_one_line(capsys, monkeypatch, flags, message):
    monkeypatch.setattr("sys.argv", ["train_classifier.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        read_flags(train_classifier.Config, "train_classifier")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_classifier: ") and message in line and line.endswith("see --help")


def test_a_folder_that_is_no_data_set_is_explained(mistake, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    assert str(photos) in mistake("--dataset", f"folder:{photos}", "--model", "resnet20")
    (photos / "cat").mkdir()
    assert "cat" in mistake("--dataset", f"folder:{photos}", "--model", "resnet20")
    for i in range(4):
        save_image(photos / "cat" / f"{i}.png", i)
    save_image(photos / "dog" / "0.png")
    assert "dog" in mistake("--dataset", f"folder:{photos}", "--model", "resnet20")
    (photos / "dog" / "1.png").write_text("not an image")
    assert "1.png" in mistake("--dataset", f"folder:{photos}", "--model", "resnet20")


def test_a_run_of_another_configuration_is_not_resumed(mistake, tmp_path):
    run = tmp_path / "old" / "digits-lenet5"
    config = train_classifier.Config(epochs=3, seed=7)
    run.mkdir(parents=True)
    write_json(run / "config.json", train_classifier.decisive_settings(config))
    message = mistake("--resume", "--seed", 7, "--name", run.name, "--runs-dir", run.parent, "--epochs", 4)
    assert message.endswith("was started with epochs 3, not 4")


def test_a_name_that_is_taken_is_not_written_over(mistake, tmp_path):
    run = tmp_path / "old" / "mine"
    run.mkdir(parents=True)
    (run / "precious.txt").write_text("keep")
    assert "exists already" in mistake("--name", "mine", "--runs-dir", run.parent)
    assert [path.name for path in run.iterdir()] == ["precious.txt"]


def test_no_permission_to_write_is_one_line(mistake, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert "file" in mistake("--runs-dir", file / "runs")


@pytest.mark.parametrize(
    ("run", "images", "message"),
    [
        ("nowhere", ["image.png"], "nowhere is not the folder of a run: it has no config.json"),
        ("nowhere", [], "name at least one image file"),
    ],
)
def test_classify_names_what_is_wrong(mistake, run, images, message):
    assert message in mistake(run, *images, script=classify)


def test_a_script_says_in_its_help_what_a_flag_means(capsys):
    for script in (train_classifier, classify):
        with pytest.raises(SystemExit) as stopped:
            tyro.cli(script.Config, args=["--help"])
        assert stopped.value.code == 0
        assert "--" in capsys.readouterr().out
