"""The mark on an equation that asks for the rewrites: metadata of the equation, never a global.

JAX hands the metadata that is in force when an equation is traced on to every equation derived from it (its
derivatives, its batched form) and to its lowering rule, and makes it part of the key of every cache. Two keys
are used: one asks for the rewrites, the other forbids them and wins, wherever it was set.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from jax.experimental.xla_metadata import set_xla_metadata

_MARK, _VETO = "jaxcnn", "jaxcnn_off"


# JAX's context manager remembers on itself what it replaced, so every entry needs one of its own.
def marking() -> AbstractContextManager[None]:
    """Equations traced inside ask for the rewrites."""
    return set_xla_metadata(**{_MARK: "auto"})


def forbidding() -> AbstractContextManager[None]:
    """Equations traced inside are compiled as JAX compiles them."""
    return set_xla_metadata(**{_VETO: "true"})


def rewriting() -> AbstractContextManager[None]:
    """Equations traced inside are part of a rewrite, and are not rewritten again: the mark is taken off."""
    return set_xla_metadata(**{_MARK: None})


def is_marked(metadata: Mapping[str, Any] | None) -> bool:
    """Whether an equation with this metadata asks for the rewrites."""
    return metadata is not None and _MARK in metadata and _VETO not in metadata


def is_forbidden(metadata: Mapping[str, Any] | None) -> bool:
    """Whether the rewrites were forbidden for an equation with this metadata."""
    return metadata is not None and _VETO in metadata
