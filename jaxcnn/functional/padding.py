"""Padding of the spatial axes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from jaxcnn.functional.checks import AnyArray, as_array, check_images_shape
from jaxcnn.functional.geometry import Padding, Pairs, padding_pairs

NUMPY_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "edge": "edge",
    "circular": "wrap",
}


def pad(
    x: Shaped[AnyArray, "batch *spatial channels"],
    padding: Padding,
    *,
    mode: str = "zeros",
    value: float | int = 0.0,
) -> Shaped[Array, "batch *padded channels"]:
    """Pad the spatial axes of a batch of images, and never its batch or its channels.

    The new elements next to a b c d are, by mode:

        zeros      0 0 | a b c d | 0 0        constant   v v | a b c d | v v
        reflect    c b | a b c d | c b        symmetric  b a | a b c d | d c
        edge       a a | a b c d | d d        circular   c d | a b c d | a b

    Args:
        x: images (batch, *spatial, channels) of any dtype.
        padding: elements to add: an int for all sides, a tuple with one int per spatial axis, or a tuple of
            (low, high) pairs. A padding name such as "SAME" needs a window and is not taken here.
        mode: one of the six above. torch.nn.functional.pad calls edge "replicate".
        value: what "constant" fills in.

    Returns:
        The padded images, of x's dtype.

    Raises:
        ValueError: an unknown mode, a negative padding, a value without mode "constant", reflection by the
            input's size or more, "symmetric" or "circular" by more than the input's size.
        TypeError: a padding that is not made of ints.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
        >>> pad(x, ((1, 2),), mode="reflect")[0, :, 0].tolist()
        [2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    x = as_array("pad", "x", x)
    check_images_shape("pad", x)
    if mode != "constant" and not (isinstance(value, (int, float)) and value == 0):
        raise ValueError(f'pad: value needs mode="constant", got value={value!r} with mode={mode!r}')
    check_mode("pad", "mode", mode)
    return pad_explicit("pad", x, padding_pairs("pad", padding, x.ndim - 2), mode, value)


def pad_explicit(function: str, x: Array, pairs: Pairs, mode: str, value: float | int = 0.0) -> Array:
    """`pad` for (low, high) pairs and a known mode, with messages in the name of `function`."""
    for axis, ((low, high), size) in enumerate(zip(pairs, x.shape[1:-1], strict=True)):
        # Mirrored without its border an axis has size - 1 elements to give, otherwise size.
        limit = {"reflect": size - 1, "symmetric": size, "circular": size}.get(mode)
        if limit is not None and max(low, high) > limit:
            raise ValueError(
                f"{function}: {mode} padding of an axis of size {size} must be at most {limit}, "
                f"got {(low, high)} on spatial axis {axis}"
            )
    fill: dict[str, Any] = {"constant_values": value} if NUMPY_MODES[mode] == "constant" else {}
    return jnp.pad(x, ((0, 0), *pairs, (0, 0)), mode=NUMPY_MODES[mode], **fill)


def check_mode(function: str, name: str, mode: str) -> None:
    """Refuse an unknown padding mode."""
    if mode not in NUMPY_MODES:
        hint = '; torch\'s "replicate" is "edge" here' if mode == "replicate" else ""
        raise ValueError(f"{function}: {name} must be one of {', '.join(NUMPY_MODES)}, got {mode!r}{hint}")
