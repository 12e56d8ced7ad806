"""Published weights in jaxcnn's models, and jaxcnn's own weights in files."""

from jaxcnn.pretrained.load import load_torch_weights, load_weights, save_weights
from jaxcnn.pretrained.published import Preprocessing, Published, imagenet_classes, published

__all__ = [
    "Preprocessing",
    "Published",
    "imagenet_classes",
    "load_torch_weights",
    "load_weights",
    "published",
    "save_weights",
]
