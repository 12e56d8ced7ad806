"""What all image classifiers share: the checks of their input, logits, named feature maps."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcnn.functional.checks import AnyArray, as_floating_dtype, as_images, as_int

Stage = tuple[str, Callable[[Array], Array]]

T = TypeVar("T")


class Classifier(nnx.Module):
    """An image classifier as a chain of named stages: images in, logits out.

    A subclass gives `stages()`, the (name, function) pairs that x goes through, the last one named "logits".
    The layer that makes the logits is its attribute `output`; fine-tuning replaces that one. Networks with
    auxiliary classifiers name them in `branches()`.

    Attributes:
        input_size: the only (height, width) the model takes, or None for any.
        taps: the names of the stages, in order.
    """

    input_size: tuple[int, int] | None = None

    def __init__(self, *, num_classes: int, in_channels: int, dtype: DTypeLike | None):
        name = type(self).__name__
        self.num_classes = as_int(name, "num_classes", num_classes, minimum=1)
        self.in_channels = as_int(name, "in_channels", in_channels, minimum=1)
        self.dtype = as_floating_dtype(name, jnp.float32 if dtype is None else dtype)

    def stages(self) -> list[Stage]:
        """The (name, function) pairs that x goes through, in order."""
        raise NotImplementedError

    def branches(self) -> dict[str, Stage]:
        """What is computed beside the chain: the stage it starts from, with its own (name, function) pair."""
        return {}

    @property
    def taps(self) -> tuple[str, ...]:
        """The names of the stages and branches, in order: what `features` can return."""
        branches = self.branches()
        names = ([name, *([branches[name][0]] if name in branches else [])] for name, _ in self.stages())
        return tuple(name for both in names for name in both)

    def __call__(
        self, x: Float[AnyArray, "batch height width in_channels"]
    ) -> Float[Array, "batch num_classes"]:
        """The logits of a batch of images, no softmax applied.

        Args:
            x: images (batch, height, width, in_channels) of a floating dtype.

        Returns:
            Logits (batch, num_classes) in the model's dtype.

        Raises:
            ValueError: another number of channels or another size than the model takes.
            TypeError: an x that is not floating.
        """
        return self.features(x, ("logits",))["logits"]

    def features(
        self, x: Float[AnyArray, "batch height width in_channels"], taps: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """The values of named stages, computed no further than the last one that is asked for.

        Args:
            x: images (batch, height, width, in_channels) of a floating dtype.
            taps: names of stages, a subset of `model.taps`; None means all.

        Returns:
            A dict from name to value, in the order of the model.

        Raises:
            ValueError: an unknown name, another number of channels or another size than the model takes.
            TypeError: an x that is not floating, taps that are one str.
        """
        stages, branches = self.stages(), self.branches()
        wanted = self._check_taps(taps)
        value = self._check_images(x).astype(self.dtype)
        found: dict[str, Array] = {}
        for name, stage in stages:
            if len(found) == len(wanted):
                break
            value = stage(value)
            if name in wanted:
                found[name] = value
            branch, function = branches.get(name, ("", None))
            if function is not None and branch in wanted:
                found[branch] = function(value)
        return found

    def _check_taps(self, taps: Sequence[str] | None) -> set[str]:
        name = type(self).__name__
        if isinstance(taps, str):
            raise TypeError(f"{name}: taps must be a tuple of names, such as ({taps!r},), got {taps!r}")
        wanted = set(self.taps if taps is None else taps)
        unknown = wanted.difference(self.taps)
        if unknown:
            raise ValueError(f"{name}: unknown taps {sorted(unknown)}; this model has {', '.join(self.taps)}")
        return wanted

    def _check_images(self, x: AnyArray) -> Array:
        name = type(self).__name__
        images = as_images(name, x, 2)
        if images.shape[-1] != self.in_channels:
            raise ValueError(
                f"{name}: x must have {self.in_channels} channels (its last axis), got shape {x.shape}"
            )
        if self.input_size not in (None, images.shape[1:3]):
            height, width = self.input_size
            raise ValueError(
                f"{name}: x must have height and width {height} x {width}, got {x.shape[1]} x {x.shape[2]} "
                f"(shape {x.shape}); resize or pad the images"
            )
        return images


def chain(layers: Iterable[Callable[[Array], Array]], x: Array) -> Array:
    """Apply layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def choose(function: str, table: Mapping[str, T], name: str) -> T:
    """The entry of a table of architectures, or an error that names the function and what there is."""
    if name not in table:
        near = difflib.get_close_matches(str(name).lower(), table, n=1)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        raise ValueError(f"{function}: unknown name {name!r}; {hint}there are {', '.join(table)}")
    return table[name]
