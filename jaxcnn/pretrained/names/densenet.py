"""torchvision's and timm's names in a DenseNet."""

from jaxcnn.models.densenet import DenseNet
from jaxcnn.pretrained.layers import Names


def torchvision(model: DenseNet) -> Names:
    """features.conv0, features.denseblock1.denselayer1.norm1, ..., classifier: timm has the same."""
    yield from _named(model, "")


def torchvision_old(model: DenseNet) -> Names:
    """As in torchvision's published files: features.denseblock1.denselayer1.norm.1, conv.1, ..."""
    yield from _named(model, ".")


def _named(model: DenseNet, point: str) -> Names:
    yield "features.conv0", model.stem.conv
    yield "features.norm0", model.stem.norm
    for i, block in enumerate(model.blocks, 1):
        for j, layer in enumerate(block, 1):
            for k, part in enumerate((layer.squeeze, layer.grow), 1):
                yield f"features.denseblock{i}.denselayer{j}.norm{point}{k}", part.norm
                yield f"features.denseblock{i}.denselayer{j}.conv{point}{k}", part.conv
    for i, transition in enumerate(model.transitions, 1):
        yield f"features.transition{i}.norm", transition.norm
        yield f"features.transition{i}.conv", transition.conv
    yield "features.norm5", model.norm
    yield "classifier", model.output
