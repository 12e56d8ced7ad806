"""A folder of images with one sub-folder per class."""

import collections
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxcnn.data.images import GREY_MODES, open_image, read_image
from jaxcnn.data.prepare import ImageBuilder, fingerprint, prepare
from jaxcnn.data.stratify import stratified_split

TEST_FOLDERS = ("test", "val", "validation")
"""What the folder beside `train` may be called; the first that exists is the test set."""

IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX")
"""What file managers leave behind; it is passed over, as is every name that begins with a dot."""


class FolderSet(NamedTuple):
    """The files of each split with their labels, and the class names in the order of the labels."""

    splits: dict[str, list[tuple[Path, int]]]
    class_names: list[str]


class ImageFolder(ImageBuilder, skip_registration=True):
    """The images of a `FolderSet`, upright, all grey if every file is grey, else RGB.

    A file that already is a JPEG or PNG of that kind is kept byte for byte, another becomes a PNG of the same
    pixels.
    """

    def __init__(self, *, content: FolderSet, **kwargs: Any):
        self._content = content
        files = [file for split in content.splits.values() for file, _ in split]
        with ThreadPoolExecutor() as pool:
            kinds = collections.Counter(pool.map(_kind, files))
        self._channels = 1 if all(grey for _, grey in kinds) else 3
        sizes = {size for size, _ in kinds}
        self._size = sizes.pop() if len(sizes) == 1 else (None, None)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            "Images from a folder with one sub-folder per class.",
            tfds.features.Image(shape=(*self._size, self._channels)),
            tfds.features.ClassLabel(names=self._content.class_names),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples((_encoded(file, self._channels), label) for file, label in files)
            for split, files in self._content.splits.items()
        }


def prepare_folder(folder: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    """The images of `folder`, prepared under `data_dir`; a changed folder is prepared anew."""
    content = read_image_folder(folder)
    files = sorted(file for split in content.splits.values() for file, _ in split)
    config = tfds.core.BuilderConfig(name=fingerprint(folder, files))
    return prepare(
        data_dir / ImageFolder.name / config.name / str(ImageFolder.VERSION),
        lambda: ImageFolder(content=content, config=config, data_dir=data_dir, file_format="array_record"),
        source=f"folder:{folder} ({len(files)} images)",
    )


def read_image_folder(folder: Path) -> FolderSet:
    """List a folder of images, FOLDER/cat/1.png or FOLDER/train/cat/1.png with FOLDER/test/cat/2.png.

    Classes and files are taken in the order of their names. Where there is no `train` with a `test` (or
    `val`, or `validation`) beside it, a fifth of each class, drawn at random with a fixed seed and at least
    one image, is the test set. Names that begin with a dot, Thumbs.db, desktop.ini and __MACOSX are passed
    over; any other file has to be an image.

    Args:
        folder: where the sub-folders are.

    Returns:
        The files and labels of "train" and "test", and the class names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no sub-folders, fewer than two classes, a class without images or with a single one to
            split, a file beside the class folders or a folder inside one, a test class that is not in train;
            the message names it.

    Example:
        >>> read_image_folder(Path("no/such/folder"))
        Traceback (most recent call last):
        FileNotFoundError: load_dataset: folder: there is no folder no/such/folder
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"load_dataset: folder: there is no folder {folder}")
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if [entry.name for entry in _visible(folder)] == ["train"]:
        raise ValueError(
            f"load_dataset: folder: {folder} has train and no test beside it; "
            f"say folder:{folder / 'train'} to have a fifth of its images set aside"
        )
    if not (tests and (folder / "train").is_dir()):
        classes = _class_files(folder)
        examples = [(file, label) for label, files in enumerate(classes.values()) for file in files]
        for name, files in classes.items():
            if len(files) < 2:
                raise ValueError(
                    f"load_dataset: folder: class {name!r} has one image ({files[0]}); "
                    "at least 2 are needed, one to train and one to test"
                )
        parts = zip(
            ("train", "test"), stratified_split(np.array([label for _, label in examples])), strict=True
        )
        return FolderSet({split: [examples[i] for i in chosen] for split, chosen in parts}, list(classes))
    train, test = _class_files(folder / "train"), _class_files(tests[0])
    for name in test:
        if name not in train:
            raise ValueError(
                f"load_dataset: folder: class {name!r} of {tests[0]} is not in {folder / 'train'}"
            )
    labels = {name: label for label, name in enumerate(train)}
    return FolderSet(
        {
            split: [(file, labels[name]) for name, files in classes.items() for file in files]
            for split, classes in (("train", train), ("test", test))
        },
        list(train),
    )


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each class, in the order of their names."""
    entries = _visible(folder)
    loose = [entry for entry in entries if not entry.is_dir()]
    if loose or not entries:
        found = f"has {loose[0].name} beside" if len(loose) < len(entries) else "has no"
        raise ValueError(
            f"load_dataset: folder: {folder} {found} sub-folders; expected one sub-folder per class "
            f"and only images in them, such as {folder / 'cat' / '1.png'}"
        )
    if len(entries) < 2:
        raise ValueError(
            f"load_dataset: folder: {folder} has one class, {entries[0].name!r}; at least 2 are needed"
        )
    classes = {entry.name: _visible(entry) for entry in entries}
    for name, files in classes.items():
        if not files:
            raise ValueError(f"load_dataset: folder: class {name!r} has no images in {folder / name}")
        for file in files:
            if file.is_dir():
                raise ValueError(
                    f"load_dataset: folder: {file} is a folder; expected only images in {folder / name}"
                )
    return classes


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != "." and entry.name not in IGNORED)


def _kind(file: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) of the upright image and whether it is grey; decodes, and so checks, the whole file."""
    image = open_image(file)
    return (image.height, image.width), image.mode in GREY_MODES


def _encoded(file: Path, channels: int) -> bytes:
    """The file as it is where it is an upright JPEG or PNG in the right mode, else a PNG of its pixels."""
    data = file.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        upright = image.getexif().get(0x0112, 1) == 1
        if upright and image.format in ("JPEG", "PNG") and image.mode == ("L" if channels == 1 else "RGB"):
            return data
    pixels = read_image(data, channels=channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()
