"""Name what a model sees in image files: published weights, or a run of one's own.

python experiments/classify.py --weights resnet18-f37072fd.pth --model resnet18 photo.png another.jpg
python experiments/classify.py runs/digits-lenet5 photo.png another.jpg
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pretrained_model import named_model

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


def main(config: Config) -> None:
    """Print a line for each image: its likeliest classes with their probabilities."""
    with mistakes_in_one_line("classify"):
        open_model, images = named_model(config.weights, config.model, config.paths)
        if not images:
            raise ValueError("name at least one image file")
        if config.top < 1:
            raise ValueError(f"--top must be at least 1, got {config.top}")
        classifier = open_model()
        inputs = np.stack([classifier.prepare(path) for path in images])

    for path, row in zip(images, classifier.probabilities(inputs), strict=True):
        likeliest = np.argsort(-row, kind="stable")[: config.top]
        print(f"{path}: " + ", ".join(f"{classifier.class_names[i]} ({row[i]:.3f})" for i in likeliest))


if __name__ == "__main__":
    main(read_flags(Config, "classify"))
