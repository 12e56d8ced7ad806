"""Name what a trained run sees in image files.

python experiments/classify.py runs/digits-lenet5 photo.png another.jpg
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from train_classifier import Config as Training
from train_classifier import make_model, make_optimizer, normalize

from jaxcnn.data import read_image
from jaxcnn.training import checkpoint
from jaxcnn.training.console import mistakes_in_one_line, read_flags
from jaxcnn.training.state import create_train_state


@dataclass(frozen=True)
class Config:
    """Name what a trained run sees in image files."""

    run: tyro.conf.Positional[Path]
    """The folder of the run, such as runs/digits-lenet5."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; they are scaled and cut to the size that the model was trained on."""
    top: int = 3
    """How many classes to name for each image."""


def main(config: Config) -> None:
    """Print a line for each image: its likeliest classes with their probabilities."""
    with mistakes_in_one_line("classify"):
        if not config.images:
            raise ValueError("name at least one image file")
        if config.top < 1:
            raise ValueError(f"--top must be at least 1, got {config.top}")
        training = Training(**read_json(config.run / "config.json"))
        dataset = read_json(config.run / "dataset.json")
        names = dataset["class_names"]
        height, width, channels = dataset["image_shape"]
        pixels = np.stack(
            [read_image(path, channels=channels, size=(height, width)) for path in config.images]
        )
        model = make_model(training, num_classes=len(names), in_channels=channels)
        merge, state = create_train_state(model, make_optimizer(training, 1)[0])
        state = checkpoint.restore(config.run / "checkpoints", state)

    model = merge(state.params, state.batch_stats)
    model.eval()
    images = normalize(jnp.asarray(pixels), dataset["mean"], dataset["std"])
    probabilities = jax.nn.softmax(jax.jit(model)(images).astype(jnp.float32))
    for path, row in zip(config.images, np.asarray(probabilities), strict=True):
        likeliest = np.argsort(-row, kind="stable")[: config.top]
        print(f"{path}: " + ", ".join(f"{names[i]} ({row[i]:.3f})" for i in likeliest))


def read_json(path: Path) -> dict:
    """Read a file that the training script left in the run's folder."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} is not the folder of a run: it has no {path.name}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None


if __name__ == "__main__":
    main(read_flags(Config, "classify"))
