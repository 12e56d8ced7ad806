"""Convolutional neural networks in JAX: pure functions, thin Flax modules, plain training scripts."""

from jaxcnn import analysis, functional, interpret, models, nn, pretrained
from jaxcnn.lowering import accelerate, explain

__all__ = ["accelerate", "analysis", "explain", "functional", "interpret", "models", "nn", "pretrained"]
__version__ = "0.1.0"
