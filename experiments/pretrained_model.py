"""A trained model that says what is in image files: from published weights, or from the folder of a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from train_classifier import Config as Training
from train_classifier import make_model, make_optimizer, normalize

from jaxcnn import data, models
from jaxcnn.models.classifier import Classifier
from jaxcnn.pretrained import (
    Preprocessing,
    imagenet_classes,
    load_torch_weights,
    load_weights,
    published,
)
from jaxcnn.training import checkpoint
from jaxcnn.training.state import create_train_state

WEIGHTS = "weights.safetensors"
"""The file of a fine-tuned run that holds its weights."""


@dataclass(frozen=True)
class ImageClassifier:
    """A model in evaluation mode, with what it needs to be asked about files.

    Attributes:
        name: what it is, in a few words.
        class_names: the name of each logit.
        prepare: an image file as the model's float32 input (height, width, channels).
        probabilities: (images, classes) for a batch of such inputs.
        model: the network itself.
        colours: such an input as it looks, from 0 to 1.
    """

    name: str
    class_names: Sequence[str]
    prepare: Callable[[Path], np.ndarray]
    probabilities: Callable[[np.ndarray], np.ndarray]
    model: Classifier
    colours: Callable[[np.ndarray], np.ndarray]


def named_model(
    weights: Path | None, model: str | None, paths: Sequence[Path]
) -> tuple[Callable[[], ImageClassifier], Sequence[Path]]:
    """What opens the model that a command line names, and the paths that are not part of its name.

    Args:
        weights: the flag --weights.
        model: the flag --model.
        paths: the arguments without a flag, the first of which is a run if there are no weights.

    Raises:
        ValueError: a mixture of the two ways to name a model.
    """
    if weights is None and model is None:
        if not paths:
            raise ValueError("name a RUN, or --weights FILE and --model NAME")
        run, *others = paths
        if run.is_file():
            raise ValueError(
                f"{run} is a file; the first argument is the folder of a run, "
                "unless --weights FILE and --model NAME are given"
            )
        return partial(from_run, run), others
    if weights is None:
        raise ValueError(f"--model {model} goes with --weights FILE; a RUN knows its own model")
    if model is None:
        raise ValueError(f"--weights {weights} needs --model NAME, the architecture that they are for")
    if paths and (paths[0] / "config.json").is_file():
        raise ValueError(
            f"{paths[0]} is a run and has its own weights; give either it or --weights and --model"
        )
    return partial(from_weights, weights, model), paths


def from_weights(weights: Path, name: str) -> ImageClassifier:
    """A classifier of ImageNet's classes."""
    model = models.create_model(name, rngs=nnx.Rngs(0))
    preprocessing = published_preprocessing(name, weights)
    if preprocessing is None:
        raise ValueError(
            f"{name} has no published weights, so nobody says how its images are prepared; "
            "give the RUN that these weights come from"
        )
    load_any_weights(model, weights)
    size = f"scaled to {preprocessing.resize} and cut to {preprocessing.crop} pixels"
    return ImageClassifier(
        f"{name} with {weights.name}, images {size}",
        imagenet_classes(),
        lambda path: preprocessing(data.read_image(path)),
        probabilities(model),
        model,
        partial(undo_normalization, mean=preprocessing.mean, std=preprocessing.std),
    )


def from_run(run: Path) -> ImageClassifier:
    """What train_classifier or fine_tune left in the folder of a run."""
    config, dataset = read_json(run / "config.json"), read_json(run / "dataset.json")
    names = dataset["class_names"]
    height, width, channels = dataset["image_shape"]
    if (run / WEIGHTS).exists():
        model = models.create_model(
            config["model"], num_classes=len(names), in_channels=channels, rngs=nnx.Rngs(0)
        )
        load_weights(model, run / WEIGHTS)
    else:
        training = Training(**config)
        merge, state = create_train_state(
            make_model(training, num_classes=len(names), in_channels=channels), make_optimizer(training, 1)[0]
        )
        state = checkpoint.restore(run / "checkpoints", state)
        model = cast(Classifier, merge(state.params, state.batch_stats))

    def prepare(path: Path) -> np.ndarray:
        pixels = jnp.asarray(data.read_image(path, channels=channels, size=(height, width)))
        return np.asarray(normalize(pixels[None], dataset["mean"], dataset["std"])[0])

    return ImageClassifier(
        f"{config['model']} of {run}, images of {height}x{width}",
        names,
        prepare,
        probabilities(model),
        model,
        partial(undo_normalization, mean=dataset["mean"], std=dataset["std"]),
    )


def undo_normalization(x: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The colours, from 0 to 1, of an input whose channels were given mean 0 and deviation 1."""
    return np.clip(x * np.asarray(std, np.float32) + np.asarray(mean, np.float32), 0, 1)


def published_preprocessing(name: str, weights: Path) -> Preprocessing | None:
    """What the published weights of that file's name were evaluated with, else the model's first ones."""
    known = published(name)
    same = [other for other in known if Path(other.file).stem == weights.stem]
    return (same or known)[0].preprocessing if known else None


def load_any_weights(model: nnx.Module, weights: Path, *, head: bool = True) -> None:
    """Load a file of jaxcnn's own or of PyTorch's."""
    load = load_weights if is_jaxcnns(weights) else load_torch_weights
    load(model, weights, head=head)


def is_jaxcnns(weights: Path) -> bool:
    """Whether `jaxcnn.pretrained.save_weights` wrote the file."""
    try:
        with safe_open(weights, "numpy") as file:
            return (file.metadata() or {}).get("format") == "jaxcnn"
    except (OSError, SafetensorError):  # a .pth file, or one that the loader has something to say about
        return False


def probabilities(model: nnx.Module) -> Callable[[np.ndarray], np.ndarray]:
    """The model in evaluation mode as a compiled function from images to probabilities."""
    model.eval()
    graphdef, state = nnx.split(model)
    variables = nnx.to_pure_dict(state)

    @jax.jit
    def forward(variables, images):
        return jax.nn.softmax(nnx.merge(graphdef, variables)(images).astype(jnp.float32))

    return lambda images: np.asarray(forward(variables, images))


def read_json(path: Path) -> dict:
    """Read a file that a training script left in the run's folder."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} is not the folder of a run: it has no {path.name}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
