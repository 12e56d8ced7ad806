"""How convolutions and pooling are compiled: exact rewrites under JAX's own primitives.

Every convolution of this package stays one `lax.conv_general_dilated`, and so keeps all derivatives and
transformations of JAX. What changes is what that primitive is compiled to, where it is tagged: see `tag`,
`rules`, and the table in `choice`.
"""

from jaxcnn.lowering.accelerate import accelerate
from jaxcnn.lowering.explain import explain

__all__ = ["accelerate", "explain"]
