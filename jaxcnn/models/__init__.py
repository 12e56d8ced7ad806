"""Architectures built of jaxcnn.nn, one family per file.

`create_model` makes any of them by its name. A family's file has its class, its blocks, the table of its
named architectures and, where there are several, a function of the file's name that makes one of them.
"""

from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.allconv import AllConvNet
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.convnext import ConvNeXt, ConvNeXtBlock
from jaxcnn.models.densenet import DenseLayer, DenseNet, NormActConv
from jaxcnn.models.efficientnet import EfficientNet, FusedMBConv
from jaxcnn.models.googlenet import GoogLeNet, Parallel
from jaxcnn.models.inception import InceptionV3
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.mlp import MLP
from jaxcnn.models.mnasnet import MNASNet
from jaxcnn.models.mobilenet_v2 import MobileNetV2
from jaxcnn.models.mobilenet_v3 import MobileNetV3
from jaxcnn.models.registry import create_model, list_models
from jaxcnn.models.regnet import RegNet, RegNetBlock, stages_of
from jaxcnn.models.resnet import ResNet, cifar_resnet
from jaxcnn.models.shufflenet_v2 import ShuffleBlock, ShuffleNetV2
from jaxcnn.models.squeezenet import Fire, SqueezeNet
from jaxcnn.models.vgg import VGG, VGGLayer

__all__ = [
    "MLP",
    "VGG",
    "AlexNet",
    "AllConvNet",
    "Classifier",
    "ConvNeXt",
    "ConvNeXtBlock",
    "DenseLayer",
    "DenseNet",
    "EfficientNet",
    "Fire",
    "FusedMBConv",
    "GoogLeNet",
    "InceptionV3",
    "LeNet5",
    "MNASNet",
    "MobileNetV2",
    "MobileNetV3",
    "NormActConv",
    "Parallel",
    "RegNet",
    "RegNetBlock",
    "ResNet",
    "ShuffleBlock",
    "ShuffleNetV2",
    "SqueezeNet",
    "VGGLayer",
    "cifar_resnet",
    "create_model",
    "list_models",
    "stages_of",
]
