"""evaluate.py: which class a folder stands for, the figures, the padded batch, the file."""

import io
import json

import evaluate
import numpy as np
import pytest
import tyro
from flax import nnx
from pretrained_model import ImageClassifier
from rich.console import Console

from jaxcnn import models
from jaxcnn.pretrained import imagenet_classes
from tests.experiments.tiny_network import picture, tiny_network, tiny_weights

NAMES = imagenet_classes()


@pytest.mark.parametrize(
    ("folder", "number"),
    [
        ("Egyptian cat", 285),
        ("egyptian_cat", 285),
        ("EGYPTIAN-cat", 285),
        ("285", 285),
        ("shih tzu", NAMES.index("Shih-Tzu")),
        ("Cardigan", NAMES.index("Cardigan")),
        ("cardigan", NAMES.index("cardigan")),
        ("0", 0),
        ("999", 999),
    ],
)
def test_a_folder_is_called_after_its_class(tmp_path, folder, number):
    assert evaluate.class_number(tmp_path / folder, NAMES) == number


def test_a_name_goes_before_a_number(tmp_path):
    assert evaluate.class_number(tmp_path / "0", ("1", "0")) == 1


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("Egyptain cat", "did you mean Egyptian cat"),
        ("shark", "did you mean great white shark, tiger shark"),
        ("1000", "Sub-folders are called by a class's name or its number, 0 to 999"),
        ("CARDIGAN", "several classes are called so; use one of the numbers"),
    ],
)
def test_an_unknown_folder_is_refused_with_what_is_near(tmp_path, folder, message):
    with pytest.raises(ValueError, match=message):
        evaluate.class_number(tmp_path / folder, NAMES)


def test_folders_that_are_no_classes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate.labelled_files(tmp_path / "nowhere", NAMES)
    with pytest.raises(ValueError, match="has no sub-folders"):
        evaluate.labelled_files(tmp_path, NAMES)
    (tmp_path / "palace").mkdir()
    with pytest.raises(ValueError, match="palace holds no images"):
        evaluate.labelled_files(tmp_path, NAMES)
    (tmp_path / "palace" / "inner").mkdir()
    with pytest.raises(ValueError, match="inner is a folder"):
        evaluate.labelled_files(tmp_path, NAMES)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="has notes.txt beside sub-folders"):
        evaluate.labelled_files(tmp_path, NAMES)


def stub(class_names, prepare, probabilities) -> ImageClassifier:
    """A classifier whose network is never asked."""
    model = nnx.eval_shape(lambda: models.create_model("lenet5", rngs=nnx.Rngs(0)))
    return ImageClassifier("stub", class_names, prepare, probabilities, model, lambda x: x)


def test_batches_have_one_size_and_every_image_counts_once(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(7)]
    sizes = []

    def probabilities(x):
        sizes.append(len(x))
        # The class of an image is its number; the padding would be class 0.
        return np.eye(9, dtype=np.float32)[x[:, 0, 0, 0].astype(int)]

    classifier = stub("abcdefghi", lambda path: np.full((2, 3, 1), int(path.stem), np.float32), probabilities)
    ranked, speed = evaluate.predict(classifier, files, 3)
    assert sizes == [3, 3, 3] and speed > 0
    assert ranked.shape == (7, 5) and ranked[:, 0].tolist() == list(range(7))


def test_figures_of_each_class_and_of_all():
    classifier = stub("abcdef", lambda path: np.zeros(1), lambda x: x)
    labels = np.array([0, 0, 0, 0, 2])
    ranked = np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 5], [5, 4, 3, 2, 0], [2, 0, 1, 3, 4]])
    result = evaluate.summary(classifier, labels, ranked)
    assert (result["images"], result["top1"], result["top5"]) == (5, 0.4, 0.8)
    assert result["classes"] == {
        "a": {"class": 0, "images": 4, "top1": 0.25, "top5": 0.75, "most_often_taken_for": "b"},
        "c": {"class": 2, "images": 1, "top1": 1.0, "top5": 1.0, "most_often_taken_for": None},
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(evaluate.table(result["classes"]))
    text = console.export_text()
    assert "0.250" in text and text.index(" a ") < text.index(" c ")


def test_a_run_on_a_folder(tmp_path, capsys, monkeypatch):
    tiny_network(monkeypatch)
    run, photos = tmp_path / "run", tmp_path / "photos"
    run.mkdir()
    tiny_weights(run / "weights.safetensors", num_classes=2)
    described = {"class_names": ["dog", "cat"], "image_shape": (8, 6, 3), "mean": [0.5] * 3, "std": [0.2] * 3}
    (run / "config.json").write_text(json.dumps({"model": "tiny"}))
    (run / "dataset.json").write_text(json.dumps(described))
    for i in range(3):
        picture(photos / "Cat" / f"{i}.png", (200, 0, 0), seed=i)
    picture(photos / "0" / "0.jpg", (0, 200, 0))
    output = tmp_path / "result.json"
    words = [str(run), str(photos), "--batch-size", "3", "--output", str(output)]
    evaluate.main(tyro.cli(evaluate.Config, args=words))
    result = json.loads(output.read_text())
    assert result["images"] == 4 and {name: row["images"] for name, row in result["classes"].items()} == {
        "dog": 1,
        "cat": 3,
    }
    # There are two classes: the five likeliest are all of them.
    assert result["top5"] == 1.0 and result["top1"] * 4 in range(5)
    assert result["versions"]["jax"] and result["images_per_second"] > 0
    said = capsys.readouterr().out
    assert f"top-1 {result['top1']:.4f}, top-5 1.0000 of 4 images" in said and "most often taken for" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "name one folder of images, got 0"),
        (["--weights", "w.pth", "--model", "resnet18", "a", "b"], "name one folder of images, got 2"),
        (["nowhere", "photos"], "nowhere is not the folder of a run"),
        (["nowhere", "photos", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["nowhere", "photos", "--output", "no/where.json"], "--output: there is no folder no"),
    ],
)
def test_a_mistake_is_named_in_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(tyro.cli(evaluate.Config, args=words))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate: ") and message in line
