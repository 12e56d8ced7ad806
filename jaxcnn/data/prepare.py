"""Writing images once as array_record files, which tfds reads at random and without TensorFlow."""

import contextlib
import hashlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders of this package share: labelled images, nothing to download, written in order."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # tfds would look beside the class for checksums of downloads

    def _describe(
        self, description: str, image: tfds.features.FeatureConnector, label: tfds.features.ClassLabel
    ) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _generate_examples(self, examples: Iterable[tuple[Any, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(examples):
            yield i, {"image": image, "label": int(label)}


def default_data_dir() -> Path:
    """Where tfds keeps what is prepared: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def prepare(
    directory: Path, make_builder: Callable[[], tfds.core.DatasetBuilder], *, source: str
) -> tfds.core.DatasetBuilder:
    """Open what lies in `directory`; where nothing does, make the builder and let it write there first.

    tfds writes beside the directory and renames at the end: a killed run leaves no half of a copy, and of two
    that prepare at the same time the first to finish wins.
    """
    if not directory.is_dir():
        with quiet():
            builder = make_builder()
        print(f"Preparing {source} in {directory} (only once)", file=sys.stderr)
        try:
            with quiet():
                builder.download_and_prepare()
        except OSError as error:
            if not directory.is_dir():
                raise OSError(
                    f"load_dataset: cannot write the prepared copy of {source} to {directory}: "
                    f"{error.strerror or error}; choose another data_dir"
                ) from error
    return tfds.builder_from_directory(directory)


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """A name for this state of the files: another path, size or time of change gives another name."""
    state = hashlib.sha256(str(root.resolve()).encode())
    for file in files:
        status = file.stat()
        state.update(f"\0{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', root.resolve().name)}-{state.hexdigest()[:16]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence tfds's notices, warnings and progress bars."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)
        logger.setLevel(level)
