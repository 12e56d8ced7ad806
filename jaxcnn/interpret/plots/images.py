"""Plots of images that units answer to, of their maps and of filters, tile by tile."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.figure import Figure

from jaxcnn.functional.checks import AnyArray, as_int
from jaxcnn.interpret.plots.panels import check_rank, check_titles, displayed, panels

BOX = "#d95f30"


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
        check_rank(function, f"maps[{tap!r}]", value, "batch height width channels")
    columns = min(channels, max(value.shape[-1] for value in arrays.values()))
    figure, grid = panels(len(arrays), columns)
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
    check_rank(function, "filters", kernel, "height width in_channels filters")
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
    figure, ((axes,),) = panels(1, 1, size=(6.0 * min(1.0, columns / rows), 6.0 * min(1.0, rows / columns)))
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
    shown = displayed(function, "images", images)
    titles = check_titles(function, titles, len(shown))
    columns = min(5, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = panels(rows, columns, cell=2.2)
    for i, axes in enumerate(axes for row in grid for axes in row):
        if i < len(shown):
            axes.imshow(shown[i])
            axes.set_title(titles[i], size=9, pad=3, parse_math=False)
        else:
            figure.delaxes(axes)
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
    asked = displayed(function, "x", x)
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
    figure, grid = panels(len(asked), 1 + places.shape[1], cell=1.4)
    for row, image, near, far in zip(grid, asked, places, lengths, strict=True):
        row[0].imshow(image)
        for spine in row[0].spines.values():
            spine.set(visible=True, color=BOX, linewidth=2)
        shown = displayed(function, "images", images[near])
        for axes, neighbour, index, distance in zip(row[1:], shown, near, far, strict=True):
            axes.imshow(neighbour)
            axes.set_title(f"#{index}  {distance:.3g}", size=8, pad=2)
    grid[0][0].set_title("x", size=9, pad=2)
    return figure


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (number, height, width, channels) in rows, a blank pixel between two."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    picture = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.nan)
    for i, tile in enumerate(tiles):
        top, left = (height + 1) * (i // columns), (width + 1) * (i % columns)
        picture[top : top + height, left : left + width] = tile
    return picture if channels == 1 else np.nan_to_num(picture, nan=1.0)
