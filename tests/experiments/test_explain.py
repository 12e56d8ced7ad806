"""explain.py: the page it draws of a run, what it prints, and how it names mistakes."""

import re

import explain
import jax.numpy as jnp
import numpy as np
import pretrained_model
import pytest
import tyro
from flax import nnx
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn.models import create_model
from tests.experiments.tiny_network import picture, tiny_network, tiny_run


def say(capsys, *words) -> list[str]:
    explain.main(tyro.cli(explain.Config, args=[str(word) for word in words]))
    return capsys.readouterr().out.splitlines()


def test_a_run_is_explained_on_one_page(tmp_path, capsys, monkeypatch):
    tiny_network(monkeypatch)
    monkeypatch.chdir(tmp_path)
    run, path = tiny_run(tmp_path / "run"), picture(tmp_path / "<x>.png", (200, 10, 90))
    probability = pretrained_model.from_run(run)
    (row,) = probability.probabilities(probability.prepare(path)[None])
    first, share, last = say(capsys, run, path, "--target", "B", "--box", 0, 0, 1, 0.5)
    assert first == f"{path}: b ({row[1]:.3f})" and last == "runs/explain/<x>.png and runs/explain/<x>.html"
    assert share.startswith("in the box, 50% of the area: Grad-CAM at layer2 ")

    with Image.open(tmp_path / "runs" / "explain" / "<x>.png") as page:
        pixels = np.asarray(page)
        assert page.width == 1872
    assert (pixels != 255).any(-1)[:, :900].any(0).sum() > 600 and (pixels != 255).any(-1)[:, 950:].any()
    text = (tmp_path / "runs" / "explain" / "<x>.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[0] == "What it says" and "Grad-CAM at layer2" in titles and len(titles) == 10
    assert text.count("data:image/png;base64,iVBOR") == 10
    assert "&lt;x&gt;.png: b" in text and "http" not in text


def test_a_network_without_feature_maps_has_the_other_sections(tmp_path):
    model = create_model("mlp", in_channels=1, num_classes=3, rngs=nnx.Rngs(0))
    classifier = pretrained_model.ImageClassifier(
        "mlp",
        ("a", "b", "c"),
        np.load,
        pretrained_model.probabilities(model),
        model,
        lambda x: np.clip(x, 0, 1),
    )
    x = np.random.default_rng(0).uniform(size=(1, 28, 28, 1)).astype(np.float32)
    titles = [section.title for section in explain.sections(classifier, x, classifier.probabilities(x)[0], 1)]
    assert titles == [
        "What it says",
        "Occlusion",
        "Integrated gradients",
        "Saliency",
        "SmoothGrad",
        "Guided backpropagation",
        "Activation maximisation",
    ]


def test_the_likeliest_class_is_the_one_explained(tmp_path, monkeypatch):
    tiny_network(monkeypatch)
    classifier = pretrained_model.from_run(tiny_run(tmp_path / "run"))
    row = np.array([0.2, 0.1, 0.7])
    assert explain.class_number(None, classifier, row) == 2
    assert explain.class_number("B", classifier, row) == 1
    with pytest.raises(ValueError, match="no class 'd'; the likeliest ones here are c, a, b$"):
        explain.class_number("d", classifier, row)


def test_colours_are_those_of_the_file(tmp_path, monkeypatch):
    tiny_network(monkeypatch)
    classifier = pretrained_model.from_run(tiny_run(tmp_path / "run"))
    path = picture(tmp_path / "x.png", (200, 10, 90), size=(12, 10))
    with Image.open(path) as image:
        expected = np.asarray(image) / np.float32(255)
    np.testing.assert_allclose(classifier.colours(classifier.prepare(path)), expected, rtol=0, atol=1e-6)


def test_a_page_has_two_columns_of_pictures_in_their_proportions():
    figure = Figure(figsize=(2, 1), dpi=50, facecolor="red")
    tall = Figure(figsize=(1, 4), dpi=50, facecolor="blue")
    page = explain.column_page([explain.png(figure), explain.png(tall), explain.png(figure)], (100, 120), 10)
    assert page.size == (230, 140)
    pixels = np.asarray(page)
    red, blue = (pixels == (255, 0, 0)).all(-1), (pixels == (0, 0, 255)).all(-1)
    assert red[10:60, 10:110].all() and red[70:120, 10:110].all() and red.sum() == 2 * 100 * 50
    assert blue[10:130, 155:185].all() and blue.sum() == 120 * 30


def test_the_share_in_a_box_counts_what_speaks_for_the_class():
    evidence = np.zeros((1, 4, 10))
    evidence[0, 1, 2], evidence[0, 3, 9], evidence[0, 0, 0] = 3.0, 1.0, -7.0
    figure = Figure()
    figure.subplots()
    looks = [
        explain.Section("Hot", "", figure, jnp.asarray(evidence)),
        explain.Section("Not evidence", "", Figure()),
        explain.Section("Cold", "", Figure(), -jnp.ones((1, 4, 10))),
    ]
    share = explain.in_the_box((0.0, 0.0, 0.5, 0.5), looks)
    assert share == "in the box, 25% of the area: Hot 75%, Cold none anywhere"
    (box,) = figure.axes[0].patches
    assert box.get_extents().transformed(figure.axes[0].transData.inverted()).bounds == pytest.approx(
        (-0.5, -0.5, 5, 2)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a RUN, or --weights FILE and --model NAME"),
        (["run"], "name one image file, got 0"),
        (["run", "x.png", "y.png"], "name one image file, got 2"),
        (["run", "x.png", "--out", "x.jpg"], "--out must end in .png, got x.jpg"),
        (["run", "x.png", "--box", "0.5", "0", "0.5", "1"], "--box must be left < right and top < bottom"),
        (["run", "nothing.png"], "nothing.png"),
        (["run", "x.png", "--target", "d"], "--target: there is no class 'd'"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch, words, message):
    tiny_network(monkeypatch)
    monkeypatch.chdir(tmp_path)
    tiny_run(tmp_path / "run")
    picture(tmp_path / "x.png", (200, 10, 90))
    with pytest.raises(SystemExit) as stopped:
        say(capsys, *words)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 1 and line.startswith("explain: ") and message in line
    assert not (tmp_path / "runs").exists()
