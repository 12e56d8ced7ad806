"""Flax NNX modules: each declares its parameters and calls one function of jaxcnn.functional.

They are pytrees without shared references: they work under jax.jit with nnx.split and nnx.merge, and under
nnx.eval_shape. `model.train()` and `model.eval()` switch BatchNorm and the random modules of
regularize.py; a new module is in training mode.
"""

from jaxcnn.nn.blocks import BasicBlock, Bottleneck, ConvNormAct
from jaxcnn.nn.conv import Conv, ConvTranspose, DeformConv, SeparableConv
from jaxcnn.nn.mobile import InvertedResidual, SqueezeExcitation, round_channels
from jaxcnn.nn.norm import (
    BatchNorm,
    GlobalResponseNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from jaxcnn.nn.pool import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
    MaxUnpool,
    SpatialPyramidPool,
)
from jaxcnn.nn.regularize import ChannelDropout, DropBlock, Dropout, DropPath, set_random_keys
from jaxcnn.nn.resample import PixelShuffle, PixelUnshuffle, Resize

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "ChannelDropout",
    "Conv",
    "ConvNormAct",
    "ConvTranspose",
    "DeformConv",
    "DropBlock",
    "DropPath",
    "Dropout",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GlobalResponseNorm",
    "GroupNorm",
    "InstanceNorm",
    "InvertedResidual",
    "LayerNorm",
    "LocalResponseNorm",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "PixelShuffle",
    "PixelUnshuffle",
    "RMSNorm",
    "Resize",
    "SeparableConv",
    "SpatialPyramidPool",
    "SqueezeExcitation",
    "round_channels",
    "set_random_keys",
]
