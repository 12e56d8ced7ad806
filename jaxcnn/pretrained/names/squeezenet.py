"""torchvision's names in a SqueezeNet."""

from jaxcnn.models.squeezenet import SqueezeNet
from jaxcnn.pretrained.layers import Names


def torchvision(model: SqueezeNet) -> Names:
    """features.0, features.3.squeeze, ..., classifier.1: activations and poolings count too."""
    yield "features.0", model.stem
    position = 2  # after the relu
    for group in model.groups:
        position += 1  # the pooling
        for fire in group:
            for name in ("squeeze", "expand1x1", "expand3x3"):
                yield f"features.{position}.{name}", getattr(fire, name)
            position += 1
    yield "classifier.1", model.output
