"""Numbers in squares, windows around them and plain images: what most pictures of the course are made of."""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLUE, ORANGE = "#3b75af", "#d95f30"
INK, EDGE, PADDING = "#222222", "#b8b8b8", "#ececec"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def numbers(
    axes: Axes,
    values: ArrayLike,
    *,
    title: str = "",
    size: float = 11,
    largest: float | None = None,
    padding: int = 0,
    text: str = "{:g}",
) -> None:
    """Draw a matrix as squares with its numbers in them.

    Row i and column j fill the square from (j, i) to (j + 1, i + 1), y downwards, so that `window` and any
    other drawing speaks of rows and columns. The tint says how large a number is: blue above zero, orange
    below.

    Args:
        axes: where to draw.
        values: a vector (drawn as one row) or a matrix; a NaN leaves its square out.
        title: symbols above the matrix.
        size: of the numbers, in points.
        largest: the value of the deepest tint; by default the largest magnitude of the matrix.
        padding: squares on every side that are drawn in grey, because they are padding.
        text: how a number is written; "" writes none.
    """
    matrix = np.atleast_2d(np.asarray(values, float))
    rows, columns = matrix.shape
    largest = largest or float(np.nanmax(np.abs(matrix), initial=0.0)) or 1.0
    for (i, j), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        added = not (padding <= i < rows - padding and padding <= j < columns - padding)
        face = PADDING if added else _tint(value / largest)
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=face, edgecolor=EDGE, linewidth=0.8))
        colour = "#888888" if added else INK
        words = text.format(value).replace("-", "\N{MINUS SIGN}")
        axes.text(j + 0.5, i + 0.5, words, ha="center", va="center", fontsize=size, color=colour)
    blank(axes, title)
    axes.set(xlim=(-0.1, columns + 0.1), ylim=(rows + 0.1, -0.1), aspect="equal")


def window(
    axes: Axes,
    row: float,
    column: float,
    height: float,
    width: float,
    *,
    colour: str = ORANGE,
    dashed: bool = False,
) -> None:
    """Draw a frame around the squares that a window reads, whose first one is at (row, column)."""
    style = "--" if dashed else "-"
    frame = Rectangle(
        (column, row), width, height, fill=False, edgecolor=colour, linewidth=2.5, linestyle=style, zorder=3
    )
    frame.set_clip_on(False)
    axes.add_patch(frame)


def image(
    axes: Axes, pixels: ArrayLike, *, title: str = "", limits: tuple[float, float] | None = None
) -> None:
    """Draw a matrix of grey values, or (height, width, 3) colours in [0, 1], every pixel a sharp square.

    Args:
        axes: where to draw.
        pixels: the image.
        title: symbols above it.
        limits: what is black and what is white; by default the image's smallest and largest value.
    """
    low, high = limits or (None, None)
    pixels = np.asarray(pixels)
    height, width = pixels.shape[:2]
    extent = (0.0, float(width), float(height), 0.0)  # (row, column) as in `numbers`
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest", extent=extent)
    blank(axes, title)


def blank(axes: Axes, title: str = "") -> None:
    """Take ticks and frame away: what is drawn here needs none."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)


def sign(axes: Axes, symbol: str, *, size: float = 22) -> None:
    """Fill axes that stand between two matrices with a symbol, such as = or +."""
    blank(axes)
    axes.text(0.5, 0.5, symbol, ha="center", va="center", fontsize=size, transform=axes.transAxes)


def in_a_row(figure: Figure, widths: Sequence[float]) -> list[Axes]:
    """Axes side by side, as wide as their matrices have columns."""
    return list(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0])


def _tint(share: float) -> tuple[float, ...]:
    """White for 0, towards blue for 1 and towards orange for -1, never too dark to write on."""
    full = np.array(to_rgb(BLUE if share > 0 else ORANGE))
    return tuple(1.0 - min(abs(share), 1.0) * 0.55 * (1.0 - full))
