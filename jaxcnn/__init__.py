"""Convolutional neural networks in JAX: pure functions, thin Flax modules, plain training scripts."""

from jaxcnn import functional, models, nn
from jaxcnn.lowering import accelerate

__all__ = ["accelerate", "functional", "models", "nn"]
__version__ = "0.1.0"
