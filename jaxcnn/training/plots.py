"""Pictures of a run: its curves, and which classes it confuses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

TRAIN, TEST = "#3b75af", "#d95f30"


class Confused(NamedTuple):
    """A misclassified image: (height, width, channels), uint8 or float in [0, 1], and what was said of it."""

    image: np.ndarray
    label: int
    prediction: int
    probability: float


def curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw loss and accuracy over the training steps.

    Args:
        history: records as `read_metrics` gives them: "step" and any of "train_loss", "train_accuracy",
            "test_loss", "test_accuracy".
        path: the image file to write; its ending chooses the format.

    Raises:
        ValueError: no record holds any of the four.
    """
    if not any(name in record for record in history for name in _CURVES):
        raise ValueError(
            f"curves: none of the {len(history)} records holds a value, expected one of {_CURVES}"
        )
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _curve(loss_axes, history, "loss")
    _curve(accuracy_axes, history, "accuracy")
    loss_axes.set_title("Loss")
    final = [record["test_accuracy"] for record in history if record.get("test_accuracy") is not None]
    accuracy_axes.set_title(f"Accuracy (test {final[-1]:.2%})" if final else "Accuracy")
    accuracy_axes.yaxis.set_major_formatter("{x:.0%}")
    figure.savefig(path)


def confusion(
    matrix: Int[np.ndarray, "classes classes"],
    class_names: Sequence[str],
    confused: Sequence[Confused],
    path: str | Path,
) -> None:
    """Draw a confusion matrix, and beside it the images that were most confused.

    The colour of a cell is its share of the true class (its row); the number in it is the count.

    Args:
        matrix: counts, the true class by row, the predicted one by column.
        class_names: one for each class.
        confused: misclassified images; the first nine are shown.
        path: the image file to write; its ending chooses the format.

    Raises:
        ValueError: the names are not as many as the classes, or the matrix is empty.
    """
    if len(class_names) != len(matrix):
        raise ValueError(
            f"confusion: got {len(class_names)} class names, expected {len(matrix)} as the matrix has"
        )
    if not matrix.sum():
        raise ValueError("confusion: the matrix counts no example, expected at least one")
    figure = Figure(figsize=(13, 6.6), dpi=120, layout="constrained")
    left, right = figure.add_gridspec(1, 2, width_ratios=(7.2, 5.8), wspace=0.04)
    _heat_map(figure.add_subplot(left), matrix, class_names)
    _gallery(figure, right, class_names, confused[:9])
    figure.savefig(path)


_ARROW = "\N{RIGHTWARDS ARROW}"
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def _curve(axes: Axes, history: Sequence[Mapping[str, Any]], metric: str) -> None:
    """One metric: of the training batches pale, smoothed strong, of the test set with a mark for each."""
    steps, values = _series(history, f"train_{metric}")
    if len(steps):
        axes.plot(steps, values, color=TRAIN, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(values), color=TRAIN, linewidth=1.8, label="train")
    test_steps, test_values = _series(history, f"test_{metric}")
    if len(test_steps):
        axes.plot(test_steps, test_values, color=TEST, linewidth=1.8, marker="o", markersize=4, label="test")
    axes.set_xlabel("training step")
    axes.set_ylabel(metric)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)


def _series(history: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one name; a null becomes nan and leaves a gap."""
    records = [record for record in history if name in record]
    steps = np.array([record["step"] for record in records], float)
    return steps, np.array([record[name] for record in records], float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a fiftieth of the run, of what there is of it at the ends."""
    window = np.ones(max(1, len(values) // 100 * 2 + 1))
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, "same")
    count = np.convolve(finite.astype(float), window, "same")
    return np.where(finite, total / np.maximum(count, 1.0), np.nan)


def _heat_map(axes: Axes, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """The matrix, each row divided by its sum."""
    classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # The square root keeps a confusion of a few per cent visible.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0))
    ticks = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=ticks, format="{x:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)

    if classes <= 20:
        size = min(13, 110 / classes)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[i, j] > 0.3 else "black"
            axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", size=size, color=colour)
    # About 25 names fit along an axis: of more classes every second, fourth, ... is named.
    ticks = range(0, classes, -(-classes // 25))
    names = [_short(class_names[tick], 18) for tick in ticks]
    size = 9 if len(names) <= 12 else 7
    axes.set_xticks(ticks, names, size=size, parse_math=False)
    axes.set_yticks(ticks, names, size=size, parse_math=False)
    if sum(map(len, names)) > 40:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    correct, count = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"Test accuracy {correct / count:.2%} ({correct} of {count})")


def _gallery(
    figure: Figure, place: SubplotSpec, class_names: Sequence[str], confused: Sequence[Confused]
) -> None:
    """Up to nine images in a square, each under what it is and what it was taken for."""
    grid = place.subgridspec(4, 3, height_ratios=(0.1, 1, 1, 1))
    heading = figure.add_subplot(grid[0, :])
    heading.axis("off")
    text = f"Most confused: true {_ARROW} predicted (probability)" if confused else "No mistakes"
    heading.text(0.5, 1.0, text, ha="center", va="top", size=12)
    for i, (image, label, prediction, probability) in enumerate(confused):
        axes = figure.add_subplot(grid[1 + i // 3, i % 3])
        axes.axis("off")
        true, predicted = _short(class_names[label], 14), _short(class_names[prediction], 14)
        arrow = f"\n{_ARROW} " if len(true + predicted) > 10 else f" {_ARROW} "
        axes.set_title(f"{true}{arrow}{predicted} ({probability:.2f})", size=8.5, parse_math=False)
        # Colour images as they are, all others as the grey mean of their channels.
        shown = image / 255.0 if image.dtype == np.uint8 else image
        shown = shown if shown.shape[-1] == 3 else shown.mean(-1)
        axes.imshow(np.clip(shown, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)


def _short(name: str, length: int) -> str:
    """Cut a long name."""
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
