"""Random changes of training images, as pure functions of a key: crop, flip, cutout, mixup, cutmix.

Every function takes float images (batch, height, width, channels) and draws anew for each example. All of
them can be used inside jit, vmap and grad; the options are static. `random_crop`, `random_flip` and `cutout`
take one key, or one key per example: with `jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])` what
happens to an example does not depend on the rest of the batch, hence not on how the batch is split over
devices.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxcnn.functional.checks import (
    AnyArray,
    KeyOrKeys,
    OneKey,
    as_floating,
    as_int,
    as_keys,
    check_one_or_per_example,
)


def random_crop(
    key: KeyOrKeys, images: Float[AnyArray, "batch height width channels"], pad: int
) -> Float[Array, "batch height width channels"]:
    """Surround each image with `pad` zeros and cut a window of the old size from a random place.

    The offset (dy, dx) of an example is uniform over {0, ..., 2 * pad}^2, and (pad, pad) gives the image
    back: y[i, j] = padded[i + dy, j + dx].

    Args:
        key: one key, or one per example, (batch,).
        images: (batch, height, width, channels).
        pad: pixels on every side, at least 0. The CIFAR papers use 4 for 32x32 images.

    Returns:
        The crops, of the shape and dtype of `images`. Zero is the mean of the training images where they were
        normalised before; crop before normalising for black borders.

    Raises:
        TypeError: a key that is no key, or images that are not floating.
        ValueError: images that are not 4-D, a negative pad, or a number of keys other than the batch.

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.ones((2, 4, 6, 3))
        >>> random_crop(jax.random.key(0), images, pad=2).shape
        (2, 4, 6, 3)
    """
    images = _as_images("random_crop", images)
    pad = as_int("random_crop", "pad", pad, minimum=0)
    keys = _key_of_each("random_crop", key, images)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def crop(key: Array, image: Array) -> Array:
        dy, dx = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return lax.dynamic_slice(image, (dy, dx, jnp.zeros_like(dy)), images.shape[1:])

    return jax.vmap(crop)(keys, padded)


def random_flip(
    key: KeyOrKeys, images: Float[AnyArray, "batch height width channels"]
) -> Float[Array, "batch height width channels"]:
    """Mirror each image left to right with probability 1/2: y[i, j] = x[i, width - 1 - j].

    Args:
        key: one key, or one per example, (batch,).
        images: (batch, height, width, channels).

    Returns:
        The images, some of them mirrored.

    Raises:
        TypeError: a key that is no key, or images that are not floating.
        ValueError: images that are not 4-D, or a number of keys other than the batch.

    Reference: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    section 4.1. Not for images whose mirror image means something else, such as digits and letters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> random_flip(jax.random.key(3), jnp.arange(3.0).reshape(1, 1, 3, 1)).ravel()
        Array([2., 1., 0.], dtype=float32)
    """
    images = _as_images("random_flip", images)
    flip = jax.vmap(jax.random.bernoulli)(_key_of_each("random_flip", key, images))
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def cutout(
    key: KeyOrKeys, images: Float[AnyArray, "batch height width channels"], size: int
) -> Float[Array, "batch height width channels"]:
    """Set one square of `size` pixels a side to zero in each image.

    The centre is uniform over the pixels, and what reaches over the border is cut off, so that the zeroed
    area is between a quarter of the square and the whole of it.

    Args:
        key: one key, or one per example, (batch,).
        images: (batch, height, width, channels), normalised, so that zero is the mean colour.
        size: side of the square in pixels, at least 1. The paper uses 16 for CIFAR-10 and 8 for CIFAR-100.

    Returns:
        The images with their squares zeroed.

    Raises:
        TypeError: a key that is no key, or images that are not floating.
        ValueError: images that are not 4-D, a size below 1, or a number of keys other than the batch.

    Reference: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> cutout(jax.random.key(0), jnp.ones((1, 4, 6, 1)), size=2)[0, :, :, 0]
        Array([[...
    """
    images = _as_images("cutout", images)
    size = as_int("cutout", "size", size, minimum=1)
    keys = _key_of_each("cutout", key, images)
    height, width = images.shape[1:3]

    def hole(key: Array) -> Array:
        centre = jax.random.randint(key, (2,), 0, jnp.array([height, width]), dtype=jnp.int32)
        return _rectangle((height, width), centre, jnp.array([size, size]))

    return jnp.where(jax.vmap(hole)(keys)[..., None], jnp.zeros_like(images), images)


def mixup(
    key: OneKey,
    images: Float[AnyArray, "batch height width channels"],
    targets: Float[AnyArray, "batch classes"],
    alpha: float,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Blend each example with a random partner of the batch, image and target alike.

    x'_n = l_n x_n + (1 - l_n) x_p(n) and t'_n = l_n t_n + (1 - l_n) t_p(n), with l_n ~ Beta(alpha, alpha) and
    p a random permutation of the batch. Each example draws its own l: one batch then holds weak and strong
    blends, and the loss varies less from step to step than with one l for the whole batch.

    Args:
        key: one key.
        images: (batch, height, width, channels).
        targets: (batch, classes), one-hot or soft, such as `jax.nn.one_hot(labels, classes)`.
        alpha: > 0. 1 gives a uniform l; 0.1 to 0.4 (the paper, on ImageNet) gives mostly weak blends.

    Returns:
        (images, targets) of the same shapes and dtypes.

    Raises:
        TypeError: a key that is no key, or images or targets that are not floating.
        ValueError: wrong shapes, or an alpha that is not positive.

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images, targets = mixup(jax.random.key(0), jnp.ones((4, 2, 3, 1)), jnp.eye(4), alpha=0.2)
        >>> images.shape, targets.sum(axis=1)
        ((4, 2, 3, 1), Array([1., 1., 1., 1.], dtype=float32))
    """
    images, targets = _as_pair("mixup", images, targets)
    key_partner, key_weight = jax.random.split(_one_key("mixup", key))
    weight = _beta("mixup", key_weight, alpha, len(images))
    partner = jax.random.permutation(key_partner, len(images))
    return _blend(weight, images, images[partner]), _blend(weight, targets, targets[partner])


def cutmix(
    key: OneKey,
    images: Float[AnyArray, "batch height width channels"],
    targets: Float[AnyArray, "batch classes"],
    alpha: float,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Paste a random box of a partner's image into each image, and blend the targets by area.

    The box of an example has the sides height * sqrt(1 - l) and width * sqrt(1 - l), l ~ Beta(alpha, alpha),
    rounded down, around a centre that is uniform over the pixels; what reaches over the border is cut off.
    With a the fraction of the image that the box really covers, t'_n = (1 - a) t_n + a t_p(n), p a random
    permutation of the batch.

    Args:
        key: one key.
        images: (batch, height, width, channels).
        targets: (batch, classes), one-hot or soft, such as `jax.nn.one_hot(labels, classes)`.
        alpha: > 0. The paper uses 1.

    Returns:
        (images, targets) of the same shapes and dtypes.

    Raises:
        TypeError: a key that is no key, or images or targets that are not floating.
        ValueError: wrong shapes, or an alpha that is not positive.

    Reference: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", 2019.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images, targets = cutmix(jax.random.key(0), jnp.ones((4, 8, 6, 1)), jnp.eye(4), alpha=1.0)
        >>> images.shape, targets.sum(axis=1)
        ((4, 8, 6, 1), Array([1., 1., 1., 1.], dtype=float32))
    """
    images, targets = _as_pair("cutmix", images, targets)
    key_partner, key_weight, key_centre = jax.random.split(_one_key("cutmix", key), 3)
    height, width = images.shape[1:3]
    side = jnp.sqrt(1.0 - _beta("cutmix", key_weight, alpha, len(images)))
    sides = jnp.stack([height * side, width * side], axis=1).astype(jnp.int32)
    centres = jax.random.randint(key_centre, sides.shape, 0, jnp.array([[height, width]]), dtype=jnp.int32)
    box = jax.vmap(functools.partial(_rectangle, images.shape[1:3]))(centres, sides)
    weight = 1.0 - box.mean(axis=(1, 2), dtype=jnp.float32)
    partner = jax.random.permutation(key_partner, len(images))
    return jnp.where(box[..., None], images[partner], images), _blend(weight, targets, targets[partner])


def _rectangle(
    shape: tuple[int, ...], centre: Int[Array, "2"], sides: Int[Array, "2"]
) -> Bool[Array, "height width"]:
    """True inside the rectangle, cut off at the border."""
    first = centre - sides // 2
    rows, columns = jnp.arange(shape[0]), jnp.arange(shape[1])
    inside_rows = (rows >= first[0]) & (rows < first[0] + sides[0])
    inside_columns = (columns >= first[1]) & (columns < first[1] + sides[1])
    return inside_rows[:, None] & inside_columns[None, :]


def _blend(weight: Float[Array, " batch"], x: Array, other: Array) -> Array:
    """Weight * x + (1 - weight) * other, computed in float32 or wider."""
    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    weight = weight.astype(dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return (weight * x.astype(dtype) + (1 - weight) * other.astype(dtype)).astype(x.dtype)


def _beta(function: str, key: Array, alpha: float, batch: int) -> Float[Array, " batch"]:
    if not 0.0 < alpha < float("inf"):
        raise ValueError(
            f"{function}: alpha must be a positive number, got {alpha!r}; leave {function} out instead"
        )
    first, second = jax.random.loggamma(key, alpha, (2, batch), jnp.float32)
    return jax.nn.sigmoid(first - second)  # g / (g + g') of two Gamma(alpha) is Beta(alpha, alpha)


def _as_images(function: str, images: AnyArray) -> Array:
    images = as_floating(function, "images", images)
    if images.ndim != 4:
        hint = "; a single image needs images[None]" if images.ndim == 3 else ""
        raise ValueError(
            f"{function}: images must have shape (batch, height, width, channels), got {images.shape}{hint}"
        )
    return images


def _as_pair(function: str, images: AnyArray, targets: AnyArray) -> tuple[Array, Array]:
    images = _as_images(function, images)
    if targets.ndim != 2 or len(targets) != len(images):
        raise ValueError(
            f"{function}: targets must have shape (batch, classes) = ({len(images)}, classes), "
            f"got {targets.shape}; labels become targets by jax.nn.one_hot"
        )
    return images, as_floating(function, "targets", targets)


def _key_of_each(function: str, key: Array, images: Array) -> Array:
    """One typed key per example."""
    key = as_keys(function, key)
    check_one_or_per_example(function, key, len(images))
    return key if key.ndim else jax.random.split(key, len(images))


def _one_key(function: str, key: Array) -> Array:
    """One typed key."""
    key = as_keys(function, key)
    if key.ndim:
        raise ValueError(
            f"{function}: key must be one key (the partners are drawn within the batch), "
            f"got keys of shape {key.shape}"
        )
    return key
