"""fine_tune.py: a frozen network stays bit for bit, the head learns, learning rates fall with depth."""

import json

import classify
import fine_tune
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_classifier
import tyro
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file

from jaxcnn import models
from jaxcnn.training.metrics import read_metrics
from tests.experiments.tiny_network import picture, tiny_network, tiny_weights

COLOURS = {"green": (40, 180, 60), "red": (190, 40, 50)}


@pytest.fixture
def tune(tmp_path, monkeypatch):
    """Fine-tune the tiny network on pictures of two colours; gives the weights before and the run."""
    tiny_network(monkeypatch)
    weights = tiny_weights(tmp_path / "tiny.safetensors", num_classes=5)
    for name, colour in COLOURS.items():
        for i in range(20):
            picture(tmp_path / "photos" / name / f"{i}.png", colour, seed=i)

    def run(*flags, weights=weights.name, model="tiny", folder="photos"):
        words = [tmp_path / folder, "--weights", tmp_path / weights, "--model", model, "--batch-size", 8]
        words += ["--image-size", 12, 10, "--learning-rate", 0.05, "--name", "run"]
        words += ["--runs-dir", tmp_path / "runs", "--data-dir", tmp_path / "data", *flags]
        fine_tune.main(tyro.cli(fine_tune.Config, args=[str(word) for word in words]))
        return load_file(tmp_path / weights), tmp_path / "runs" / "run"

    return run


def test_frozen_epochs_leave_the_network_as_it_was_and_the_head_learns(tune):
    before, run = tune("--epochs", 4, "--frozen-epochs", 4)
    after = load_file(run / "weights.safetensors")
    assert after.keys() == before.keys()
    assert {"stem.norm.mean", "stem.norm.var", "layers.1.0.branch.0.conv.kernel"} <= before.keys()
    for name in before:
        if not name.startswith("output."):
            assert after[name].tobytes() == before[name].tobytes(), name
    assert after["output.kernel"].shape == (8, 2)
    records = read_metrics(run / "metrics.jsonl")
    tests = [record["test_loss"] for record in records if "test_loss" in record]
    assert len(tests) == 4 and tests[-1] < 0.8 * tests[0]
    assert json.loads((run / "summary.json").read_text())["test_accuracy"] == 1.0
    assert all(record["frozen"] for record in records if "train_loss" in record)


def test_then_everything_is_trained_and_the_run_is_complete(tune, capsys, tmp_path):
    before, run = tune("--epochs", 3, "--frozen-epochs", 1)
    after = load_file(run / "weights.safetensors")
    trained = [name for name in before if not name.startswith("output.")]
    assert not [name for name in trained if (after[name] == before[name]).all()]
    records = [record for record in read_metrics(run / "metrics.jsonl") if "train_loss" in record]
    assert [record["frozen"] for record in records] == [True, False, False, False]
    assert json.loads((run / "summary.json").read_text())["test_accuracy"] == 1.0
    assert json.loads((run / "config.json").read_text())["model"] == "tiny"
    assert json.loads((run / "dataset.json").read_text())["class_names"] == ["green", "red"]
    pixels = np.asarray(Image.open(run / "curves.png").convert("L"))
    assert min(pixels.shape) > 300 and pixels.std() > 5

    said = capsys.readouterr().out
    assert "18 of them in a new output layer" in said
    assert "epochs 1 to 1: the output layer alone, learning rate 0.05" in said
    rates = "output 0.05, layers.1 0.035, layers.0 0.024, stem 0.017"
    assert f"epochs 2 to 3: everything, learning rates {rates}" in said

    path = picture(tmp_path / "new.png", COLOURS["red"], seed=99)
    classify.main(classify.Config(paths=(run, path)))
    assert capsys.readouterr().out.startswith(f"{path}: red (")


def test_grey_images_are_shown_to_the_network_in_three_channels(tune, tmp_path):
    for shade in (40, 200):
        for i in range(20):
            path = picture(tmp_path / "grey" / str(shade) / f"{i}.png", (shade, shade, shade), seed=i)
            Image.open(path).convert("L").save(path)
    _, run = tune("--epochs", 1, "--frozen-epochs", 0, folder="grey")
    described = json.loads((run / "dataset.json").read_text())
    assert described["image_shape"] == [12, 10, 3] and len(described["mean"]) == 3
    (record,) = [record for record in read_metrics(run / "metrics.jsonl") if "train_loss" in record]
    assert not record["frozen"]


def abstract(name):
    return nnx.eval_shape(lambda: models.create_model(name, rngs=nnx.Rngs(0)))


def test_learning_rates_fall_in_the_order_of_the_forward_pass():
    # ConvNeXt's attributes are two lists of which the forward pass takes an entry in turn.
    factors = fine_tune.layer_factors(abstract("convnext_tiny"), (64, 96), 0.5)
    order = ["output", "norm", "layers.3", "downsample.3", "layers.2", "downsample.2"]
    order += ["layers.1", "downsample.1", "layers.0", "downsample.0"]
    assert factors == {name: 0.5**i for i, name in enumerate(order)}


def test_an_auxiliary_classifier_counts_as_the_end():
    factors = fine_tune.layer_factors(abstract("inception_v3"), (299, 299), 0.5)
    assert factors["output"] == factors["aux"] == 1 and factors["mixed.10"] == 0.5
    assert min(factors.values()) == factors["conv1a"] == 0.5**16


def test_a_step_is_smaller_the_deeper_the_layer(monkeypatch):
    tiny_network(monkeypatch)
    model = models.create_model("tiny", num_classes=2, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    factors = fine_tune.layer_factors(model, (12, 10), 0.5)
    config = train_classifier.Config(learning_rate=0.01, weight_decay=0.0)
    optimizer, _ = fine_tune.whole_optimizer(config, 1, factors)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    # Adam's first step is the learning rate, whatever the gradient.
    sizes = {"output": 0.01, "layers.1": 0.005, "layers.0": 0.0025, "stem": 0.00125}
    for path, update in jax.tree.leaves_with_path(updates):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        (size,) = (size for part, size in sizes.items() if name.startswith(f"{part}."))
        np.testing.assert_allclose(update, -size, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frozen-epochs", 3, "--epochs", 2], "--frozen-epochs must be in [0, 2], the epochs, got 3"),
        (["--layer-decay", 0], "--layer-decay must be in (0, 1], got 0"),
        (["--learning-rate", -1], "--learning-rate must be positive, got -1"),
        (["--batch-size", 400], "--batch-size must be at most the 32 training images, got 400"),
        (["--weights", "no.pth"], "--weights: there is no file no.pth"),
        (["--name", "a/b"], "name must be the name of a folder"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tune, capsys, tmp_path, flags, message):
    with pytest.raises(SystemExit) as stopped:
        tune(*flags)
    assert stopped.value.code == 1 and not (tmp_path / "runs").exists()
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("Preparing")]
    assert len(lines) == 1 and lines[0].startswith("fine_tune: ") and message in lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"weights": "text.pth"}, "text.pth is text; expected a .pth or .safetensors file"),
        ({"model": "tinny"}, 'did you mean "tiny"?'),
        ({"folder": "nowhere"}, "there is no folder"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(tune, capsys, tmp_path, flags, message):
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(SystemExit) as stopped:
        tune(**flags)
    assert stopped.value.code == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("Preparing")]
    assert len(lines) == 1 and message in lines[0]
