"""Random regularisation. Each module has its own key: nothing is shared, and nothing is hidden in a stream.

key, count: the k-th call draws with fold_in(key, k)
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, PerAxis, as_floating, as_keys, canonical_window, check_rate


class _Random(nnx.Module):
    """A module that draws random numbers in training: rate, deterministic, key, count."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        check_rate(type(self).__name__, rate)
        self.rate = rate
        self.deterministic = False
        self.key = nnx.RngKey(rngs.dropout())
        self.count = nnx.RngCount(jnp.zeros((), jnp.uint32))

    def _unchanged(self, x: AnyArray) -> Array:
        return as_floating(type(self).__name__, "x", x)

    def _next_key(self) -> Array:
        key = _fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
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
        return self._unchanged(x) if self.deterministic else F.dropout(self._next_key(), x, self.rate)


class ChannelDropout(_Random):
    """Channel dropout: in training a whole channel of an example is zero with probability `rate`.

    The others grow by 1 / (1 - rate). In evaluation (`model.eval()`, deterministic=True) x passes unchanged.
    The state is that of `Dropout`.

    Args:
        rate: probability of a zero, in [0, 1].
        rngs: where the stream "dropout" comes from.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference:
        Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks";
        torch.nn.Dropout1d, Dropout2d and Dropout3d.

    Example:
        >>> dropout = ChannelDropout(0.5, rngs=nnx.Rngs(0))
        >>> sorted(set(dropout(jnp.ones((4, 2, 3, 8))).mean(axis=(1, 2)).ravel().tolist()))
        [0.0, 2.0]
    """

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Drop channels of x in training.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        return self._unchanged(x) if self.deterministic else F.channel_dropout(self._next_key(), x, self.rate)


class DropBlock(_Random):
    """DropBlock: in training blocks of each channel are zero, about `rate` of all elements.

    What is left of an example is scaled so that its mean stays. In evaluation (`model.eval()`,
    deterministic=True) x passes unchanged. The state is that of `Dropout`.

    Args:
        rate: the part to drop, in [0, 1].
        block: size of a block per spatial axis; an int means two axes.
        rngs: where the stream "dropout" comes from.

    Raises:
        ValueError: a rate outside [0, 1], a block below 1; when called, a block larger than the image.
        TypeError: a block that is not made of ints.

    Reference:
        Ghiasi, Lin and Le 2018, "DropBlock"; torchvision.ops.DropBlock2d, but for the scale, see
        `jaxcnn.functional.drop_block`.

    Example:
        >>> drop_block = DropBlock(0.3, 3, rngs=nnx.Rngs(0))
        >>> y = drop_block(jnp.ones((2, 8, 9, 4)))
        >>> round(y.mean().item(), 4), bool((y == 0).any())
        (1.0, True)
    """

    def __init__(self, rate: float, block: PerAxis, *, rngs: nnx.Rngs):
        super().__init__(rate, rngs=rngs)
        self.block = canonical_window("DropBlock", block, name="block")

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Drop blocks of x in training.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        if self.deterministic:
            return self._unchanged(x)
        return F.drop_block(self._next_key(), x, self.rate, self.block)


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
        return self._unchanged(x) if self.deterministic else F.drop_path(self._next_key(), x, self.rate)


def set_random_keys(model: nnx.Module, keys: Key[Array, ""] | Key[Array, " batch"]) -> None:
    """Give every random module of a model its own keys, derived from one key or from one per example.

    The i-th Dropout, ChannelDropout, DropBlock or DropPath in the model gets fold_in(keys, i) and count 0.
    With one key per example a batch drops the same elements however it is split over devices. Call it inside
    the traced train step:

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
