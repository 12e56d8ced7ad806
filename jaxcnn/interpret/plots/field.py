"""The plot of an effective receptive field."""

import numpy as np
from jaxtyping import Float
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxcnn.functional.checks import AnyArray, per_axis
from jaxcnn.interpret.plots.panels import check_rank

FIELD, BOX = "#3b75af", "#d95f30"


def effective_receptive_field(
    field: Float[AnyArray, "height width"], *, theoretical: int | tuple[int, int] | None = None
) -> Figure:
    """Draw an effective receptive field, and beside it its sums over the columns and over the rows.

    The colour scale is that of the square root, so that the faint surroundings are seen at all.

    Args:
        field: what `jaxcnn.interpret.effective_receptive_field` returns.
        theoretical: the size of the theoretical receptive field in pixels, drawn as a box around the field's
            centre of mass; None draws no box.

    Returns:
        The figure.

    Raises:
        ValueError: a field that is not (height, width) or holds nothing positive, a size < 1.

    Example:
        >>> figure = effective_receptive_field(np.full((32, 32), 1 / 1024), theoretical=5)
    """
    function = "effective_receptive_field"
    values = np.asarray(field, float)
    check_rank(function, "field", values, "height width")
    if not (values.min() >= 0 and 0 < values.sum() < np.inf):
        raise ValueError(
            f"{function}: field must not be negative and hold something positive, "
            f"got values from {values.min()} to {values.max()}"
        )
    size = None if theoretical is None else per_axis(function, "theoretical", theoretical, 2, minimum=1)
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(values, cmap="viridis", norm=PowerNorm(0.5, 0.0, values.max()))
    left.set_xlabel("x")
    left.set_ylabel("y")
    share = values / values.sum()
    for axis, name, style in ((0, "x", "-"), (1, "y", "--")):
        right.plot(share.sum(axis), style, color=FIELD, label=name)
    right.set_xlabel("x, y")
    right.set_ylim(bottom=0.0)
    right.spines[["top", "right"]].set_visible(False)
    if size is not None:
        height, width = size
        y, x = (float((share.sum(1 - axis) * np.arange(values.shape[axis])).sum()) for axis in (0, 1))
        box = Rectangle(
            (x - width / 2, y - height / 2), width, height, fill=False, edgecolor=BOX, linewidth=2
        )
        left.add_patch(box)
        right.axvspan(x - width / 2, x + width / 2, color=BOX, alpha=0.12, label=f"{height}×{width}")
        right.set_xlim(0, max(values.shape) - 1)
    right.legend(frameon=False)
    return figure
