"""torchvision's names in an Inception v3."""

from jaxcnn.models.googlenet import Parallel
from jaxcnn.models.inception import InceptionV3
from jaxcnn.nn import ConvNormAct
from jaxcnn.pretrained.layers import Names

OPTIONAL = ("AuxLogits.",)


def torchvision(model: InceptionV3) -> Names:
    """Conv2d_1a_3x3.conv, ..., Mixed_5b.branch5x5_1.conv, ..., AuxLogits.fc, fc: timm has the same."""
    for place in ("1a", "2a", "2b", "3b", "4a"):
        layer = getattr(model, f"conv{place}")
        height, width = layer.conv.kernel.shape[:2]
        yield from _conv(f"Conv2d_{place}_{height}x{width}", layer)
    for name, module in zip(model.names, model.mixed, strict=True):
        for branch, layers in zip(module.names, module.branches, strict=True):
            prefix = f"Mixed_{name}.branch{'_pool' if branch == 'pool' else branch}"
            convs = [layer for layer in layers if isinstance(layer, ConvNormAct | Parallel)]
            for i, layer in enumerate(convs, 1):
                yield from _conv(f"{prefix}_{i}" if len(convs) > 1 else prefix, layer)
    if model.aux is not None:
        yield from _conv("AuxLogits.conv0", model.aux.conv1)
        yield from _conv("AuxLogits.conv1", model.aux.conv2)
        yield "AuxLogits.fc", model.aux.output
    yield "fc", model.output


def _conv(prefix: str, layer: ConvNormAct | Parallel) -> Names:
    if isinstance(layer, Parallel):
        for fork, (conv,) in zip(layer.names, layer.branches, strict=True):
            yield from _conv(f"{prefix}{fork}", conv)
    else:
        yield f"{prefix}.conv", layer.conv
        yield f"{prefix}.bn", layer.norm
