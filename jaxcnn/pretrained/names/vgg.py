"""torchvision's and timm's names in a VGG."""

from jaxcnn.models.vgg import VGG
from jaxcnn.pretrained.layers import Names


def torchvision(model: VGG) -> Names:
    """features.0, features.2, ..., classifier.0, .3, .6: activations, poolings and dropouts count too."""
    yield from _features(model)
    yield "classifier.0", model.hidden1
    yield "classifier.3", model.hidden2
    yield "classifier.6", model.output


def timm(model: VGG) -> Names:
    """features.0, features.2, ..., pre_logits.fc1, pre_logits.fc2, head.fc."""
    yield from _features(model)
    yield "pre_logits.fc1", model.hidden1
    yield "pre_logits.fc2", model.hidden2
    yield "head.fc", model.output


def _features(model: VGG) -> Names:
    position = 0
    for layers in model.groups:
        for layer in layers:
            yield f"features.{position}", layer.conv
            if layer.norm is not None:
                yield f"features.{position + 1}", layer.norm
            position += 2 if layer.norm is None else 3  # with the relu
        position += 1  # the pooling
