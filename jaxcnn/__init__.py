"""Convolutional neural networks in JAX: pure functions, thin Flax modules, plain training scripts."""

__version__ = "0.1.0"
