"""A network that compiles in a second, under a name of its own, and pictures that it can tell apart."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

from jaxcnn.models import registry
from jaxcnn.models.resnet import ResNet
from jaxcnn.nn import BasicBlock
from jaxcnn.pretrained import save_weights


def tiny_network(monkeypatch) -> None:
    """Let create_model("tiny") make a ResNet of two blocks."""
    tiny = partial(ResNet, BasicBlock, (1, 1), (4, 8), small_images=True)
    monkeypatch.setitem(registry.MODELS, "tiny", tiny)


def tiny_weights(path: Path, *, num_classes: int) -> Path:
    """Weights for it in a file, with running statistics that are not those of the beginning."""
    model = registry.create_model("tiny", num_classes=num_classes, rngs=nnx.Rngs(7))
    for _, statistic in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        statistic[...] += 0.1
    save_weights(model, path)
    return path


TINY_DATA = {
    "class_names": ["a", "b", "c"],
    "image_shape": (12, 10, 3),
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.1],
}


def tiny_run(folder: Path) -> Path:
    """The folder of a fine-tuned run of it, three classes."""
    folder.mkdir()
    tiny_weights(folder / "weights.safetensors", num_classes=3)
    (folder / "config.json").write_text(json.dumps({"model": "tiny"}))
    (folder / "dataset.json").write_text(json.dumps(TINY_DATA))
    return folder


def picture(
    path: Path, colour: tuple[int, int, int], *, seed: int = 0, size: tuple[int, int] = (18, 15)
) -> Path:
    """Noise around a colour, (height, width) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 40, (*size, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)
    return path
