"""Normalisations with their parameters and running statistics, all of them float32."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import jaxcnn.functional as F
from jaxcnn.functional.checks import AnyArray, as_floating, as_int, check_eps, check_number
from jaxcnn.functional.response_norm import check_local_response


class BatchNorm(nnx.Module):
    """Batch normalisation, with torch's numbers.

    In training x is normalised with its own mean and biased variance over every axis but the last, and the
    running statistics move towards them,

        mean <- momentum * mean + (1 - momentum) * batch mean
        var  <- momentum * var  + (1 - momentum) * batch variance * n / (n - 1)

    for n values per channel; in evaluation (`model.eval()`, use_running_average=True) the running statistics
    normalise x. `scale` and `bias` are nnx.Param, `mean` and `var` nnx.BatchStat. The result has x's dtype.

    Args:
        channels: channels of x.
        momentum: the weight kept on the old running statistics: 1 minus torch's momentum.
        eps: added to the variance.
        axis_name: the axis of pmap, vmap or shard_map over whose devices the statistics are taken together;
            `model.set_attributes(axis_name="data", raise_if_not_found=False)` sets it in a whole model.

    Raises:
        ValueError: channels < 1, a momentum outside [0, 1], eps <= 0; when called in training, a single value
            per channel, which has no variance; when called, another number of channels.

    Reference:
        Ioffe and Szegedy 2015, "Batch Normalization"; torch.nn.BatchNorm2d.

    Example:
        >>> norm = BatchNorm(2, momentum=0.5)
        >>> y = norm(jnp.array([[2.0, 10.0], [4.0, 30.0]]))  # two examples, no spatial axis
        >>> y.round(2).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
        >>> norm.mean[...].tolist()  # half the way from 0
        [1.5, 10.0]
        >>> norm.eval()
    """

    def __init__(
        self, channels: int, *, momentum: float = 0.9, eps: float = 1e-5, axis_name: str | None = None
    ):
        channels = as_int("BatchNorm", "channels", channels, minimum=1)
        check_number("BatchNorm", "momentum", momentum, minimum=0, maximum=1)
        check_eps("BatchNorm", eps)
        self.momentum = momentum
        self.eps = eps
        self.axis_name = axis_name
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x, and in training update the running statistics.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        x = _with_channels("BatchNorm", x, self.scale)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(x)
        return F.batch_norm(x, mean, var, self.scale[...], self.bias[...], eps=self.eps)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
        mean, var, count = F.batch_stats(x, axis_name=self.axis_name)
        unbiased = var * (count / (count - 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            old = running[...]
            # By set_value: an assignment to running[...] compares shardings, for which a tracer searches the
            # whole program, so that tracing would take the square of the network's depth.
            running.set_value(self.momentum * old + (1.0 - self.momentum) * batch.astype(old.dtype))
        return mean, var


class GroupNorm(nnx.Module):
    """Group normalisation: each example's groups of neighbouring channels, over all positions.

    `scale` and `bias` are float32 nnx.Param; the result has x's dtype.

    Args:
        channels: channels of x.
        groups: number of groups; it divides channels.
        eps: added to the variance.

    Raises:
        ValueError: channels that groups does not divide, eps <= 0; when called, another number of channels.

    Reference:
        Wu and He 2018, "Group Normalization"; torch.nn.GroupNorm.

    Example:
        >>> GroupNorm(4, 2)(jnp.array([[1.0, 3.0, 10.0, 30.0]])).round(2).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(self, channels: int, groups: int, *, eps: float = 1e-5):
        channels = as_int("GroupNorm", "channels", channels, minimum=1)
        groups = as_int("GroupNorm", "groups", groups, minimum=1)
        if channels % groups:
            raise ValueError(
                f"GroupNorm: groups must divide channels, got groups={groups}, channels={channels}"
            )
        check_eps("GroupNorm", eps)
        self.groups = groups
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        x = _with_channels("GroupNorm", x, self.scale)
        return F.group_norm(x, self.groups, self.scale[...], self.bias[...], eps=self.eps)


class InstanceNorm(nnx.Module):
    """Instance normalisation: each channel of each example, over all positions.

    `scale` and `bias` are float32 nnx.Param; the result has x's dtype.

    Args:
        channels: channels of x.
        eps: added to the variance.

    Raises:
        ValueError: channels < 1, eps <= 0; when called, another number of channels, a single position.

    Reference:
        Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization"; torch.nn.InstanceNorm2d with
        affine=True.

    Example:
        >>> InstanceNorm(2)(jnp.array([[[1.0, 10.0], [3.0, 30.0]]])).round(2).tolist()
        [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-5):
        channels = as_int("InstanceNorm", "channels", channels, minimum=1)
        check_eps("InstanceNorm", eps)
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        x = _with_channels("InstanceNorm", x, self.scale)
        return F.instance_norm(x, self.scale[...], self.bias[...], eps=self.eps)


class LayerNorm(nnx.Module):
    """Layer normalisation over the channels of each position, as ConvNeXt uses it.

    `scale` and `bias` are float32 nnx.Param; the result has x's dtype.

    Args:
        channels: channels of x.
        eps: added to the variance.

    Raises:
        ValueError: channels < 1, eps <= 0; when called, another number of channels.

    Reference:
        Ba, Kiros and Hinton 2016, "Layer Normalization"; torch.nn.LayerNorm(channels).

    Example:
        >>> LayerNorm(2)(jnp.array([[1.0, 3.0], [10.0, 30.0]])).round(2).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-5):
        channels = as_int("LayerNorm", "channels", channels, minimum=1)
        check_eps("LayerNorm", eps)
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: (batch, *spatial, channels); no spatial axis is needed.

        Returns:
            An array of x's shape and dtype.
        """
        x = _with_channels("LayerNorm", x, self.scale)
        return F.layer_norm(x, self.scale[...], self.bias[...], eps=self.eps)


class RMSNorm(nnx.Module):
    """Root mean square normalisation over the channels of each position.

    `scale` is a float32 nnx.Param; the result has x's dtype.

    Args:
        channels: channels of x.
        eps: added to the mean square.

    Raises:
        ValueError: channels < 1, eps <= 0; when called, another number of channels.

    Reference:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization"; torch.nn.RMSNorm(channels).

    Example:
        >>> RMSNorm(2)(jnp.array([[3.0, -3.0]])).round(2).tolist()
        [[1.0, -1.0]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-6):
        channels = as_int("RMSNorm", "channels", channels, minimum=1)
        check_eps("RMSNorm", eps)
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: (batch, *spatial, channels); no spatial axis is needed.

        Returns:
            An array of x's shape and dtype.
        """
        x = _with_channels("RMSNorm", x, self.scale)
        return F.rms_norm(x, self.scale[...], eps=self.eps)


class LocalResponseNorm(nnx.Module):
    """Local response normalisation, by the channels beside each one; it has no parameters.

    Args:
        size: channels of the neighbourhood.
        alpha: weight of their mean square, at least 0.
        beta: the exponent, at least 0.
        k: what a position without energy is divided by, to the power of beta; positive.

    Raises:
        ValueError: an option out of range.
        TypeError: a size that is no int.

    Reference:
        Krizhevsky, Sutskever and Hinton 2012, section 3.3; torch.nn.LocalResponseNorm. AlexNet has size 5,
        alpha 5e-4 (1e-4 in the paper, which does not divide by size), beta 0.75 and k 2.

    Example:
        >>> norm = LocalResponseNorm(2, alpha=2.0, beta=1.0, k=3.0)
        >>> norm(jnp.array([[[1.0, 2.0, 3.0]]])).tolist()
        [[[0.25, 0.25, 0.1875]]]
    """

    def __init__(
        self, size: int, *, alpha: float | int = 1e-4, beta: float | int = 0.75, k: float | int = 1.0
    ):
        self.size = check_local_response("LocalResponseNorm", size, alpha, beta, k)
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        return F.local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)


class GlobalResponseNorm(nnx.Module):
    """Global response normalisation: channels of an example compete by their norms, and x is added.

    `scale` and `bias` are float32 nnx.Param, initially 0, so that a new module returns x; the result has x's
    dtype.

    Args:
        channels: channels of x.
        eps: added to the mean of the norms.

    Raises:
        ValueError: channels < 1, eps <= 0; when called, another number of channels.

    Reference:
        Woo et al. 2023, "ConvNeXt V2", section 3.2.

    Example:
        >>> norm = GlobalResponseNorm(2)
        >>> norm.scale[...] = jnp.ones(2)
        >>> norm(jnp.array([[[3.0, 0.0], [4.0, 0.0]]])).round(2).tolist()
        [[[9.0, 0.0], [12.0, 0.0]]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-6):
        channels = as_int("GlobalResponseNorm", "channels", channels, minimum=1)
        check_eps("GlobalResponseNorm", eps)
        self.eps = eps
        self.scale = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[AnyArray, "batch *spatial channels"]
    ) -> Float[Array, "batch *spatial channels"]:
        """Normalise x.

        Args:
            x: images (batch, *spatial, channels).

        Returns:
            Images of x's shape and dtype.
        """
        x = _with_channels("GlobalResponseNorm", x, self.scale)
        return F.global_response_norm(x, self.scale[...], self.bias[...], eps=self.eps)


def _with_channels(module: str, x: AnyArray, scale: nnx.Param[Array]) -> Array:
    x = as_floating(module, "x", x)
    if x.shape[-1:] != scale.shape:
        raise ValueError(
            f"{module}: x must have {scale.shape[0]} channels (its last axis), got shape {x.shape}"
        )
    return x
