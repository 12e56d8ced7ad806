"""The handwritten digits that scikit-learn carries: real images with no download."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcnn.data.prepare import ImageBuilder, prepare
from jaxcnn.data.stratify import stratified_split


class Digits(ImageBuilder, skip_registration=True):
    """1,797 handwritten digits of 8x8 pixels: 1,437 to train, 360 to test, every class in proportion.

    The counts 0..16 of scikit-learn's `load_digits` become grey levels, 255 * count / 16 rounded, stored as
    uint8. The split is stratified and always the same. Needs no TensorFlow with file_format="array_record".

    Reference: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test
    part).
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            "Handwritten digits of 8x8 pixels, as scikit-learn carries them.",
            tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8, encoding="bytes"),
            tfds.features.ClassLabel(num_classes=10),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits  # half a second, needed once

        digits: Any = load_digits()
        images = np.rint(digits["images"] * (255 / 16)).astype(np.uint8)[..., None]
        labels = digits["target"]
        train, test = stratified_split(labels)
        return {
            split: self._generate_examples(zip(images[chosen], labels[chosen], strict=True))
            for split, chosen in (("train", train), ("test", test))
        }


def prepare_digits(data_dir: Path) -> tfds.core.DatasetBuilder:
    """The digits, prepared under `data_dir`."""
    return prepare(
        data_dir / Digits.name / str(Digits.VERSION),
        lambda: Digits(data_dir=data_dir, file_format="array_record"),
        source="digits",
    )
