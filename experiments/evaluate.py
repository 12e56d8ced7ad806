"""The accuracy of a model on a folder of images with one sub-folder per class.

python experiments/evaluate.py --weights resnet18-f37072fd.pth --model resnet18 my_photos
python experiments/evaluate.py runs/my_photos-resnet18 my_photos/test
"""

import difflib
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from pretrained_model import ImageClassifier, named_model
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jaxcnn.data.folder import IGNORED
from jaxcnn.training.console import mistakes_in_one_line, read_flags
from jaxcnn.training.run import environment, write_json

SHOWN = 40
"""How many classes the table has room for."""


@dataclass(frozen=True)
class Config:
    """Measure how often a model names the images of a folder correctly, over all and in each class.

    RUN FOLDER                               what train_classifier.py or fine_tune.py has trained
    --weights FILE --model NAME FOLDER       published weights
    """

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[RUN] FOLDER", help_behavior_hint=""),
    ]
    """The folder of a run, such as runs/digits-lenet5, unless --weights is given, and the folder of images.
    It has a sub-folder for each class, called by the class's name or number; space, _ and - are the same."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """PyTorch's .pth or .safetensors file, or one that jaxcnn.pretrained.save_weights wrote; the classes are
    ImageNet's."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The architecture that --weights are for, one of jaxcnn.models.list_models()."""
    batch_size: int = 32
    """Images that the model sees at a time."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("evaluation.json")
    """The file that the result is written to."""


def main(config: Config) -> None:
    """Evaluate every image once; print a table and write it to a file."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with mistakes_in_one_line("evaluate"):
        open_model, folders = named_model(config.weights, config.model, config.paths)
        if len(folders) != 1:
            raise ValueError(f"name one folder of images, got {len(folders)}")
        if config.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {config.batch_size}")
        if not config.output.parent.is_dir():
            raise FileNotFoundError(f"--output: there is no folder {config.output.parent}")
        classifier = open_model()
        examples = labelled_files(folders[0], classifier.class_names)
        console.print(f"{classifier.name}\n{len(examples):,} images in {folders[0]}")
        ranked, speed = predict(classifier, [file for file, _ in examples], config.batch_size)
        result = summary(classifier, np.array([label for _, label in examples]), ranked)
        result |= {"model": classifier.name, "folder": str(folders[0]), "images_per_second": speed}
        write_json(config.output, result | environment(jax.devices()))
    console.print(
        table(result["classes"]),
        f"top-1 {result['top1']:.4f}, top-5 {result['top5']:.4f} of {len(examples):,} images, "
        f"{speed:,.1f} images/s; the same in {config.output}",
        sep="\n",
    )


def labelled_files(folder: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    """The image files of a folder's sub-folders, each with the number of its class."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    entries = visible(folder)
    loose = [entry.name for entry in entries if not entry.is_dir()]
    if loose or not entries:
        found = f"has {loose[0]} beside" if len(loose) < len(entries) else "has no"
        raise ValueError(f"{folder} {found} sub-folders; expected one sub-folder for each class")
    examples = []
    for entry in entries:
        label, files = class_number(entry, class_names), visible(entry)
        if not files:
            raise ValueError(f"{entry} holds no images")
        if inner := next((file for file in files if file.is_dir()), None):
            raise ValueError(f"{inner} is a folder; expected only images in {entry}")
        examples += [(file, label) for file in files]
    return examples


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without what file managers leave there."""
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name not in IGNORED)


def class_number(folder: Path, class_names: Sequence[str]) -> int:
    """The class that a sub-folder is called after, by its name or, where none has that name, its number."""
    wanted = plain(folder.name)
    found = [i for i, name in enumerate(class_names) if plain(name) == wanted]
    if len(found) > 1:  # ImageNet has a Cardigan, a dog, and a cardigan
        found = [i for i in found if class_names[i] == folder.name] or found
    if len(found) > 1:
        places = ", ".join(f"{i} ({class_names[i]})" for i in found)
        raise ValueError(f"{folder}: several classes are called so; use one of the numbers {places}")
    if found:
        return found[0]
    if folder.name.isdecimal() and int(folder.name) < len(class_names):
        return int(folder.name)
    names = {plain(name): name for name in class_names}
    near = [name for key, name in names.items() if wanted in key.split()]
    near += [names[key] for key in difflib.get_close_matches(wanted, names, n=5) if names[key] not in near]
    hint = f"did you mean {', '.join(near[:5])}? " if near else ""
    raise ValueError(
        f"{folder}: the model has no class {folder.name!r}; {hint}"
        f"Sub-folders are called by a class's name or its number, 0 to {len(class_names) - 1}"
    )


def plain(name: str) -> str:
    """A class's name as it is compared: a folder may be called egyptian_cat."""
    return " ".join(re.split(r"[\s_-]+", name.lower())).strip()


def predict(classifier: ImageClassifier, files: Sequence[Path], batch_size: int) -> tuple[np.ndarray, float]:
    """The five likeliest classes of each image, the likeliest first, and images per second."""
    ranked, seconds = [], []
    batches = track(
        read_batches(classifier, files, batch_size),
        description="evaluating",
        total=-(-len(files) // batch_size),
        console=Console(stderr=True),
        transient=True,
    )
    began = time.perf_counter()
    for inputs, count in batches:
        found = classifier.probabilities(inputs)[:count]
        ranked.append(np.argsort(-found, axis=-1, kind="stable")[:, :5])
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    # The first batch holds the compilation.
    counts = [len(batch) for batch in ranked]
    speed = sum(counts[1:] or counts) / sum(seconds[1:] or seconds)
    return np.concatenate(ranked), speed


def read_batches(
    classifier: ImageClassifier, files: Sequence[Path], batch_size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of one size, with how many of their images count; the next one is read while one is in use."""
    with ThreadPoolExecutor() as pool:

        def read(start: int) -> Iterator[np.ndarray]:
            return pool.map(classifier.prepare, files[start : start + batch_size])

        following = read(0)
        for start in range(0, len(files), batch_size):
            images, following = following, read(start + batch_size)
            images = np.stack(list(images))
            padding = [(0, batch_size - len(images)), *[(0, 0)] * 3]
            yield np.pad(images, padding), len(images)


def summary(classifier: ImageClassifier, labels: np.ndarray, ranked: np.ndarray) -> dict[str, Any]:
    """Accuracies over all images and for each class."""
    hits = ranked == labels[:, None]
    classes = {}
    for label in np.unique(labels):
        of_class = labels == label
        wrong = ranked[of_class, 0]
        mistakes = np.bincount(wrong[wrong != label])
        classes[classifier.class_names[label]] = {
            "class": int(label),
            "images": int(of_class.sum()),
            "top1": float(hits[of_class, 0].mean()),
            "top5": float(hits[of_class].any(1).mean()),
            "most_often_taken_for": classifier.class_names[int(mistakes.argmax())] if mistakes.size else None,
        }
    return {
        "images": len(labels),
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(1).mean()),
        "classes": classes,
    }


def table(classes: dict[str, dict[str, Any]]) -> Table:
    """The classes, the worst first."""
    worst = sorted(classes, key=lambda name: (classes[name]["top1"], classes[name]["top5"]))
    caption = f"the {SHOWN} worst of {len(worst)} classes" if len(worst) > SHOWN else None
    result = Table(caption=caption, caption_justify="left")
    result.add_column("class")
    for column in ("images", "top-1", "top-5"):
        result.add_column(column, justify="right")
    result.add_column("most often taken for")
    for name in worst[:SHOWN]:
        row = classes[name]
        numbers = (f"{row['images']}", f"{row['top1']:.3f}", f"{row['top5']:.3f}")
        result.add_row(name, *numbers, row["most_often_taken_for"] or "")
    return result


if __name__ == "__main__":
    main(read_flags(Config, "evaluate"))
