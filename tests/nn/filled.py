"""Modules with random parameters and statistics, without the time that initialisers take to compile."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx


def filled(build: Callable[[], nnx.Module], seed: int = 0) -> Any:
    """Build a module with gammas and variances around 1, He's kernels, and the rest around 0."""
    module = nnx.eval_shape(build)
    rng = np.random.default_rng(seed)
    for path, variable in nnx.iter_graph(module):
        if not isinstance(variable, nnx.Variable):
            continue
        name, shape = path[-1], variable.shape
        if name == "key":
            value = jnp.asarray(nnx.Rngs(seed).dropout())
        elif name == "count":
            value = jnp.zeros(shape, jnp.uint32)
        elif name == "kernel":
            value = jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])), jnp.float32)
        elif name in ("scale", "var"):
            value = jnp.asarray(rng.uniform(0.7, 1.3, size=shape), jnp.float32)
        else:
            value = jnp.asarray(0.2 * rng.normal(size=shape), jnp.float32)
        variable.set_value(value)
    return module
