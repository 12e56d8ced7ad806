"""The image that a unit answers to most, by gradient ascent on its pixels."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import OneKey, as_int, as_keys, check_number, check_shape, per_axis, widen
from jaxcnn.interpret.evaluation import as_tap, in_evaluation
from jaxcnn.models.classifier import Classifier


class _Options(NamedTuple):
    """Numbers that may change without another compilation."""

    channel: Array
    low: Array
    high: Array
    steps: Array
    jitter: Array
    learning_rate: Array
    blur: Array
    total_variation: Array


def maximize_activation(
    key: OneKey,
    model: Classifier,
    tap: str,
    channel: int,
    *,
    shape: tuple[int, int],
    steps: int = 256,
    learning_rate: float | int = 0.5,
    jitter: int | None = None,
    blur: float | int = 1.0,
    total_variation: float | int = 0.2,
    low: ArrayLike = -2.0,
    high: ArrayLike = 2.0,
) -> Float[Array, "height width in_channels"]:
    """Climb from noise to an image that one unit of a model answers to as strongly as possible.

        max_x a(x) - w TV(x)    low <= x <= high    a(x) = mean_ij tap(x)[i, j, channel]
        TV(x) = sum_ijc |x[i+1, j, c] - x[i, j, c]| + |x[i, j+1, c] - x[i, j, c]|

    Without regularisers the ascent ends in high-frequency patterns that no camera would see. Three of them
    lead to shapes, and 0 turns each of them off:

    - jitter rolls the image by some pixels, others in each step, before the model sees it: what is found must
      hold wherever it lies, not on one phase of the strides alone (Mordvintsev et al. 2015);
    - blur smooths the image after each step by a Gaussian whose width shrinks to 0: large shapes come first,
      details last (Yosinski et al. 2015, section 3);
    - total_variation is the price w of differences between neighbours: areas become even, edges stay
      (Mahendran and Vedaldi 2015).

    The steps are those of Adam, their rate shrinks linearly to 0. The gradient of a(x) is scaled to root mean
    square 1 before that of w TV(x) is subtracted, so that one weight and one rate suit all units. A unit that
    answers to nothing in the first noise, as a relu that stays 0, has no gradient and leaves the noise.

    Args:
        key: the random key of the first noise and of the jitter.
        model: a classifier; it stays as it is and is looked at in evaluation mode.
        tap: a stage, one of `model.taps`: "logits" for a class, any other for a feature.
        channel: which of its channels, or which class.
        shape: height and width of the image in pixels.
        steps: how many steps to take.
        learning_rate: how far a pixel moves in the first step, in units of x.
        jitter: the largest roll along each axis in pixels; None means a sixteenth of the shorter side.
        blur: standard deviation of the first step's Gaussian in pixels.
        total_variation: the weight w.
        low: the smallest value of a pixel, one number or one for each channel. For images that are normalised
            by mean and std it is (0 - mean) / std.
        high: the largest one, likewise (1 - mean) / std.

    Returns:
        The image (height, width, in_channels), in the range of the images that the model expects.

    Raises:
        ValueError: an unknown tap, a channel that it does not have, an option out of range, low >= high.
        TypeError: a model that is no classifier, a channel or a number of steps that is no int.

    Reference:
        Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network"; Simonyan et al. 2013, "Deep
        Inside Convolutional Networks", section 2; Olah et al. 2017, "Feature Visualization".

    Example:
        >>> from jaxcnn import models
        >>> model = models.create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0))
        >>> image = maximize_activation(jax.random.key(0), model, "c3", 5, shape=(32, 32), steps=4)
        >>> image.shape
        (32, 32, 1)
    """
    function = "maximize_activation"
    graphdef, state = in_evaluation(function, model)
    tap = as_tap(function, model, tap)
    height, width = per_axis(function, "shape", shape, 2, minimum=1)
    size = (height, width, model.in_channels)
    key = as_keys(function, key)
    check_shape(function, "key", key, (), "one key")
    check_number(function, "learning_rate", learning_rate, minimum=0)
    check_number(function, "blur", blur, minimum=0)
    check_number(function, "total_variation", total_variation, minimum=0)
    lowest, highest = _bound(function, "low", low, size[-1]), _bound(function, "high", high, size[-1])
    if not (lowest < highest).all():
        raise ValueError(f"{function}: low must be less than high, got low={low} and high={high}")
    channels = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state).features(x, (tap,))[tap],
        state,
        jax.ShapeDtypeStruct((1, *size), model.dtype),
    ).shape[-1]
    options = _Options(
        channel=jnp.int32(as_int(function, "channel", channel, minimum=0, maximum=channels - 1)),
        low=jnp.asarray(lowest),
        high=jnp.asarray(highest),
        steps=jnp.int32(as_int(function, "steps", steps, minimum=1)),
        jitter=jnp.int32(
            min(height, width) // 16 if jitter is None else as_int(function, "jitter", jitter, minimum=0)
        ),
        learning_rate=jnp.float32(learning_rate),
        blur=jnp.float32(blur),
        total_variation=jnp.float32(total_variation),
    )
    return _ascend(graphdef, state, key, options, tap, size)


def _bound(function: str, name: str, value: ArrayLike, channels: int) -> np.ndarray:
    bound = np.asarray(value, np.float32)
    if bound.shape not in ((), (1,), (channels,)) or not np.isfinite(bound).all():
        raise ValueError(
            f"{function}: {name} must be one finite number or one for each of the {channels} channels, "
            f"got {value}"
        )
    return np.broadcast_to(bound, (1, 1, channels))


@partial(jax.jit, static_argnums=(0, 4, 5))
def _ascend(
    graphdef: Any, state: Any, key: Array, options: _Options, tap: str, size: tuple[int, int, int]
) -> Array:
    low, high, steps = options.low, options.high, options.steps
    optimizer: Any = optax.adam(1.0)
    noise_key, jitter_key = jax.random.split(key)

    def activation(image: Array, shift: Array) -> Array:
        model = nnx.merge(graphdef, state)
        rolled = jnp.roll(image, shift, (0, 1))[None].astype(model.dtype)
        return widen(model.features(rolled, (tap,))[tap])[..., options.channel].mean()

    def step(i: Array, climb: tuple[Array, Any]) -> tuple[Array, Any]:
        image, adam = climb
        left = 1 - i / steps
        shift = jax.random.randint(
            jax.random.fold_in(jitter_key, i), (2,), -options.jitter, options.jitter + 1
        )
        gradient = jax.grad(activation)(image, shift)
        length = jnp.sqrt((gradient**2).mean())
        gradient = gradient / jnp.where(length > 0, length, 1)
        gradient -= options.total_variation * jax.grad(_total_variation)(image)
        with jax.numpy_dtype_promotion("standard"):  # optax.adam computes decay ** count, a float to an int
            update, adam = optimizer.update(-gradient, adam)  # it descends
        image = _blur(image + options.learning_rate * left * update, options.blur * left)
        return jnp.clip(image, low, high), adam

    image = (low + high) / 2 + (high - low) / 20 * jax.random.normal(noise_key, size)
    image, _ = jax.lax.fori_loop(0, steps, step, (image, optimizer.init(image)))
    return image


def _total_variation(image: Array) -> Array:
    return jnp.abs(jnp.diff(image, axis=0)).sum() + jnp.abs(jnp.diff(image, axis=1)).sum()


def _blur(image: Array, width: Array) -> Array:
    """The Gaussian mean of an image's neighbourhoods, of what lies in the image; width 0 leaves it."""
    rows, columns = (_gaussian(size, width) for size in image.shape[:2])
    return jnp.einsum("ik,jl,klc->ijc", rows, columns, image, precision="highest")


def _gaussian(size: int, width: Array) -> Array:
    """Row i holds the weights of all positions around i."""
    place = jnp.arange(size, dtype=jnp.float32)
    distance = (place[:, None] - place[None, :]) / jnp.maximum(width, 1e-3)
    return jax.nn.softmax(-(distance**2) / 2)
