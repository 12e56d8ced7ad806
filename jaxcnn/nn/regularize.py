"""Random regularisation. Each module has its own key: nothing is shared, and nothing is hidden in a stream.

key, count: the k-th call draws with fold_in(key, k)
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, as_keys, check_rate


class _Random(nnx.Module):
    """A module that draws random numbers in training: rate, deterministic, key, count."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        check_rate(type(self).__name__, rate)
        self.rate = rate
        self.deterministic = False
        self.key = nnx.RngKey(rngs.dropout())
        self.count = nnx.RngCount(jnp.zeros((), jnp.uint32))

    def _next_key(self) -> Array:
        key = _fold_in(self.key[...], self.count[...])
        self.count[...] += 1
        return key


class Dropout(_Random):
    """Dropout: in training an element is zero with probability `rate`, or grows by 1 / (1 - rate).

    In evaluation (`model.eval()`, deterministic=True) x passes unchanged. The state is `key` (nnx.RngKey: one
    key, or one per example, see `set_random_keys`) and `count` (nnx.RngCount: the calls so far).

    Args:
        rate: probability of a zero, in [0, 1].
        rngs: where the stream "dropout" comes from.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference:
        Srivastava et al. 2014, "Dropout".

    Example:
        >>> dropout = Dropout(0.5, rngs=nnx.Rngs(0))
        >>> sorted(set(dropout(jnp.ones((4, 8))).ravel().tolist()))
        [0.0, 2.0]
        >>> dropout.eval()
        >>> dropout(jnp.ones((4, 8))).sum().item()
        32.0
    """

    def __call__(self, x: Float[AnyArray, "batch *rest"]) -> Float[Array, "batch *rest"]:
        """Drop elements of x in training.

        Args:
            x: a batch of anything.

        Returns:
            An array of x's shape and dtype.
        """
        return jnp.asarray(x) if self.deterministic else F.dropout(self._next_key(), x, self.rate)


class DropPath(_Random):
    """Stochastic depth: in training an example is zero with probability `rate`, or grows by 1 / (1 - rate).

    It stands at the end of a residual branch. In evaluation (`model.eval()`, deterministic=True) x passes
    unchanged. The state is that of `Dropout`.

    Args:
        rate: probability of a zero, in [0, 1].
        rngs: where the stream "dropout" comes from.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference:
        Huang et al. 2016, "Deep Networks with Stochastic Depth"; torchvision.ops.StochasticDepth with
        mode "row".

    Example:
        >>> drop_path = DropPath(0.5, rngs=nnx.Rngs(0))
        >>> sorted(set(drop_path(jnp.ones((16, 2, 3, 1))).mean(axis=(1, 2, 3)).tolist()))
        [0.0, 2.0]
    """

    def __call__(self, x: Float[AnyArray, "batch *rest"]) -> Float[Array, "batch *rest"]:
        """Drop examples of x in training.

        Args:
            x: a batch of anything.

        Returns:
            An array of x's shape and dtype.
        """
        return jnp.asarray(x) if self.deterministic else F.drop_path(self._next_key(), x, self.rate)


def set_random_keys(model: nnx.Module, keys: Key[Array, ""] | Key[Array, " batch"]) -> None:
    """Give every Dropout and DropPath of a model its own keys, derived from one key or from one per example.

    The i-th of them in the model gets fold_in(keys, i) and count 0. With one key per example a batch drops
    the same elements however it is split over devices. Call it inside the traced train step:

        example_keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, example_index)
        set_random_keys(model, example_keys)

    Args:
        model: the module whose keys are set, in place.
        keys: one key, or an array (batch,) of keys, from jax.random.key.

    Raises:
        TypeError: keys that are not from jax.random.key.
        ValueError: keys of more than one axis.

    Example:
        >>> model = nnx.Sequential(Dropout(0.5, rngs=nnx.Rngs(0)), Dropout(0.5, rngs=nnx.Rngs(1)))
        >>> x = jnp.ones((4, 100))
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> set_random_keys(model, keys)
        >>> whole = model(x)
        >>> set_random_keys(model, keys[2:])
        >>> (model(x[2:]) == whole[2:]).all().item()
        True
    """
    keys = as_keys("set_random_keys", keys)
    if keys.ndim > 1:
        raise ValueError(
            f"set_random_keys: keys must be one key or have shape (batch,), got shape {keys.shape}"
        )
    random = [module for _, module in nnx.iter_modules(model) if isinstance(module, _Random)]
    for position, module in enumerate(random):
        module.key.set_value(_fold_in(keys, position))
        module.count.set_value(jnp.zeros((), jnp.uint32))


def _fold_in(keys: Array, number: Array | int) -> Array:
    if keys.ndim == 0:
        return jax.random.fold_in(keys, number)
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
