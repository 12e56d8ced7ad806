"""Convolution by oneDNN, the library that computes PyTorch's on CPU.

JAX's x86 wheels carry oneDNN, and XLA:CPU has an instruction for its forward convolution in float32, which it
does not use by default. `available` says whether this process may use it, `box` for which convolutions it is
used, `call` writes it out, `instruction` prepares a convolution for it, and `gradient` makes the gradient of
a kernel one.
"""

from jaxcnn.lowering.onednn.gradient import kernel_gradient, why_no_kernel_gradient
from jaxcnn.lowering.onednn.instruction import forward, why_never, why_not

__all__ = ["forward", "kernel_gradient", "why_never", "why_no_kernel_gradient", "why_not"]
