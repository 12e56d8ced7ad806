import numpy as np
import pytest
from PIL import Image

from jaxcnn.training import plots
from jaxcnn.training.metrics import confusion_matrix
from jaxcnn.training.plots import Confused, confusion, curves


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    class Recorded(plots.Figure):
        def savefig(self, *args, **options):
            figures.append(self)
            super().savefig(*args, **options)

    monkeypatch.setattr(plots, "Figure", Recorded)
    return figures


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def size(path):
    with Image.open(path) as image:
        return image.size


def mistakes(count, channels, classes, dtype=np.uint8):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 6, 9, channels)).astype(np.uint8)
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    return [Confused(image, i % classes, (i + 1) % classes, 0.9 - i / 20) for i, image in enumerate(images)]


def test_curves_show_every_value_its_average_and_the_evaluations(drawn, tmp_path):
    values = np.random.default_rng(0).random(300)
    history = [{"step": s, "train_loss": values[s - 1], "train_accuracy": s / 300} for s in range(1, 301)]
    history += [{"step": s, "test_loss": 3.0, "test_accuracy": 0.9125} for s in (100, 200, 300)]
    curves(history, tmp_path / "curves.png")
    loss, accuracy = drawn[0].axes
    raw, smooth, test = loss.lines
    np.testing.assert_allclose(raw.get_ydata(), values)
    np.testing.assert_allclose(smooth.get_ydata()[100], values[97:104].mean())
    np.testing.assert_allclose(smooth.get_ydata()[0], values[:4].mean())
    np.testing.assert_array_equal(test.get_xydata(), [[100, 3.0], [200, 3.0], [300, 3.0]])
    assert accuracy.get_title() == "Accuracy (test 91.25%)"
    for axes, label in ((loss, "loss"), (accuracy, "accuracy")):
        assert axes.get_xlabel() == "training step" and axes.get_ylabel() == label
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]
    assert size(tmp_path / "curves.png") == (1320, 504)


def test_a_loss_that_was_not_finite_leaves_a_gap(drawn, tmp_path):
    curves(
        [{"step": s, "train_loss": None if s == 2 else 1.0 * s} for s in (1, 2, 3)],
        tmp_path / "curves.png",
    )
    raw, smooth = drawn[0].axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), [1, np.nan, 3])
    np.testing.assert_array_equal(smooth.get_ydata(), [1, np.nan, 3])


def test_curves_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="curves: none of the 1 records holds a value, expected one of"):
        curves([{"step": 1, "learning_rate": 0.1}], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (3, np.float32), (2, np.uint8)]
)
def test_a_confusion_shows_counts_accuracy_and_the_images(channels, dtype, drawn, tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    matrix = confusion_matrix(labels, np.where(random.random(60) < 0.7, labels, 0), 4)
    wrong = mistakes(12, channels, 4, dtype)
    confusion(matrix, ("cat", "dog", "a $ in_a{name", "unseen"), wrong, tmp_path / "confusion.png")
    heat, *others = drawn[0].axes
    shares = np.asarray(heat.images[0].get_array())
    np.testing.assert_allclose(shares[:3], matrix[:3] / 20)
    assert (shares[3] == 0).all()
    assert sorted(int(text.get_text()) for text in heat.texts) == sorted(matrix[matrix > 0])
    correct = sum(matrix[i, i] for i in range(4))
    assert heat.get_title() == f"Test accuracy {correct / 60:.2%} ({correct} of 60)"
    images = [axes for axes in others if axes.images]
    assert len(images) == 9
    assert images[0].get_title() == "cat \N{RIGHTWARDS ARROW} dog (0.90)"
    assert images[1].get_title() == "dog\n\N{RIGHTWARDS ARROW} a $ in_a{name (0.85)"
    scale = 255 if dtype == np.uint8 else 1
    expected = wrong[0].image / scale
    shown = np.asarray(images[0].images[0].get_array())
    np.testing.assert_allclose(shown, expected if channels == 3 else expected.mean(-1), atol=1e-6)


def test_a_crowded_confusion_has_short_names_for_some_and_no_numbers(drawn, tmp_path):
    labels = np.arange(300) % 100
    names = [f"a class with a very long name, number {i}" for i in range(100)]
    confusion(confusion_matrix(labels, labels, 100), names, mistakes(1, 3, 100), tmp_path / "confusion.png")
    heat = drawn[0].axes[0]
    assert not heat.texts
    ticks = [label.get_text() for label in heat.get_yticklabels()]
    assert len(ticks) == 25 and max(map(len, ticks)) == 18


def test_no_mistakes_are_said(drawn, tmp_path):
    labels = np.arange(10) % 2
    confusion(confusion_matrix(labels, labels, 2), ("cat", "dog"), [], tmp_path / "confusion.png")
    assert "No mistakes" in texts(drawn[0])
    assert size(tmp_path / "confusion.png") == (1560, 792)


def test_names_and_matrix_must_agree(tmp_path):
    matrix = np.eye(3, dtype=int)
    with pytest.raises(ValueError, match="confusion: got 2 class names, expected 3 as the matrix has"):
        confusion(matrix, ("cat", "dog"), [], tmp_path / "confusion.png")
    with pytest.raises(ValueError, match="confusion: the matrix counts no example, expected at least one"):
        confusion(0 * matrix, ("cat", "dog", "cow"), [], tmp_path / "confusion.png")
    assert not list(tmp_path.iterdir())
