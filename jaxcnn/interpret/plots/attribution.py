"""Plots of what a class owes to each pixel: an image a row, its evidence beside it and over it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxcnn.functional.checks import AnyArray, per_axis
from jaxcnn.interpret.plots.panels import check_rank, check_titles, displayed, in_colour, panels

Extent = tuple[float, float, float, float]


def saliency(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch height width"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw how strongly a class answers to each pixel: the image, the strength, the image where it is strong.

    The scale of an image ends at its 99th percentile: a few pixels are far stronger than all others.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.saliency` returns.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row.

    Raises:
        ValueError: images that are neither uint8 nor in [0, 1], values or titles of another number, values
            of another rank.

    Example:
        >>> figure = saliency(np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 32, 32)), ("cat",))
    """
    return _strength("saliency", images, values, titles)


def smooth_grad(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch height width"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw what `jaxcnn.interpret.smooth_grad` returns, as `saliency` does.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.smooth_grad` returns.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> figure = smooth_grad(np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 32, 32)))
    """
    return _strength("smooth_grad", images, values, titles)


def integrated_gradients(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch height width channels"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw which pixels speak for a class (red) and which against it (blue).

    A pixel's value is the sum over its channels. White is 0; the scale is symmetric and ends at the 99th
    percentile of the absolute values.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.integrated_gradients` returns.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row: the image, the values, the values over the image in grey.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
        >>> figure = integrated_gradients(np.zeros((1, 32, 32, 3), np.uint8), values)
    """
    function = "integrated_gradients"
    values = np.asarray(values, float)
    check_rank(function, "values", values, "batch height width channels")
    return _signed(function, images, values.sum(-1), titles)


def occlusion(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch rows columns"],
    titles: Sequence[str] = (),
    *,
    window: int | tuple[int, int],
    stride: int | tuple[int, int],
) -> Figure:
    """Draw by how much covering each place changes a class: red where what was covered speaks for it.

    Every value is drawn around the centre of its window.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.occlusion` returns.
        titles: one for each image, such as its class; none if empty.
        window: height and width of the window that `occlusion` was given.
        stride: pixels between two windows, likewise.

    Returns:
        The figure, an image a row: the image, the values, the values over the image in grey.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> figure = occlusion(np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 7, 7)), window=8, stride=4)
    """
    function = "occlusion"
    (height, width), (down, right) = (
        per_axis(function, name, value, 2, minimum=1)
        for name, value in (("window", window), ("stride", stride))
    )
    rows, columns = np.shape(values)[1:3] if np.ndim(values) == 3 else (0, 0)
    top, left = (height - 1 - down) / 2, (width - 1 - right) / 2
    return _signed(function, images, values, titles, (left, left + columns * right, top + rows * down, top))


def grad_cam(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch rows columns"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw where a class was seen, as heat over the image.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.grad_cam` returns, stretched to the size of the images.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row: the image, the heat, both.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> figure = grad_cam(np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 7, 7)))
    """
    function = "grad_cam"
    figure, rows = _rows(function, images, values, titles, columns=3, rank="batch height width")
    for (left, middle, right), image, value in rows:
        extent = _extent(image)
        left.imshow(image)
        for axes in (middle, right):
            axes.imshow(_grey(image), extent=extent)
            alpha = 1.0 if axes is middle else 0.55
            axes.imshow(value, cmap="inferno", extent=extent, interpolation="bilinear", vmin=0.0, alpha=alpha)
    return figure


def guided_backpropagation(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch height width channels"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw the image beside what guided backpropagation left of it: grey is 0, colours are its channels.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.guided_backpropagation` returns.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
        >>> figure = guided_backpropagation(np.zeros((1, 32, 32, 3), np.uint8), values)
    """
    return _around_grey("guided_backpropagation", images, values, titles)


def deconvnet(
    images: Num[AnyArray, "batch height width channels"],
    values: Float[AnyArray, "batch height width channels"],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw the image beside its reconstruction by a deconvnet: grey is 0, colours are its channels.

    Args:
        images: the images as they are displayed, uint8 or floats in [0, 1].
        values: what `jaxcnn.interpret.deconvnet` returns.
        titles: one for each image, such as its class; none if empty.

    Returns:
        The figure, an image a row.

    Raises:
        ValueError: as `saliency`.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
        >>> figure = deconvnet(np.zeros((1, 32, 32, 3), np.uint8), values)
    """
    return _around_grey("deconvnet", images, values, titles)


def _strength(function: str, images: AnyArray, values: AnyArray, titles: Sequence[str]) -> Figure:
    figure, rows = _rows(function, images, values, titles, columns=3, rank="batch height width")
    for (left, middle, right), image, value in rows:
        share = np.clip(value / _scale(value), 0.0, 1.0)
        left.imshow(image)
        middle.imshow(share, cmap="inferno", extent=_extent(image), vmin=0.0, vmax=1.0)
        # White where the class does not answer.
        right.imshow(image)
        veil = np.ones((*share.shape, 4))
        veil[..., 3] = 1.0 - np.sqrt(share)
        right.imshow(veil, extent=_extent(image))
    return figure


def _signed(
    function: str, images: AnyArray, values: AnyArray, titles: Sequence[str], extent: Extent | None = None
) -> Figure:
    figure, rows = _rows(function, images, values, titles, columns=3, rank="batch height width")
    for (left, middle, right), image, value in rows:
        place, scale = extent or _extent(image), _scale(value)
        left.imshow(image)
        right.imshow(_grey(image), alpha=0.6)
        strength = np.clip(np.abs(value) / scale, 0.0, 1.0) ** 0.5
        for axes, alpha in ((middle, None), (right, strength)):
            axes.imshow(value, cmap="RdBu_r", vmin=-scale, vmax=scale, extent=place, alpha=alpha)
            axes.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    return figure


def _around_grey(function: str, images: AnyArray, values: AnyArray, titles: Sequence[str]) -> Figure:
    figure, rows = _rows(function, images, values, titles, columns=2, rank="batch height width channels")
    for (left, right), image, value in rows:
        left.imshow(image)
        right.imshow(in_colour(np.clip(0.5 + value / (2 * _scale(value)), 0.0, 1.0)))
    return figure


def _rows(
    function: str, images: AnyArray, values: AnyArray, titles: Sequence[str], *, columns: int, rank: str
) -> tuple[Figure, list[tuple[list[Axes], np.ndarray, np.ndarray]]]:
    """A figure, and for each image its row of axes, its displayed form and its values; all are checked."""
    shown = displayed(function, "images", images)
    array = np.asarray(values, float)
    check_rank(function, "values", array, rank)
    if len(array) != len(shown):
        raise ValueError(f"{function}: values must be those of {len(shown)} images, got shape {array.shape}")
    titles = check_titles(function, titles, len(shown))
    figure, grid = panels(len(shown), columns, cell=2.6)
    for row, title in zip(grid, titles, strict=True):
        row[0].set_title(title, size=10, parse_math=False)
    return figure, list(zip(grid, shown, array, strict=True))


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(-1, keepdims=True), 3, -1)


def _scale(value: np.ndarray) -> float:
    """Where a scale ends: the 99th percentile of the absolute values, the largest if that is 0, or 1."""
    size = np.abs(value)
    return float(np.percentile(size, 99)) or float(size.max()) or 1.0


def _extent(image: np.ndarray) -> Extent:
    """Where an array must lie to cover an image, whatever its own size: left, right, bottom, top."""
    return -0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5
