"""Weights into a model and out of it: everything is checked before the first variable changes."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxcnn.pretrained.names as names
from jaxcnn.pretrained.files import StoredArray, open_arrays
from jaxcnn.pretrained.layers import Entry, entries

SHOWN = 8
"""How many entries of a kind an error lists."""

EXACT = ("float32", "float16", "bfloat16")
"""Dtypes that float32 holds without rounding."""


def load_torch_weights(
    model: nnx.Module, source: Mapping[str, Any] | str | os.PathLike[str], *, head: bool = True
) -> None:
    """Put the weights of the same network in PyTorch into a model.

    torchvision's names are understood, timm's for the families that both have, and those of the authors'
    own files of ConvNeXt. A .pth file is read without PyTorch, and nothing that it names is executed.

    Names do not tell everything: timm's tf_ networks have those of the others but TensorFlow's padding, and
    its MobileNetV3 another eps; such weights fit, and give other logits than they do there.

    Args:
        model: a model of `jaxcnn.models`, as from `create_model`; its parameters and statistics are replaced.
        source: a state dict (a mapping from name to array or tensor), a .pth file, or a .safetensors file.
        head: False leaves the layers that make the logits as they are, for another number of classes.

    Raises:
        ValueError: a file that is no weight file or is damaged; entries that are missing, unexpected, of
            another shape or dtype, or not finite. The model is then unchanged.
        TypeError: a model of a family that has no counterpart in PyTorch.
        FileNotFoundError: no such file.

    Example:
        >>> from jaxcnn import models
        >>> model = models.create_model("squeezenet1_1", rngs=nnx.Rngs(0))
        >>> load_torch_weights(model, {})
        Traceback (most recent call last):
        ...
        ValueError: load_torch_weights: the mapping does not fit SqueezeNet...
    """
    family = names.of(model)
    if family is None:
        raise TypeError(
            f"load_torch_weights: there are no PyTorch weights for a {type(model).__name__}; "
            f"there are for {', '.join(names.families())}"
        )
    with open_arrays("load_torch_weights", source) as stored:
        # Counters that PyTorch keeps beside batch statistics, with no meaning for us.
        stored = {key: array for key, array in stored.items() if not key.endswith("num_batches_tracked")}
        wanted = _most_in_common([list(entries(scheme(model))) for scheme in names.schemes(family)], stored)
        optional = _optional(family, wanted)
        stored = {key: array for key, array in stored.items() if not key.startswith(optional)}
        _fill("load_torch_weights", source, model, wanted, stored, head)


def save_weights(model: nnx.Module, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters and running statistics to a safetensors file, under jaxcnn's own names.

    The file appears whole or not at all; an existing one is replaced.

    Args:
        model: any Flax NNX module.
        path: the file, such as weights.safetensors.

    Raises:
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> from jaxcnn import models
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "lenet5.safetensors")
        ...     save_weights(models.LeNet5(rngs=nnx.Rngs(0)), path)
        ...     load_weights(models.LeNet5(rngs=nnx.Rngs(1)), path)
    """
    from safetensors.numpy import save

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save_weights: there is no folder {path.parent}")
    arrays = {entry.key: np.asarray(entry.variable[...]) for entry in _own_entries(model)}
    # In the same folder, so that the last step is a rename.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(save(arrays, metadata={"format": "jaxcnn", "model": type(model).__name__}))
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def load_weights(
    model: nnx.Module, source: Mapping[str, Any] | str | os.PathLike[str], *, head: bool = True
) -> None:
    """Put weights that `save_weights` wrote into a model of the same architecture.

    Args:
        model: a Flax NNX module; its parameters and statistics are replaced.
        source: the file, or a mapping from jaxcnn's names to arrays.
        head: False leaves the layers that make the logits as they are, for another number of classes.

    Raises:
        ValueError: a file that is no weight file or is damaged; entries that are missing, unexpected, of
            another shape or dtype, or not finite. The model is then unchanged.
        FileNotFoundError: no such file.

    Example:
        >>> from jaxcnn import models
        >>> load_weights(models.LeNet5(rngs=nnx.Rngs(0)), {"c1.kernel": np.zeros((5, 5, 1, 6), np.float32)})
        Traceback (most recent call last):
        ...
        ValueError: load_weights: the mapping does not fit LeNet5...
    """
    with open_arrays("load_weights", source) as stored:
        _fill("load_weights", source, model, list(_own_entries(model)), stored, head)


def _own_entries(model: nnx.Module) -> Iterable[Entry]:
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            yield Entry(".".join(map(str, path)), tuple(variable.shape), variable, np.asarray)


def _most_in_common(schemes: Sequence[list[Entry]], stored: Mapping[str, StoredArray]) -> list[Entry]:
    return max(schemes, key=lambda scheme: sum(entry.key in stored for entry in scheme))


def _optional(family: ModuleType, wanted: Iterable[Entry]) -> tuple[str, ...]:
    """Prefixes of parts that a file may have and this model was made without."""
    prefixes: tuple[str, ...] = getattr(family, "OPTIONAL", ())
    return tuple(prefix for prefix in prefixes if not any(entry.key.startswith(prefix) for entry in wanted))


def _fill(
    function: str,
    source: object,
    model: nnx.Module,
    wanted: Sequence[Entry],
    stored: Mapping[str, StoredArray],
    head: bool,
) -> None:
    """Check every entry, then read every array, then change the model."""
    what = source if isinstance(source, str | os.PathLike) else "the mapping"
    heads = {id(v) for path, v in nnx.iter_graph(model) if len(path) > 1 and path[-2] == "output"}
    expected = {entry.key: entry for entry in wanted}
    if not head:
        left = {entry.key for entry in wanted if id(entry.variable) in heads}
        expected = {key: entry for key, entry in expected.items() if key not in left}
        stored = {key: array for key, array in stored.items() if key not in left}

    missing = [f"{key} {entry.shape}" for key, entry in expected.items() if key not in stored]
    unexpected = [f"{key} {array.shape}" for key, array in stored.items() if key not in expected]
    both = [(entry, stored[key]) for key, entry in expected.items() if key in stored]
    misshapen = [(entry, array) for entry, array in both if not entry.fits(array.shape)]
    rounded = [f"{entry.key} {array.dtype}" for entry, array in both if str(array.dtype) not in EXACT]
    lists = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": [
            f"{entry.key} {array.shape} where the model has {entry.shape}" for entry, array in misshapen
        ],
        f"of a dtype that is not {', '.join(EXACT)}": rounded,
    }
    if any(lists.values()):
        only_heads = {id(entry.variable) for entry, _ in misshapen} <= heads
        hint = (
            "; head=False leaves the layer that makes the logits as it is"
            if only_heads and not (missing or unexpected or rounded)
            else ""
        )
        raise ValueError(f"{function}: {what} does not fit {type(model).__name__}{_listed(lists)}{hint}")

    arrays = [(entry, _finite(function, what, entry, array.read())) for entry, array in both]
    for entry, array in arrays:
        entry.variable.set_value(array)


def _finite(function: str, what: object, entry: Entry, array: np.ndarray) -> Any:
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise ValueError(
            f"{function}: {what}: {entry.key} has {count} values of {array.size} that are nan or infinite"
        )
    if entry.key.rpartition(".")[2] in ("running_var", "var") and array.min() < 0:
        raise ValueError(f"{function}: {what}: {entry.key} is a variance and has {array.min()}, below 0")
    return jnp.array(entry.convert(array))


def _listed(lists: Mapping[str, Sequence[str]]) -> str:
    def one(name: str, items: Sequence[str]) -> str:
        more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
        return f"\n  {len(items)} {name}: {', '.join(items[:SHOWN])}{more}"

    return "".join(one(name, items) for name, items in lists.items() if items)
