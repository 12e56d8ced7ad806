"""torchvision's and timm's names in a ResNet."""

from jaxcnn.models.resnet import ResNet
from jaxcnn.pretrained.layers import Names


def torchvision(model: ResNet) -> Names:
    """conv1, bn1, layer1.0.conv1, ...: timm has the same."""
    yield "conv1", model.stem.conv
    yield "bn1", model.stem.norm
    for i, layer in enumerate(model.layers, 1):
        for j, block in enumerate(layer):
            for k, part in enumerate(block.branch, 1):
                yield f"layer{i}.{j}.conv{k}", part.conv
                yield f"layer{i}.{j}.bn{k}", part.norm
            if block.projection is not None:
                yield f"layer{i}.{j}.downsample.0", block.projection.conv
                yield f"layer{i}.{j}.downsample.1", block.projection.norm
    yield "fc", model.output
