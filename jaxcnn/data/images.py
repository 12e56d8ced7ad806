"""Image files to uint8 arrays."""

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes that hold no colour."""


def read_image(
    source: str | os.PathLike[str] | bytes, *, channels: int = 3, size: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """Read an image file as training and prediction see it.

    The image is turned upright (EXIF), converted to grey or RGB (alpha is dropped, 16-bit grey keeps its high
    byte, the first frame of an animation is taken) and, if a size is given, scaled to cover it (bilinear,
    smoothed where it shrinks) and cut to its centre, so that nothing is squashed.

    Args:
        source: a file, or the bytes of one.
        channels: 1 for grey, 3 for RGB.
        size: (height, width) in pixels, or None for the image's own.

    Returns:
        (height, width, channels), 0..255.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: what is read is not a whole image of 8 or 16 bits; the message names the file.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (6, 4), 200).save(buffer, "png")
        >>> read_image(buffer.getvalue(), channels=3, size=(2, 3)).shape
        (2, 3, 3)
    """
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels must be 1 (grey) or 3 (RGB), got {channels!r}")
    image = open_image(source)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns where a palette with alpha goes straight to RGB
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    return resize_image(np.asarray(image).reshape(image.height, image.width, channels), size)


def open_image(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """The decoded image, upright, in its own mode."""
    name = f"an image of {len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no image format that Pillow knows" if unknown else " ".join(str(error).split())
        raise ValueError(f"read_image: {name} is not a readable image: {reason}") from error
    if upright.mode in ("I", "F"):
        raise ValueError(
            f"read_image: {name} has 32 bits a pixel (mode {upright.mode}); save it with 8 or 16"
        )
    return upright


def resize_image(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int] | None
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Scale the image to cover `size`, bilinear, and cut out its centre; None changes nothing."""
    if size is None or image.shape[:2] == size:
        return image
    pixels = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    fitted = ImageOps.fit(pixels, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(*size, image.shape[2])
