"""MNIST, Fashion-MNIST and their like, from the four idx files as they are published."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxcnn.data.prepare import ImageBuilder, fingerprint, prepare

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The published names of the files of each split: images, labels."""

CLASSES_FILE = "classes.txt"
"""Optional, beside the four files: the names of the classes, one a line."""


class IdxSet(NamedTuple):
    """The content of a folder of idx files, checked."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    class_names: list[str]


class IdxFiles(ImageBuilder, skip_registration=True):
    """The images and labels of an `IdxSet`."""

    def __init__(self, *, content: IdxSet, **kwargs: Any):
        self._content = content
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        images, _ = self._content.splits["train"]
        return self._describe(
            "Images and labels from idx files.",
            tfds.features.Tensor(shape=images.shape[1:], dtype=np.uint8, encoding="bytes"),
            tfds.features.ClassLabel(names=self._content.class_names),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(zip(images, labels, strict=True))
            for split, (images, labels) in self._content.splits.items()
        }


def prepare_idx(folder: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    """The idx files of `folder`, prepared under `data_dir`; changed files are prepared anew."""
    if not folder.is_dir():
        raise FileNotFoundError(f"load_dataset: idx: there is no folder {folder}")
    files = {name: _find(folder, name) for names in FILES.values() for name in names}
    classes = [folder / CLASSES_FILE] if (folder / CLASSES_FILE).exists() else []
    config = tfds.core.BuilderConfig(name=fingerprint(folder, [*files.values(), *classes]))
    return prepare(
        data_dir / IdxFiles.name / config.name / str(IdxFiles.VERSION),
        lambda: IdxFiles(
            content=read_idx_folder(folder), config=config, data_dir=data_dir, file_format="array_record"
        ),
        source=f"idx:{folder}",
    )


def read_idx_folder(folder: Path) -> IdxSet:
    """Read and check the four idx files of a folder, plain or gzip-compressed.

    An idx file holds, big-endian: 0, 0, a code for the dtype (8 = uint8), the number of axes, the size of
    each axis as int32, and the values. The class names are the lines of `classes.txt`, or "0" to "9" where
    there is no such file.

    Args:
        folder: where the files lie, under their published names; a dot may stand for the last dash but one
            (train-images.idx3-ubyte), and ".gz" may follow.

    Returns:
        The checked content.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: a file is damaged, truncated or too long, holds images where labels belong or the reverse,
            or does not fit the others; the message names it.

    Reference: Y. LeCun et al., "The MNIST database of handwritten digits", 1998.

    Example:
        >>> read_idx_folder(Path("no/such/folder"))
        Traceback (most recent call last):
        FileNotFoundError: load_dataset: idx: no/such/folder has no train-images-idx3-ubyte or ...
    """
    splits, image_files = {}, []
    classes = _class_names(folder)
    for split, (images_name, labels_name) in FILES.items():
        images_file, labels_file = _find(folder, images_name), _find(folder, labels_name)
        images, labels = _read_idx(images_file, axes=3), _read_idx(labels_file, axes=1)
        if len(images) != len(labels):
            raise ValueError(
                f"load_dataset: idx: {images_file} holds {len(images)} images, "
                f"but {labels_file} {len(labels)} labels"
            )
        if images.size == 0:
            raise ValueError(f"load_dataset: idx: {images_file} holds no images, its shape is {images.shape}")
        if labels.max() >= len(classes):
            place = int(labels.argmax())
            raise ValueError(
                f"load_dataset: idx: {labels_file}: label {labels[place]} at position {place}, "
                f"expected 0 to {len(classes) - 1}; "
                f"for other classes write their names, one a line, to {folder / CLASSES_FILE}"
            )
        splits[split] = images[..., None], labels
        image_files.append(images_file)
    (train, _), (test, _) = splits["train"], splits["test"]
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"load_dataset: idx: {image_files[0]} holds images of {train.shape[1]}x{train.shape[2]} pixels, "
            f"but {image_files[1]} of {test.shape[1]}x{test.shape[2]}"
        )
    return IdxSet(splits, classes)


def _find(folder: Path, name: str) -> Path:
    for variant in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (folder / (variant + suffix)).is_file():
                return folder / (variant + suffix)
    raise FileNotFoundError(f"load_dataset: idx: {folder} has no {name} or {name}.gz")


def _read_idx(file: Path, *, axes: int) -> np.ndarray:
    """The uint8 array in an idx file, which must have that number of axes."""
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"load_dataset: idx: {file} is a damaged gzip file: {error}") from error
    kinds = {b"\0\0\x08\x03": 3, b"\0\0\x08\x01": 1}
    meaning = {3: "images (magic 00000803)", 1: "labels (magic 00000801)"}
    found = kinds.get(data[:4])
    if found is None:
        raise ValueError(
            f"load_dataset: idx: {file} is not an idx file of {meaning[axes]}, "
            f"it begins with {data[:4].hex() or 'nothing'}"
        )
    if found != axes:
        raise ValueError(
            f"load_dataset: idx: {file} holds {meaning[found]} where {meaning[axes]} are expected; "
            "were two files swapped?"
        )
    start = 4 + 4 * axes
    if len(data) < start:
        raise ValueError(f"load_dataset: idx: {file} is truncated, its header ends after {len(data)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(data[4:start], ">u4"))
    expected = start + math.prod(shape)
    if len(data) != expected:
        state = "is truncated" if len(data) < expected else "has trailing bytes"
        raise ValueError(
            f"load_dataset: idx: {file} {state}: {len(data)} bytes (uncompressed), "
            f"but its header says {expected} for the shape {shape}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _class_names(folder: Path) -> list[str]:
    file = folder / CLASSES_FILE
    if not file.exists():
        return [str(digit) for digit in range(10)]
    names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"load_dataset: idx: {file} must hold at least 2 class names, one a line, all different"
        )
    return names
