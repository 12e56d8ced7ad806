"""torchvision's names in a ShuffleNetV2."""

from collections.abc import Iterable

from jaxcnn.models.shufflenet_v2 import ShuffleNetV2
from jaxcnn.nn import ConvNormAct
from jaxcnn.pretrained.layers import Names


def torchvision(model: ShuffleNetV2) -> Names:
    """conv1.0, conv1.1, stage2.0.branch1.0, ..., conv5.0, conv5.1, fc."""
    yield from _numbered("conv1", (0,), [model.stem])
    for i, blocks in enumerate(model.layers, 2):
        for j, block in enumerate(blocks):
            if block.left is not None:
                yield from _numbered(f"stage{i}.{j}.branch1", (0, 2), block.left)
            yield from _numbered(f"stage{i}.{j}.branch2", (0, 3, 5), block.right)
    yield from _numbered("conv5", (0,), [model.conv])
    yield "fc", model.output


def _numbered(prefix: str, positions: Iterable[int], parts: Iterable[ConvNormAct]) -> Names:
    for position, part in zip(positions, parts, strict=True):
        yield f"{prefix}.{position}", part.conv
        yield f"{prefix}.{position + 1}", part.norm
