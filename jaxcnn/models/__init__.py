"""Architectures built of jaxcnn.nn, one family per file."""

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.mlp import MLP
from jaxcnn.models.registry import create_model, list_models
from jaxcnn.models.resnet import ResNet, cifar_resnet, resnet

__all__ = ["MLP", "Classifier", "LeNet5", "ResNet", "cifar_resnet", "create_model", "list_models", "resnet"]
