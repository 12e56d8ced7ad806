"""torchvision's names in a MNASNet."""

from jaxcnn.models.mnasnet import MNASNet
from jaxcnn.pretrained.layers import Names


def torchvision(model: MNASNet) -> Names:
    """layers.0, layers.1, layers.3, ..., layers.8.0.layers.0, ..., layers.14, layers.15, classifier.1."""
    for i, part in zip((0, 3, 6), (model.stem, *model.separable), strict=True):
        yield f"layers.{i}", part.conv
        yield f"layers.{i + 1}", part.norm
    for i, blocks in enumerate(model.layers, 8):
        for j, block in enumerate(blocks):
            for k, part in zip((0, 3, 6), (block.expand, block.depthwise, block.project), strict=True):
                yield f"layers.{i}.{j}.layers.{k}", part.conv
                yield f"layers.{i}.{j}.layers.{k + 1}", part.norm
    yield f"layers.{8 + len(model.layers)}", model.conv.conv
    yield f"layers.{9 + len(model.layers)}", model.conv.norm
    yield "classifier.1", model.output
