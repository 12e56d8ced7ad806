"""Flax NNX modules: each declares its parameters and calls one function of jaxcnn.functional.

They are pytrees without shared references: they work under jax.jit with nnx.split and nnx.merge, and under
nnx.eval_shape. `model.train()` and `model.eval()` switch BatchNorm, Dropout and DropPath; a new module is in
training mode.
"""

from jaxcnn.nn.blocks import BasicBlock, Bottleneck, ConvNormAct
from jaxcnn.nn.conv import Conv, ConvTranspose
from jaxcnn.nn.norm import BatchNorm, GroupNorm, LayerNorm
from jaxcnn.nn.regularize import Dropout, DropPath, set_random_keys

__all__ = [
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "Conv",
    "ConvNormAct",
    "ConvTranspose",
    "DropPath",
    "Dropout",
    "GroupNorm",
    "LayerNorm",
    "set_random_keys",
]
