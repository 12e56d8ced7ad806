"""One way to every data set: by name, prepared once by tfds, read without TensorFlow."""

import difflib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcnn.data.digits import prepare_digits
from jaxcnn.data.folder import prepare_folder
from jaxcnn.data.idx import FILES, prepare_idx
from jaxcnn.data.images import read_image, resize_image
from jaxcnn.data.prepare import default_data_dir, quiet
from jaxcnn.data.split import Example, Split, StreamedSplit
from jaxcnn.functional.checks import as_int

RESIDENT_BYTES = 512 * 2**20
"""A split whose images take no more than this, decoded and resized, is held in memory and on the device."""

STATISTICS_IMAGES = 1024
"""How many images of a streamed split the mean and the standard deviation are taken from."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set of labelled images, split into train and test.

    Attributes:
        name: the name it was loaded by.
        train: the examples to learn from.
        test: the examples to judge by.
        class_names: the name of each label.
        image_shape: (height, width, channels).
        mean: mean of each channel of the training images, on the scale 0..1.
        std: standard deviation of each channel, on the same scale; 1 where a channel is constant, so that
            (images / 255 - mean) / std is always defined.
    """

    name: str
    train: Split | StreamedSplit
    test: Split | StreamedSplit
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Load a set of images by name; the first time it is prepared under `data_dir`.

    - "digits": 1,797 handwritten 8x8 digits; nothing to download.
    - "idx:DIR": the four published idx files of MNIST or Fashion-MNIST in the folder DIR (see
      `read_idx_folder`).
    - "folder:DIR": images in one sub-folder per class (see `read_image_folder`).
    - any image classification set of tfds, such as "mnist" or "cifar10": reading needs no TensorFlow,
      preparing it the first time does. The test set is "test" if it has labels, else "validation", else the
      last fifth of "train".

    Splits of up to 512 MB are decoded and resized once and held on the device (`Split`); the images of larger
    ones are read when they are needed (`StreamedSplit`), and their mean and std come from 1,024 images spread
    over the split.

    Args:
        name: see above.
        data_dir: where prepared copies lie, by default where tfds keeps its own: $TFDS_DATA_DIR or
            ~/tensorflow_datasets. A copy belongs to the files it was made from, and changed files get a new
            one. To free the space delete what you no longer need.
        image_size: (height, width) in pixels; every image is scaled (bilinear) to cover it and cut to its
            centre. None keeps the images' own size, which must then be the same for all.

    Returns:
        The data set.

    Raises:
        ValueError: an unknown name, a damaged or unfit source, images of different sizes without
            `image_size`.
        OSError: a file or folder is missing or may not be read, `data_dir` may not be written.
        ImportError: a tfds set that is not prepared, and no TensorFlow to prepare it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     digits = load_dataset("digits", data_dir=folder, image_size=(32, 32))
        >>> len(digits.train), len(digits.test), digits.image_shape
        (1437, 360, (32, 32, 1))
    """
    if image_size is not None:
        image_size = _checked_size(image_size)
    data_dir = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    kind, _, place = name.partition(":")
    if name == "digits":
        builder = prepare_digits(data_dir)
    elif kind in ("idx", "folder"):
        if not place:
            raise ValueError(
                f"load_dataset: name must be {kind}:DIR with the folder of the images, got {name!r}"
            )
        builder = (prepare_idx if kind == "idx" else prepare_folder)(Path(place).expanduser(), data_dir)
    else:
        builder = _stock_builder(name, data_dir)
    return _read(name, builder, image_size)


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(image_size, Sequence) or len(image_size) != 2:
        raise ValueError(f"load_dataset: image_size must be (height, width) in pixels, got {image_size!r}")
    height, width = (as_int("load_dataset", "image_size", size, minimum=1) for size in image_size)
    return height, width


def _stock_builder(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    """A builder of tfds whose set is prepared, if need be here and now."""
    try:
        with quiet():
            builder = tfds.builder(name, data_dir=data_dir)
            prepared = builder.is_prepared()
    except Exception as error:  # what is unknown is a ValueError, an AssertionError, a RuntimeError, ...
        names = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if name.split(":")[0].split("/")[0] in names:
            raise ValueError(f"load_dataset: tfds has no {name!r}: {_first_line(error)}") from error
        raise ValueError(_unknown(name, names)) from None
    if prepared:
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"load_dataset: {name!r} is not prepared in {data_dir}, and to prepare it (only once) tfds needs "
            "TensorFlow: run pip install -e '.[train,tensorflow]' and then the same command again"
        )
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # downloads, disks and TensorFlow fail in many ways
        raise OSError(
            f"load_dataset: tfds could not prepare {name!r} in {data_dir}: {_first_line(error)}"
        ) from error
    return builder


def _unknown(name: str, names: list[str]) -> str:
    message = f"load_dataset: unknown data set {name!r}"
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        kind = "idx" if any(folder.glob(f"{FILES['train'][0][:12]}*")) else "folder"
        return f"{message}; for the images in that folder use {kind}:{name}"
    near = difflib.get_close_matches(name.lower(), names, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    known = "digits, idx:DIR, folder:DIR and the sets of tfds, such as mnist and cifar10"
    return f"{message}{hint} There are {known}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _read(name: str, builder: tfds.core.DatasetBuilder, image_size: tuple[int, int] | None) -> Dataset:
    """The prepared set as a `Dataset`."""
    image_key, label_key = _supervised_keys(name, builder)
    features: Any = builder.info.features
    image, label = features[image_key], features[label_key]
    height, width = image_size or image.shape[:2]
    if height is None or width is None:
        raise ValueError(
            f"load_dataset: the images of {name!r} differ in size; give image_size=(height, width) "
            "(--image-size HEIGHT WIDTH) to scale them all to one"
        )
    shape = (height, width, 1 if image.shape[2] == 1 else 3)
    encoded = isinstance(image, tfds.features.Image)

    def example(record: dict[str, Any]) -> Example:
        pixels = record[image_key]
        if encoded:
            pixels = read_image(pixels, channels=shape[2])
        return {"image": resize_image(pixels, shape[:2]), "label": int(record[label_key])}

    train, test = (
        _split(source, example, shape)
        for source in _sources(name, builder, image_key if encoded else None, label_key)
    )
    mean, std = _statistics(train)
    return Dataset(name, train, test, tuple(label.names), shape, mean, std)


def _sources(
    name: str, builder: tfds.core.DatasetBuilder, encoded_key: str | None, label_key: str
) -> tuple[Any, Any]:
    """The records of train and test, read at random; the images that are encoded stay so."""
    decoders = {encoded_key: tfds.decode.SkipDecoding()} if encoded_key else None

    def source(split: str) -> Any:
        return builder.as_data_source(split=split, decoders=decoders)  # pyright: ignore[reportCallIssue]

    if "train" not in builder.info.splits:
        raise ValueError(
            f"load_dataset: {name!r} has no split 'train', only {', '.join(builder.info.splits)}"
        )
    try:
        for split in ("test", "validation"):
            # the test sets of competitions have the label -1 everywhere
            if split in builder.info.splits and (test := source(split))[0][label_key] >= 0:
                return source("train"), test
        return source("train[:80%]"), source("train[80%:]")
    except NotImplementedError as error:
        raise ValueError(
            f"load_dataset: {name!r} is prepared in {builder.data_dir} in a format that only "
            "TensorFlow reads; give another data_dir to prepare it there as array_record"
        ) from error


def _split(
    source: Any, example: Callable[[dict[str, Any]], Example], shape: tuple[int, int, int]
) -> Split | StreamedSplit:
    """The records as a split: decoded here and now where they fit in memory."""
    if len(source) * math.prod(shape) > RESIDENT_BYTES:
        return StreamedSplit(lambda index: example(source[index]), len(source))
    images, labels = np.empty((len(source), *shape), np.uint8), np.empty(len(source), np.int32)

    def fill(chunk: range) -> None:
        for i, record in zip(chunk, source.__getitems__(list(chunk)), strict=True):
            decoded = example(record)
            images[i], labels[i] = decoded["image"], decoded["label"]

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, (range(len(source))[i : i + 256] for i in range(0, len(source), 256))))
    return Split(images, labels)


def _supervised_keys(name: str, builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """The names of the image and of the label in an example."""
    keys: Any = builder.info.supervised_keys or ()
    features: Any = builder.info.features
    found = [features[key] for key in keys if key in features]
    if not (
        len(found) == 2
        and len(found[0].shape or ()) == 3
        and found[0].np_dtype == np.uint8
        and isinstance(found[1], tfds.features.ClassLabel)
    ):
        raise ValueError(f"load_dataset: {name!r} is no set of uint8 images with one label each")
    return keys


def _statistics(split: Split | StreamedSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0..1, from exact sums of integers."""
    if isinstance(split, Split):
        parts = (split.images[i : i + 256] for i in range(0, len(split), 256))
    else:
        chosen = np.unique(np.linspace(0, len(split) - 1, STATISTICS_IMAGES).astype(int))
        parts = (split[int(i)]["image"][None] for i in chosen)
    count, first, second = 0, 0, 0
    for part in parts:
        pixels = part.reshape(-1, part.shape[3]).astype(np.int64)
        count, first, second = count + len(pixels), first + pixels.sum(0), second + (pixels**2).sum(0)
    mean = np.asarray(first / count)
    std = np.sqrt(second / count - mean**2)
    return tuple((mean / 255).tolist()), tuple(np.where(std > 0, std / 255, 1.0).tolist())
