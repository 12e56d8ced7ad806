"""The examples of one split: on the device where they fit, else read one by one."""

import functools
from collections.abc import Callable
from typing import TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, UInt8


class Example(TypedDict):
    """One example: its image, uint8 (height, width, channels), and its label."""

    image: np.ndarray
    label: int


class Split:
    """Examples held in one array, which goes to the device once.

    Args:
        images: (examples, height, width, channels), 0..255.
        labels: (examples,), class numbers from 0.

    Attributes:
        images: the images, uint8.
        labels: the labels, int32.

    Raises:
        ValueError: no examples, wrong shapes, images that are not uint8, negative labels.

    Example:
        >>> split = Split(np.zeros((3, 8, 6, 1), np.uint8), np.array([0, 1, 1]))
        >>> len(split), split[2]["image"].shape, split.labels
        (3, (8, 6, 1), array([0, 1, 1], dtype=int32))
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "examples height width channels"],
        labels: Integer[np.ndarray, " examples"],
    ):
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
            raise ValueError(
                "Split: images must be uint8 of shape (examples, height, width, channels), none of them 0, "
                f"got {images.dtype} of shape {images.shape}"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                "Split: labels must have one class number per image, "
                f"shape {images.shape[:1]}, got {labels.shape}"
            )
        if labels.min() < 0:
            raise ValueError(
                f"Split: labels must be at least 0, got {labels.min()} at position {labels.argmin()}"
            )
        self.images, self.labels = images, labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": int(self.labels[index])}

    @functools.cached_property
    def on_device(self) -> tuple[UInt8[Array, "examples height width channels"], Int[Array, " examples"]]:
        """Images and labels on the default device; they are sent there the first time."""
        return jnp.asarray(self.images), jnp.asarray(self.labels)


class StreamedSplit:
    """Examples too large to be held at once: each is read when a batch needs it.

    Args:
        read: gives the example at a position, 0 to length - 1, from any thread.
        length: number of examples.
    """

    def __init__(self, read: Callable[[int], Example], length: int):
        self._read, self._length = read, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        return self._read(index)

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, " examples"]:
        """The label of every example, int32; the first use reads all of them from the disk."""
        return np.array([self[i]["label"] for i in range(len(self))], np.int32)
