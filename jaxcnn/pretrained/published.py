"""The weights that others have published: their files, accuracies, preprocessing and class names."""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn.functional.checks import AnyArray


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input that weights were evaluated on.

    The shorter side is scaled to `resize` pixels, the middle `crop` x `crop` pixels are cut out, and

        y = (x / 255 - mean) / std

    Attributes:
        resize: pixels of the shorter side after scaling.
        crop: height and width of the result.
        interpolation: "bilinear" or "bicubic", as Pillow does it, with antialiasing.
        mean: of each channel, on the scale from 0 to 1.
        std: of each channel, on the same scale.

    Reference:
        torchvision.transforms._presets.ImageClassification.

    Example:
        >>> preprocessing = published("resnet50")[0].preprocessing
        >>> image = np.zeros((300, 451, 3), np.uint8)
        >>> preprocessing(image).shape
        (224, 224, 3)
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: UInt8[AnyArray, "height width 3"]) -> Float[np.ndarray, "crop crop 3"]:
        """The input for one image.

        Args:
            image: (height, width, 3), red, green and blue from 0 to 255, dtype uint8.

        Returns:
            A float32 array (crop, crop, 3); numpy.stack makes a batch of several.

        Raises:
            ValueError: another shape or dtype.
        """
        from PIL import Image

        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                "Preprocessing: image must be one image (height, width, 3) of dtype uint8, "
                f"got shape {image.shape} and dtype {image.dtype}"
            )
        height, width = image.shape[:2]
        shorter = min(height, width)
        size = tuple(self.resize * side // shorter for side in (width, height))
        method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[
            self.interpolation
        ]
        scaled = np.asarray(Image.fromarray(image).resize(size, method))
        # Half a pixel goes to the even side, as Python and torchvision round.
        top, left = (round((side - self.crop) / 2) for side in scaled.shape[:2])
        middle = scaled[top : top + self.crop, left : left + self.crop].astype(np.float32) / 255
        return (middle - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


@dataclass(frozen=True)
class Published:
    """Weights trained on ImageNet-1k that others have published.

    Attributes:
        model: the name for `create_model`.
        file: the name of the file that holds them.
        top1: the accuracy in percent that its authors report on the 50,000 validation images.
        preprocessing: what an image goes through first.
    """

    model: str
    file: str
    top1: float
    preprocessing: Preprocessing


def published(model: str | None = None) -> tuple[Published, ...]:
    """The published weights of one model, or of all.

    Args:
        model: a name of `list_models()`; None means all.

    Returns:
        The weights of each model in the order of publication; an empty tuple for a model that has none.

    Example:
        >>> [(weights.file, weights.top1) for weights in published("resnet50")]
        [('resnet50-0676ba61.pth', 76.13), ('resnet50-11ad3fa6.pth', 80.858)]
    """
    return tuple(weights for weights in _table() if model in (None, weights.model))


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes of ImageNet-1k, in the order of the logits.

    Example:
        >>> names = imagenet_classes()
        >>> len(names), names[285], names[967]
        (1000, 'Egyptian cat', 'espresso')
    """
    text = files("jaxcnn.pretrained").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@functools.cache
def _table() -> tuple[Published, ...]:
    lines = files("jaxcnn.pretrained").joinpath("published.csv").read_text(encoding="utf-8").splitlines()
    return tuple(
        Published(
            row["model"],
            row["file"],
            float(row["top1"]),
            Preprocessing(
                int(row["resize"]),
                int(row["crop"]),
                row["interpolation"],
                _numbers(row["mean"]),
                _numbers(row["std"]),
            ),
        )
        for row in csv.DictReader(lines)
    )


def _numbers(text: str) -> tuple[float, float, float]:
    red, green, blue = map(float, text.split())
    return red, green, blue
