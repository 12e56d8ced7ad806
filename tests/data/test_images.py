"""Reading and resizing single images."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import read_image
from jaxcnn.data.images import resize_image


def bilinear(image, size):
    """Half-pixel centres, edges repeated: the textbook formula, for enlarging."""
    height, width, channels = image.shape
    result = np.zeros((*size, channels))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            above = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            below = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            result[i, j] = above * (1 - (y - y0)) + below * (y - y0)
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape, size", [((8, 8), (32, 32)), ((5, 7), (15, 21)), ((4, 6), (6, 9))])
def test_enlarging_is_bilinear(shape, size, channels):
    image = np.random.default_rng(0).integers(0, 256, (*shape, channels), np.uint8)
    np.testing.assert_allclose(resize_image(image, size), bilinear(image.astype(float), size), atol=1.01)


def test_shrinking_averages_and_cuts_to_the_centre():
    image = np.zeros((8, 12, 1), np.uint8)
    image[:, 2:6], image[:, 6:10] = 100, 200  # the centre 8x8 square
    shrunk = resize_image(image, (2, 2))[..., 0]
    assert 100 <= shrunk[0, 0] < 150 < shrunk[0, 1] <= 200
    assert resize_image(image, None) is image


def test_bytes_and_files_are_read_alike(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for source in (
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        (tmp_path / "image.png").read_bytes(),
    ):
        np.testing.assert_array_equal(read_image(source), pixels)
    luma = pixels @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(tmp_path / "image.png", channels=1)[..., 0], luma, atol=1)


def test_a_palette_with_alpha_is_read_without_a_warning():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_image(buffer.getvalue()), np.broadcast_to([10, 20, 30], (3, 4, 3)))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ValueError, match="read_image: .*text.png is not a readable image: no image format"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match="read_image: an image of 3 bytes is not a readable image"):
        read_image(b"abc")
    with pytest.raises(ValueError, match=r"read_image: channels must be 1 \(grey\) or 3 \(RGB\), got 4"):
        read_image(b"abc", channels=4)
