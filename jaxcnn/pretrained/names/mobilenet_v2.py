"""torchvision's and timm's names in a MobileNetV2."""

from collections.abc import Iterable

from jaxcnn.models.mobilenet_v2 import MobileNetV2
from jaxcnn.nn import InvertedResidual
from jaxcnn.pretrained.layers import Names


def torchvision(model: MobileNetV2) -> Names:
    """features.0.0, features.0.1, features.1.conv.0.0, ..., classifier.1."""
    yield "features.0.0", model.stem.conv
    yield "features.0.1", model.stem.norm
    blocks = [block for stage in model.layers for block in stage]
    for i, block in enumerate(blocks, 1):
        activated = [part for part in (block.expand, block.depthwise) if part is not None]
        for j, part in enumerate(activated):
            yield f"features.{i}.conv.{j}.0", part.conv
            yield f"features.{i}.conv.{j}.1", part.norm
        yield f"features.{i}.conv.{len(activated)}", block.project.conv
        yield f"features.{i}.conv.{len(activated) + 1}", block.project.norm
    yield f"features.{len(blocks) + 1}.0", model.conv.conv
    yield f"features.{len(blocks) + 1}.1", model.conv.norm
    yield "classifier.1", model.output


def timm(model: MobileNetV2) -> Names:
    """conv_stem, bn1, blocks.0.0.conv_dw, ..., conv_head, bn2, classifier."""
    yield "conv_stem", model.stem.conv
    yield "bn1", model.stem.norm
    yield from _timm_blocks(model.layers)
    yield "conv_head", model.conv.conv
    yield "bn2", model.conv.norm
    yield "classifier", model.output


def _timm_blocks(stages: Iterable[Iterable[InvertedResidual]]) -> Names:
    for s, blocks in enumerate(stages):
        for b, block in enumerate(blocks):
            parts = {"conv_dw": block.depthwise, "conv_pw": block.project}
            if block.expand is not None:
                parts = {"conv_pw": block.expand, "conv_dw": block.depthwise, "conv_pwl": block.project}
            for i, (name, part) in enumerate(parts.items(), 1):
                yield f"blocks.{s}.{b}.{name}", part.conv
                yield f"blocks.{s}.{b}.bn{i}", part.norm
            if block.excite is not None:
                yield f"blocks.{s}.{b}.se.conv_reduce", block.excite.reduce
                yield f"blocks.{s}.{b}.se.conv_expand", block.excite.expand
