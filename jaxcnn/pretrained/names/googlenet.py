"""torchvision's names in a GoogLeNet."""

from string import ascii_lowercase

from jaxcnn.models.googlenet import GoogLeNet
from jaxcnn.nn import ConvNormAct
from jaxcnn.pretrained.layers import Names

OPTIONAL = ("aux1.", "aux2.")


def torchvision(model: GoogLeNet) -> Names:
    """conv1.conv, conv1.bn, ..., inception3a.branch2.0.conv, ..., aux1.conv.conv, ..., fc."""
    for i, conv in enumerate((model.conv1, model.conv2, model.conv3), 1):
        yield from _conv(f"conv{i}", conv)
    for number, group in enumerate(model.groups, 3):
        for letter, module in zip(ascii_lowercase, group, strict=False):
            for i, branch in enumerate(module.branches, 1):
                for j, layer in enumerate(branch):
                    if isinstance(layer, ConvNormAct):  # not the pooling, which counts all the same
                        position = f".{j}" if len(branch) > 1 else ""
                        yield from _conv(f"inception{number}{letter}.branch{i}{position}", layer)
    for i, head in enumerate(model.aux_heads, 1):
        yield from _conv(f"aux{i}.conv", head.conv)
        yield f"aux{i}.fc1", head.hidden
        yield f"aux{i}.fc2", head.output
    yield "fc", model.output


def _conv(prefix: str, layer: ConvNormAct) -> Names:
    yield f"{prefix}.conv", layer.conv
    yield f"{prefix}.bn", layer.norm
