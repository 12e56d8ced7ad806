"""classify.py with weights in a file and with runs: what it prints, and how it names mistakes."""

import classify
import numpy as np
import pretrained_model
import pytest
import tyro
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from jaxcnn import data, models
from jaxcnn.pretrained import imagenet_classes, published, save_weights
from tests.experiments.tiny_network import TINY_DATA, picture, tiny_network, tiny_run
from tests.models.torchvision_oracle import oracle


@pytest.fixture
def pictures(tmp_path):
    """Two that are neither square nor of the model's size."""
    return [picture(tmp_path / f"{i}.png", (250 * i, 100, 30), seed=i, size=(260, 301)) for i in range(2)]


def sensitive(model):
    """The model with logits so large that probabilities depend on the image."""
    model.output.kernel[...] *= 300
    return model


def say(capsys, *words) -> list[str]:
    classify.main(tyro.cli(classify.Config, args=[str(word) for word in words]))
    return capsys.readouterr().out.splitlines()


def complaint(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stopped:
        say(capsys, *words)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_weights_of_our_own_in_a_file(tmp_path, capsys, pictures):
    file = tmp_path / "mine.safetensors"
    model = sensitive(models.create_model("squeezenet1_1", rngs=nnx.Rngs(3)))
    save_weights(model, file)
    x = np.stack([published("squeezenet1_1")[0].preprocessing(data.read_image(path)) for path in pictures])
    expected = pretrained_model.probabilities(model)(x)
    assert np.abs(expected[0] - expected[1]).max() > 0.01

    drawn = tmp_path / "seen.png"
    lines = say(
        capsys, "--weights", file, "--model", "squeezenet1_1", "--top", 2, "--picture", drawn, *pictures
    )
    with Image.open(drawn) as image:
        assert image.size == (880, 528)
    for path, row, line in zip(pictures, expected, lines, strict=True):
        first, second = np.argsort(-row)[:2]
        names = imagenet_classes()
        assert line == f"{path}: {names[first]} ({row[first]:.3f}), {names[second]} ({row[second]:.3f})"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_pytorch_in_a_file(tmp_path, pictures, suffix):
    theirs = oracle("squeezenet1_1").eval()
    torch = pytest.importorskip("torch")

    with torch.no_grad():
        theirs.classifier[1].weight *= 300
    file = tmp_path / f"squeezenet{suffix}"
    state = theirs.state_dict()
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file({key: value.numpy() for key, value in state.items()}, file, metadata={"format": "pt"})
    classifier = pretrained_model.from_weights(file, "squeezenet1_1")
    x = np.stack([classifier.prepare(path) for path in pictures])
    with torch.no_grad():
        expected = torch.softmax(theirs(torch.from_numpy(x).permute(0, 3, 1, 2)), -1).numpy()
    np.testing.assert_allclose(classifier.probabilities(x), expected, rtol=0, atol=1e-4)


def test_the_file_name_chooses_the_preprocessing(tmp_path):
    first, second = published("mobilenet_v2")
    assert first.preprocessing != second.preprocessing
    for weights in (first, second):
        file = tmp_path / weights.file
        assert pretrained_model.published_preprocessing("mobilenet_v2", file) == weights.preprocessing
        same = file.with_suffix(".safetensors")
        assert pretrained_model.published_preprocessing("mobilenet_v2", same) == weights.preprocessing
    other = tmp_path / "other.pth"
    assert pretrained_model.published_preprocessing("mobilenet_v2", other) == first.preprocessing
    assert pretrained_model.published_preprocessing("resnet20", other) is None


def test_a_fine_tuned_run(tmp_path, capsys, monkeypatch):
    tiny_network(monkeypatch)
    run = tiny_run(tmp_path / "run")
    path = picture(tmp_path / "x.png", (200, 10, 90))

    model = models.create_model("tiny", num_classes=3, rngs=nnx.Rngs(0))
    pretrained_model.load_any_weights(model, run / "weights.safetensors")
    pixels = data.read_image(path, size=(12, 10)) / np.float32(255)
    x = (pixels - np.float32(TINY_DATA["mean"])) / np.float32(TINY_DATA["std"])
    (expected,) = pretrained_model.probabilities(model)(x[None])
    (line,) = say(capsys, run, path)
    best = expected.argmax()
    assert line.startswith(f"{path}: {'abc'[best]} ({expected[best]:.3f})")
    assert line.count("(") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a RUN, or --weights FILE and --model NAME"),
        (["nowhere", "x.png"], "nowhere is not the folder of a run: it has no config.json"),
        (["--model", "resnet18", "x.png"], "--model resnet18 goes with --weights FILE"),
        (["--weights", "w.pth", "x.png"], "--weights w.pth needs --model NAME"),
        (["--weights", "w.pth", "--model", "resnet18"], "name at least one image file"),
        (["--weights", "w.pth", "--model", "resnet81", "x.png"], 'did you mean "resnet18"?'),
        (["--weights", "w.pth", "--model", "squeezenet1_1", "x.png"], "there is no file w.pth"),
        (["--weights", "w.pth", "--model", "resnet20", "x.png"], "resnet20 has no published weights"),
        (["nowhere", "x.png", "--top", "0"], "--top must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_named_in_one_line(capsys, words, message):
    assert message in complaint(capsys, *words)


def test_a_run_and_weights_are_not_mixed(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    line = complaint(capsys, "--weights", "w.pth", "--model", "resnet18", tmp_path, "x.png")
    assert "is a run and has its own weights" in line


def test_an_image_where_the_run_belongs(tmp_path, capsys):
    path = picture(tmp_path / "x.png", (1, 2, 3))
    assert "x.png is a file; the first argument is the folder of a run" in complaint(capsys, path)
