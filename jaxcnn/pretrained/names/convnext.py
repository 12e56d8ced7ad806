"""torchvision's, timm's and the authors' names in a ConvNeXt of either version."""

from jaxcnn.models.convnext import ConvNeXt
from jaxcnn.pretrained.layers import Names


def torchvision(model: ConvNeXt) -> Names:
    """features.0.0, features.1.0.block.0, ..., classifier.2: it has the first version only."""
    for i, (pair, blocks) in enumerate(zip(model.downsample, model.layers, strict=True)):
        for j, layer in enumerate(pair):
            yield f"features.{2 * i}.{j}", layer
        for j, block in enumerate(blocks):
            prefix = f"features.{2 * i + 1}.{j}"
            yield f"{prefix}.block.0", block.depthwise
            yield f"{prefix}.block.2", block.norm
            yield f"{prefix}.block.3", block.expand
            yield f"{prefix}.block.5", block.project
            if block.layer_scale is not None:
                yield f"{prefix}.layer_scale", block.layer_scale
    yield "classifier.0", model.norm
    yield "classifier.2", model.output


def timm(model: ConvNeXt) -> Names:
    """stem.0, stages.0.blocks.0.conv_dw, ..., stages.1.downsample.0, ..., head.norm, head.fc."""
    for i, (pair, blocks) in enumerate(zip(model.downsample, model.layers, strict=True)):
        for j, layer in enumerate(pair):
            yield f"stages.{i}.downsample.{j}" if i else f"stem.{j}", layer
        for j, block in enumerate(blocks):
            prefix = f"stages.{i}.blocks.{j}"
            yield f"{prefix}.conv_dw", block.depthwise
            yield f"{prefix}.norm", block.norm
            yield f"{prefix}.mlp.fc1", block.expand
            if block.grn is not None:
                yield f"{prefix}.mlp.grn", block.grn
            yield f"{prefix}.mlp.fc2", block.project
            if block.layer_scale is not None:
                yield f"{prefix}.gamma", block.layer_scale
    yield "head.norm", model.norm
    yield "head.fc", model.output


def original(model: ConvNeXt) -> Names:
    """downsample_layers.0.0, stages.0.0.dwconv, ..., norm, head: the papers' repositories."""
    for i, (pair, blocks) in enumerate(zip(model.downsample, model.layers, strict=True)):
        for j, layer in enumerate(pair):
            yield f"downsample_layers.{i}.{j}", layer
        for j, block in enumerate(blocks):
            prefix = f"stages.{i}.{j}"
            yield f"{prefix}.dwconv", block.depthwise
            yield f"{prefix}.norm", block.norm
            yield f"{prefix}.pwconv1", block.expand
            if block.grn is not None:
                yield f"{prefix}.grn.gamma", block.grn.scale
                yield f"{prefix}.grn.beta", block.grn.bias
            yield f"{prefix}.pwconv2", block.project
            if block.layer_scale is not None:
                yield f"{prefix}.gamma", block.layer_scale
    yield "norm", model.norm
    yield "head", model.output
