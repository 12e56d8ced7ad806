"""torchvision's and timm's names in a MobileNetV3."""

from jaxcnn.models.mobilenet_v3 import MobileNetV3
from jaxcnn.nn import ConvNormAct
from jaxcnn.pretrained.layers import Names
from jaxcnn.pretrained.names.mobilenet_v2 import _timm_blocks


def torchvision(model: MobileNetV3) -> Names:
    """features.0.0, features.0.1, features.1.block.0.0, ..., classifier.0, classifier.3."""
    yield "features.0.0", model.stem.conv
    yield "features.0.1", model.stem.norm
    blocks = [block for stage in model.layers for block in stage]
    for i, block in enumerate(blocks, 1):
        parts = (block.expand, block.depthwise, block.excite, block.project)
        for j, part in enumerate(part for part in parts if part is not None):
            conv = isinstance(part, ConvNormAct)
            names = {"0": part.conv, "1": part.norm} if conv else {"fc1": part.reduce, "fc2": part.expand}
            for name, layer in names.items():
                yield f"features.{i}.block.{j}.{name}", layer
    yield f"features.{len(blocks) + 1}.0", model.conv.conv
    yield f"features.{len(blocks) + 1}.1", model.conv.norm
    yield "classifier.0", model.hidden
    yield "classifier.3", model.output


def timm(model: MobileNetV3) -> Names:
    """conv_stem, bn1, blocks.0.0.conv_dw, ..., conv_head, classifier; the last convolution is a block too."""
    yield "conv_stem", model.stem.conv
    yield "bn1", model.stem.norm
    yield from _timm_blocks(model.layers)
    yield f"blocks.{len(model.layers)}.0.conv", model.conv.conv
    yield f"blocks.{len(model.layers)}.0.bn1", model.conv.norm
    yield "conv_head", model.hidden
    yield "classifier", model.output
