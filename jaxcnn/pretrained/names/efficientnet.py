"""torchvision's, timm's and efficientnet_pytorch's names in an EfficientNet."""

from jaxcnn.models.efficientnet import EfficientNet, FusedMBConv
from jaxcnn.nn import SqueezeExcitation
from jaxcnn.pretrained.layers import Names


def torchvision(model: EfficientNet) -> Names:
    """features.0.0, features.1.0.block.0.0, ...: the stem, the stages and the head are one sequence."""

    def conv(prefix, part):
        yield f"{prefix}.0", part.conv
        yield f"{prefix}.1", part.norm

    yield from conv("features.0", model.stem)
    for i, blocks in enumerate(model.layers, 1):
        for j, block in enumerate(blocks):
            for k, part in enumerate(_parts(block)):
                prefix = f"features.{i}.{j}.block.{k}"
                if isinstance(part, SqueezeExcitation):
                    yield f"{prefix}.fc1", part.reduce
                    yield f"{prefix}.fc2", part.expand
                else:
                    yield from conv(prefix, part)
    yield from conv(f"features.{len(model.layers) + 1}", model.head)
    yield "classifier.1", model.output


def timm(model: EfficientNet) -> Names:
    """conv_stem, bn1, blocks.0.0.conv_dw, ...: a block's kind decides what its convolutions are called."""
    yield "conv_stem", model.stem.conv
    yield "bn1", model.stem.norm
    for i, blocks in enumerate(model.layers):
        for j, block in enumerate(blocks):
            if isinstance(block, FusedMBConv):
                names = ["conv"] if block.project is None else ["conv_exp", "conv_pwl"]
            else:
                names = ["conv_dw", "conv_pw"] if block.expand is None else ["conv_pw", "conv_dw", "conv_pwl"]
                if block.excite is not None:
                    yield f"blocks.{i}.{j}.se.conv_reduce", block.excite.reduce
                    yield f"blocks.{i}.{j}.se.conv_expand", block.excite.expand
            convs = [part for part in _parts(block) if not isinstance(part, SqueezeExcitation)]
            for k, (name, part) in enumerate(zip(names, convs, strict=True), 1):
                yield f"blocks.{i}.{j}.{name}", part.conv
                yield f"blocks.{i}.{j}.bn{k}", part.norm
    yield "conv_head", model.head.conv
    yield "bn2", model.head.norm
    yield "classifier", model.output


def efficientnet_pytorch(model: EfficientNet) -> Names:
    """_conv_stem, _bn0, _blocks.0._depthwise_conv, ...: the blocks of all stages are one list.

    The package has TensorFlow's padding and no V2; weights for one padding give wrong logits with the other.
    """
    blocks = [block for stage in model.layers for block in stage]
    if model.padding != "SAME" or any(isinstance(block, FusedMBConv) for block in blocks):
        return
    yield "_conv_stem", model.stem.conv
    yield "_bn0", model.stem.norm
    for i, block in enumerate(blocks):
        for k, name in enumerate(("expand", "depthwise", "project")):
            part = getattr(block, name)
            if part is not None:
                yield f"_blocks.{i}._{name}_conv", part.conv
                yield f"_blocks.{i}._bn{k}", part.norm
        if block.excite is not None:
            yield f"_blocks.{i}._se_reduce", block.excite.reduce
            yield f"_blocks.{i}._se_expand", block.excite.expand
    yield "_conv_head", model.head.conv
    yield "_bn1", model.head.norm
    yield "_fc", model.output


def _parts(block):
    """The layers of a block in order."""
    if isinstance(block, FusedMBConv):
        parts = [block.expand, block.project]
    else:
        parts = [block.expand, block.depthwise, block.excite, block.project]
    return [part for part in parts if part is not None]
