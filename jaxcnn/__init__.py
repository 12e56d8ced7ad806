"""Convolutional neural networks in JAX: pure functions, thin Flax modules, plain training scripts."""

from jaxcnn import functional, models, nn
from jaxcnn.lowering import accelerate, explain

__all__ = ["accelerate", "explain", "functional", "models", "nn"]
__version__ = "0.1.0"
