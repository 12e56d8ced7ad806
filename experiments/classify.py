"""Name what a model sees in image files: published weights, or a run of one's own.

python experiments/classify.py --weights resnet18-f37072fd.pth --model resnet18 photo.png another.jpg
python experiments/classify.py --weights resnet18-f37072fd.pth --model resnet18 --picture seen.png photo.png
python experiments/classify.py runs/digits-lenet5 photo.png another.jpg
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pretrained_model import named_model

from jaxcnn.data import read_image
from jaxcnn.training.console import mistakes_in_one_line, read_flags


@dataclass(frozen=True)
class Config:
    """Name what a model sees in image files.

    RUN IMAGE ...                               what train_classifier.py or fine_tune.py has trained
    --weights FILE --model NAME IMAGE ...       published weights
    """

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[RUN] IMAGE ...", help_behavior_hint=""),
    ]
    """The folder of a run, such as runs/digits-lenet5, unless --weights is given, and image files. Images are
    scaled and cut as the weights were evaluated."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """PyTorch's .pth or .safetensors file, or one that jaxcnn.pretrained.save_weights wrote; the classes are
    ImageNet's."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The architecture that --weights are for, one of jaxcnn.models.list_models()."""
    top: int = 3
    """How many classes to name for each image."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """An image file to draw the images in, each beside its likeliest classes."""


def main(config: Config) -> None:
    """Print a line for each image: its likeliest classes with their probabilities."""
    with mistakes_in_one_line("classify"):
        open_model, images = named_model(config.weights, config.model, config.paths)
        if not images:
            raise ValueError("name at least one image file")
        if config.top < 1:
            raise ValueError(f"--top must be at least 1, got {config.top}")
        if config.picture is not None and not config.picture.absolute().parent.is_dir():
            raise ValueError(f"--picture: there is no folder {config.picture.parent}")
        classifier = open_model()
        inputs = np.stack([classifier.prepare(path) for path in images])

    found = [likeliest(row, classifier.class_names, config.top) for row in classifier.probabilities(inputs)]
    for path, classes in zip(images, found, strict=True):
        print(f"{path}: " + ", ".join(f"{name} ({share:.3f})" for name, share in classes.items()))
    if config.picture is not None:
        draw(config.picture, images, found)


def likeliest(row: np.ndarray, names: Sequence[str], count: int) -> dict[str, float]:
    """The likeliest classes of an image with their probabilities, the first one first."""
    return {names[int(i)]: float(row[i]) for i in np.argsort(-row, kind="stable")[:count]}


def draw(path: Path, images: Sequence[Path], found: Sequence[dict[str, float]]) -> None:
    """Draw each image beside bars as long as the probabilities of its likeliest classes."""
    figure = Figure(figsize=(8, 2.4 * len(images)), dpi=110, layout="constrained")
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=(2, 3))
    for (left, right), file, classes in zip(rows, images, found, strict=True):
        left.imshow(read_image(file))
        left.set_axis_off()
        draw_bars(right, classes)
    figure.savefig(path)


def draw_bars(axes: Axes, classes: dict[str, float]) -> None:
    """Draw a bar for each class, as long as its probability, which stands beside it."""
    bars = axes.barh(range(len(classes)), list(classes.values()), color="#3b75af")
    axes.bar_label(bars, [f"{share:.1%}" for share in classes.values()], padding=4)
    axes.set_yticks(range(len(classes)), list(classes), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)  # room for the figure beside a bar of 1
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    main(read_flags(Config, "classify"))
