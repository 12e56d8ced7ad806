"""torchvision's and timm's names in a RegNet."""

from jaxcnn.models.regnet import RegNet, RegNetBlock
from jaxcnn.pretrained.layers import Names


def torchvision(model: RegNet) -> Names:
    """stem.0, stem.1, trunk_output.block1.block1-0.f.a.0, ..., fc."""
    yield "stem.0", model.stem.conv
    yield "stem.1", model.stem.norm
    for i, blocks in enumerate(model.layers, 1):
        for j, block in enumerate(blocks):
            names = ("f.a", "f.b", "f.se", "f.c", "proj")
            yield from _block(block, f"trunk_output.block{i}.block{i}-{j}", names, "0", "1")
    yield "fc", model.output


def timm(model: RegNet) -> Names:
    """stem.conv, stem.bn, s1.b1.conv1.conv, ..., head.fc."""
    yield "stem.conv", model.stem.conv
    yield "stem.bn", model.stem.norm
    for i, blocks in enumerate(model.layers, 1):
        for j, block in enumerate(blocks, 1):
            names = ("conv1", "conv2", "se", "conv3", "downsample")
            yield from _block(block, f"s{i}.b{j}", names, "conv", "bn")
    yield "head.fc", model.output


def _block(block: RegNetBlock, prefix: str, names: tuple[str, ...], conv: str, norm: str) -> Names:
    expand, grouped, excite, contract, projection = (f"{prefix}.{name}" for name in names)
    for name, part in (
        (expand, block.expand),
        (grouped, block.grouped),
        (contract, block.contract),
        (projection, block.projection),
    ):
        if part is not None:
            yield f"{name}.{conv}", part.conv
            yield f"{name}.{norm}", part.norm
    if block.excite is not None:
        yield f"{excite}.fc1", block.excite.reduce
        yield f"{excite}.fc2", block.excite.expand
