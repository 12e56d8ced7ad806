"""Axes in rows and columns, images as they are displayed: what every plot of jaxcnn.interpret begins with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxcnn.functional.checks import AnyArray


def panels(
    rows: int, columns: int, *, cell: float = 1.2, size: tuple[float, float] | None = None
) -> tuple[Figure, list[list[Axes]]]:
    """Axes without ticks and frames, in rows; a cell is square and of `cell` inches."""
    figure = Figure(figsize=size or (cell * columns + 0.4, cell * rows + 0.2), dpi=120, layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, [list(row) for row in grid]


def displayed(function: str, name: str, images: AnyArray) -> np.ndarray:
    """Images (batch, height, width, 3) of floats in [0, 1]."""
    array = np.asarray(images)
    check_rank(function, name, array, "batch height width channels")
    if array.dtype != np.uint8 and not (
        np.issubdtype(array.dtype, np.floating) and array.min() >= 0.0 and array.max() <= 1.0
    ):
        raise ValueError(
            f"{function}: {name} must be images as they are displayed, uint8 or floats in [0, 1], "
            f"got {array.dtype} from {array.min()} to {array.max()}; undo the normalisation"
        )
    return in_colour(array / 255.0 if array.dtype == np.uint8 else array)


def in_colour(image: np.ndarray) -> np.ndarray:
    """Three channels: as they are, or the mean of any other number of channels, in grey."""
    return image if image.shape[-1] == 3 else np.repeat(image.mean(-1, keepdims=True), 3, -1)


def check_titles(function: str, titles: Sequence[str], count: int) -> Sequence[str]:
    """One title for each image, empty ones if there are none."""
    if titles and (isinstance(titles, str) or len(titles) != count):
        raise ValueError(f"{function}: titles must be {count}, one for each image, or none, got {titles!r}")
    return titles or [""] * count


def check_rank(function: str, name: str, array: np.ndarray, axes: str) -> None:
    """Refuse an array that has not these axes, or an empty one."""
    names = axes.split()
    if array.ndim != len(names) or 0 in array.shape:
        raise ValueError(
            f"{function}: {name} must have shape ({', '.join(names)}), no axis empty, got shape {array.shape}"
        )
