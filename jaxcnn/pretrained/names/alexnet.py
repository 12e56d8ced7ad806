"""torchvision's names in an AlexNet."""

from jaxcnn.models.alexnet import AlexNet
from jaxcnn.pretrained.layers import Names


def torchvision(model: AlexNet) -> Names:
    """features.0, .3, .6, .8, .10 and classifier.1, .4, .6: activations, poolings and dropouts count too."""
    convolutions = (model.conv1, model.conv2, model.conv3, model.conv4, model.conv5)
    for number, layer in zip((0, 3, 6, 8, 10), convolutions, strict=True):
        yield f"features.{number}", layer
    for number, layer in zip((1, 4, 6), (model.fc6, model.fc7, model.output), strict=True):
        yield f"classifier.{number}", layer
