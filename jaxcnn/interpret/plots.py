"""Pictures of what the functions of jaxcnn.interpret return, each under the name of its function.

Every function returns a matplotlib Figure, which a notebook shows and figure.savefig(path) writes. Images are
taken as they are displayed: uint8, or floats in [0, 1]; what was normalised is brought back before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxcnn.functional.checks import AnyArray, as_int, per_axis

FIELD, BOX = "#3b75af", "#d95f30"

Extent = tuple[float, float, float, float]


def feature_maps(
    maps: Mapping[str, Num[AnyArray, "batch height width channels"]], *, channels: int = 8
) -> Figure:
    """Draw the first channels of each stage, a stage a row, for the first image of the batch.

    Every map has its own scale, dark for its smallest value and bright for its largest.

    Args:
        maps: what `jaxcnn.interpret.feature_maps` returns for spatial stages.
        channels: how many channels of a stage to draw.

    Returns:
        The figure.

    Raises:
        ValueError: no maps, one that is not (batch, height, width, channels), channels < 1.

    Example:
        >>> figure = feature_maps({"c1": np.zeros((1, 28, 28, 6)), "s2": np.zeros((1, 14, 14, 6))})
        >>> len(figure.axes)
        12
    """
    function = "feature_maps"
    channels = as_int(function, "channels", channels, minimum=1)
    arrays = {tap: np.asarray(value, float) for tap, value in maps.items()}
    if not arrays:
        raise ValueError(f"{function}: maps must hold at least one stage, got {maps!r}")
    for tap, value in arrays.items():
        _check_rank(function, f"maps[{tap!r}]", value, "batch height width channels")
    columns = min(channels, max(value.shape[-1] for value in arrays.values()))
    figure, grid = _grid(len(arrays), columns)
    for row, (tap, value) in zip(grid, arrays.items(), strict=True):
        height, width, count = value.shape[1:]
        for channel, axes in enumerate(row):
            if channel >= count:
                figure.delaxes(axes)
                continue
            axes.imshow(value[0, :, :, channel], cmap="viridis")
            axes.set_title(f"{channel}", size=8, pad=2)
        row[0].set_ylabel(f"{tap}\n{height}×{width}×{count}", size=9, parse_math=False)
    return figure


def first_filters(filters: Num[AnyArray, "height width in_channels filters"]) -> Figure:
    """Draw the kernel of a convolution, a filter a tile: in colour if it looks at three channels.

    The filters of a convolution on other than 3 channels are drawn channel by channel, a filter a column, red
    where they are positive and blue where they are negative. Zero is grey, or white; every filter is scaled
    to its own largest absolute value.

    Args:
        filters: what `jaxcnn.interpret.first_filters` returns.

    Returns:
        The figure.

    Raises:
        ValueError: an array that is not (height, width, in_channels, filters).

    Example:
        >>> figure = first_filters(np.random.default_rng(0).normal(size=(5, 5, 3, 16)))
    """
    function = "first_filters"
    kernel = np.asarray(filters, float)
    _check_rank(function, "filters", kernel, "height width in_channels filters")
    height, width, in_channels, count = kernel.shape
    kernel = kernel / np.maximum(np.abs(kernel).max((0, 1, 2)), 1e-30)
    tiles = kernel.transpose(3, 2, 0, 1)  # (filters, in_channels, height, width)
    if in_channels == 3:
        columns = int(np.ceil(np.sqrt(count)))
        picture = _mosaic(0.5 + tiles.transpose(0, 2, 3, 1) / 2, columns)
    elif in_channels == 1:
        columns = int(np.ceil(np.sqrt(count)))
        picture = _mosaic(tiles[:, 0, :, :, None], columns)[..., 0]
    else:
        columns = count
        picture = _mosaic(tiles.swapaxes(0, 1).reshape(-1, height, width, 1), columns)[..., 0]
    rows, columns = picture.shape[:2]
    figure, ((axes,),) = _grid(1, 1, size=(6.0 * min(1.0, columns / rows), 6.0 * min(1.0, rows / columns)))
    axes.imshow(picture, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    axes.set_title(f"{height}×{width}×{in_channels}, {count}", size=9)
    return figure


def maximize_activation(
    images: Num[AnyArray, "images height width channels"], titles: Sequence[str] = ()
) -> Figure:
    """Draw images that maximise units, side by side.

    Args:
        images: results of `jaxcnn.interpret.maximize_activation`, stacked and brought back to [0, 1].
        titles: what they maximise, one for each; none if empty.

    Returns:
        The figure.

    Raises:
        ValueError: images that are not (images, height, width, channels), that are neither uint8 nor in
            [0, 1], titles of another number.

    Example:
        >>> figure = maximize_activation(np.full((2, 32, 32, 3), 0.5), ("logits 3", "logits 8"))
    """
    function = "maximize_activation"
    shown = _displayed(function, "images", images)
    titles = _titles(function, titles, len(shown))
    columns = min(5, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = _grid(rows, columns, cell=2.2)
    for i, axes in enumerate(axes for row in grid for axes in row):
        if i < len(shown):
            axes.imshow(shown[i])
            axes.set_title(titles[i], size=9, pad=3, parse_math=False)
        else:
            figure.delaxes(axes)
    return figure


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
    _check_rank(function, "values", values, "batch height width channels")
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
    _check_rank(function, "field", values, "height width")
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


def nearest_images(
    x: Num[AnyArray, "batch height width channels"],
    images: Num[AnyArray, "images image_height image_width channels"],
    indices: Int[AnyArray, "batch count"],
    distances: Float[AnyArray, "batch count"],
) -> Figure:
    """Draw each image, left, beside those that a network sees as nearest to it, with their distances.

    Args:
        x: the images that were asked about, as they are displayed: uint8 or floats in [0, 1].
        images: the images that were chosen from, likewise.
        indices: what `jaxcnn.interpret.nearest_images` returns first.
        distances: what it returns second.

    Returns:
        The figure, an image of x a row.

    Raises:
        ValueError: images that are neither uint8 nor in [0, 1], arrays whose shapes do not fit, an index that
            is out of range.

    Example:
        >>> images = np.random.default_rng(0).uniform(size=(9, 8, 8, 1))
        >>> figure = nearest_images(images[:1], images, np.array([[0, 4]]), np.array([[0.0, 0.5]]))
    """
    function = "nearest_images"
    asked = _displayed(function, "x", x)
    places, lengths = np.asarray(indices), np.asarray(distances)
    if places.ndim != 2 or places.shape != lengths.shape or len(places) != len(asked):
        raise ValueError(
            f"{function}: indices and distances must have shape ({len(asked)}, count), a row for each image "
            f"of x, got {places.shape} and {lengths.shape}"
        )
    if places.size and not (0 <= places.min() and places.max() < len(images)):
        raise ValueError(
            f"{function}: indices must be in [0, {len(images)}), got {places.min()} to {places.max()}"
        )
    figure, grid = _grid(len(asked), 1 + places.shape[1], cell=1.4)
    for row, image, near, far in zip(grid, asked, places, lengths, strict=True):
        row[0].imshow(image)
        for spine in row[0].spines.values():
            spine.set(visible=True, color=BOX, linewidth=2)
        shown = _displayed(function, "images", images[near])
        for axes, neighbour, index, distance in zip(row[1:], shown, near, far, strict=True):
            axes.imshow(neighbour)
            axes.set_title(f"#{index}  {distance:.3g}", size=8, pad=2)
    grid[0][0].set_title("x", size=9, pad=2)
    return figure


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
        right.imshow(_in_colour(np.clip(0.5 + value / (2 * _scale(value)), 0.0, 1.0)))
    return figure


def _rows(
    function: str, images: AnyArray, values: AnyArray, titles: Sequence[str], *, columns: int, rank: str
) -> tuple[Figure, list[tuple[list[Axes], np.ndarray, np.ndarray]]]:
    """A figure, and for each image its row of axes, its displayed form and its values; all are checked."""
    shown = _displayed(function, "images", images)
    array = np.asarray(values, float)
    _check_rank(function, "values", array, rank)
    if len(array) != len(shown):
        raise ValueError(f"{function}: values must be those of {len(shown)} images, got shape {array.shape}")
    titles = _titles(function, titles, len(shown))
    figure, grid = _grid(len(shown), columns, cell=2.6)
    for row, title in zip(grid, titles, strict=True):
        row[0].set_title(title, size=10, parse_math=False)
    return figure, list(zip(grid, shown, array, strict=True))


def _grid(
    rows: int, columns: int, *, cell: float = 1.2, size: tuple[float, float] | None = None
) -> tuple[Figure, list[list[Axes]]]:
    """Axes without ticks and frames, in rows; a cell is square and of `cell` inches."""
    figure = Figure(figsize=size or (cell * columns + 0.4, cell * rows + 0.2), dpi=120, layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, [list(row) for row in grid]


def _displayed(function: str, name: str, images: AnyArray) -> np.ndarray:
    """Images (batch, height, width, 3) of floats in [0, 1]."""
    array = np.asarray(images)
    _check_rank(function, name, array, "batch height width channels")
    if array.dtype != np.uint8 and not (
        np.issubdtype(array.dtype, np.floating) and array.min() >= 0.0 and array.max() <= 1.0
    ):
        raise ValueError(
            f"{function}: {name} must be images as they are displayed, uint8 or floats in [0, 1], "
            f"got {array.dtype} from {array.min()} to {array.max()}; undo the normalisation"
        )
    return _in_colour(array / 255.0 if array.dtype == np.uint8 else array)


def _in_colour(image: np.ndarray) -> np.ndarray:
    """Three channels: as they are, or the mean of any other number of channels, in grey."""
    return image if image.shape[-1] == 3 else np.repeat(image.mean(-1, keepdims=True), 3, -1)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(-1, keepdims=True), 3, -1)


def _scale(value: np.ndarray) -> float:
    """Where a scale ends: the 99th percentile of the absolute values, the largest if that is 0, or 1."""
    size = np.abs(value)
    return float(np.percentile(size, 99)) or float(size.max()) or 1.0


def _extent(image: np.ndarray) -> Extent:
    """Where an array must lie to cover an image, whatever its own size: left, right, bottom, top."""
    return -0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (number, height, width, channels) in rows, a blank pixel between two."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    picture = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.nan)
    for i, tile in enumerate(tiles):
        top, left = (height + 1) * (i // columns), (width + 1) * (i % columns)
        picture[top : top + height, left : left + width] = tile
    return picture if channels == 1 else np.nan_to_num(picture, nan=1.0)


def _titles(function: str, titles: Sequence[str], count: int) -> Sequence[str]:
    if titles and (isinstance(titles, str) or len(titles) != count):
        raise ValueError(f"{function}: titles must be {count}, one for each image, or none, got {titles!r}")
    return titles or [""] * count


def _check_rank(function: str, name: str, array: np.ndarray, axes: str) -> None:
    names = axes.split()
    if array.ndim != len(names) or 0 in array.shape:
        raise ValueError(
            f"{function}: {name} must have shape ({', '.join(names)}), no axis empty, got shape {array.shape}"
        )
