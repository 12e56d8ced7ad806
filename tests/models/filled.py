"""Models with random parameters and statistics, without the time that initialisers take to compile."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx


def filled(build: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
    """A model with random parameters and statistics: gammas and variances around 1, the rest around 0."""
    model = nnx.eval_shape(build)
    rng = np.random.default_rng(seed)
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, (nnx.Param, nnx.BatchStat)):
            name, shape = path[-1], variable.shape
            if name == "kernel":
                value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
            elif name in ("scale", "var"):
                value = rng.uniform(0.7, 1.3, size=shape)
            else:
                value = 0.2 * rng.normal(size=shape)
            variable.set_value(jnp.asarray(value, jnp.float32))
    return model
