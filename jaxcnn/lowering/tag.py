"""The tag on an equation that asks for the rewrites: metadata of the equation, never a global.

JAX hands the metadata that is in force when an equation is traced on to every equation derived from it (its
derivatives, its batched form) and to its lowering rule, and makes it part of the key of every cache. One key
asks for the rewrites. Two others take something away, all rewrites or those by oneDNN's instruction, and win
wherever they were set.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from jax.experimental.xla_metadata import set_xla_metadata

_TAG, _OFF, _ONEDNN_OFF = "jaxcnn", "jaxcnn_off", "jaxcnn_onednn_off"


# JAX's context manager remembers on itself what it replaced, so every entry needs one of its own.
def tagging(*, rewrites: bool = True, onednn: bool = True) -> AbstractContextManager[None]:
    """Equations traced inside ask for the rewrites, or are compiled as JAX compiles them."""
    tags = {_TAG: "auto"} if rewrites else {_OFF: "true"}
    return set_xla_metadata(**tags, **({} if onednn else {_ONEDNN_OFF: "true"}))


def rewriting() -> AbstractContextManager[None]:
    """Equations traced inside are part of a rewrite, and are not rewritten again: the tag is taken off."""
    return set_xla_metadata(**{_TAG: None})


def is_tagged(metadata: Mapping[str, Any] | None) -> bool:
    """Whether an equation with this metadata asks for the rewrites."""
    return metadata is not None and _TAG in metadata and _OFF not in metadata


def is_forbidden(metadata: Mapping[str, Any] | None) -> bool:
    """Whether the rewrites were forbidden for an equation with this metadata."""
    return metadata is not None and _OFF in metadata


def allows_onednn(metadata: Mapping[str, Any] | None) -> bool:
    """Whether an equation with this metadata may become oneDNN's instruction."""
    return metadata is None or _ONEDNN_OFF not in metadata
