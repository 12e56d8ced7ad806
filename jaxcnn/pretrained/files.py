"""The arrays of a state dict, wherever they are: in a mapping, a .safetensors file or a .pth file."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.pretrained import safetensors_file, torch_file
from jaxcnn.pretrained.stored import StoredArray, WeightFile, short

__all__ = ["StoredArray", "open_arrays"]

# How files begin that are met under the name of a weight file.
KINDS = {
    b"version https://git-lfs": "a Git LFS pointer, which stands for a file that was not fetched",
    b"<": "a web page or XML, not what it links to",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "compressed with gzip; decompress it first",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF document",
    b"\x80": "a pickle of something else",
}


@contextlib.contextmanager
def open_arrays(
    function: str, source: Mapping[str, Any] | str | os.PathLike[str]
) -> Iterator[dict[str, StoredArray]]:
    """The arrays of a state dict by name, none of them read yet.

    A .pth file is read without PyTorch; nothing that it names is imported or called. A file's content says
    what it is, not its suffix. A checkpoint that holds the state dict under "state_dict", "model" or
    "model_ema" is unwrapped, and "module.", with which torch.nn.DataParallel begins every name, is removed.

    Args:
        function: the name of the caller, for errors.
        source: a mapping from name to an array or tensor, a .safetensors file, or a .pth file.

    Returns:
        A context manager that gives the arrays; they can be read inside it.

    Raises:
        ValueError: a file that is none of these, is damaged, or holds more than plain tensors; an entry of a
            mapping that is no array.
        FileNotFoundError: no such file.

    Example:
        >>> with open_arrays("example", {"weight": np.ones((2, 3), np.float32)}) as arrays:
        ...     arrays["weight"].shape, arrays["weight"].read().sum()
        ((2, 3), np.float32(6.0))
    """
    if isinstance(source, Mapping):
        yield {key: _in_memory(function, key, value) for key, value in source.items()}
        return
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{function}: there is no file {path}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"{function}: {path} is {kind}; expected a .pth or .safetensors file")
    with path.open("rb") as opened:
        file = WeightFile(function, path, opened, os.fstat(opened.fileno()).st_size)
        yield _reader(file)(file)


def _reader(file: WeightFile) -> Any:
    """The function that reads files of this kind."""
    head = file.bytes(0, 512)
    for begins, arrays in (
        (torch_file.is_zip, torch_file.zip_arrays),
        (torch_file.is_legacy, torch_file.legacy_arrays),
        (safetensors_file.is_safetensors, safetensors_file.arrays),
    ):
        if begins(head):
            return arrays
    raise file.error(f"is {_kind(head)}; expected a .pth or .safetensors file")


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    for begin, kind in KINDS.items():
        if head.startswith(begin):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    if min(head) >= min(b"\t\n\r "):
        return "text"
    return f"no weight file: it begins with {head[:8].hex(' ')}"


def _in_memory(function: str, key: object, value: Any) -> StoredArray:
    if not isinstance(key, str):
        raise ValueError(f"{function}: the mapping has a key of type {type(key).__name__}; expected names")
    is_tensor = hasattr(value, "detach")  # PyTorch's, without an import of torch
    if not is_tensor and not hasattr(value, "dtype"):
        raise ValueError(
            f"{function}: the mapping's entry {short(key)} is a {type(value).__name__}; "
            "expected an array or tensor"
        )
    if is_tensor and (value.is_meta or str(value.layout) != "torch.strided"):
        raise ValueError(
            f"{function}: the mapping's entry {short(key)} is a tensor that is sparse or has no data"
        )
    name = str(value.dtype).removeprefix("torch.")
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(
            f"{function}: the mapping's entry {short(key)} has dtype {name}, unknown to NumPy"
        ) from None

    def read() -> np.ndarray:
        if not is_tensor:
            return np.asarray(value)
        tensor = value.detach().cpu()
        # PyTorch has no NumPy array of bfloat16; float32 holds its values exactly.
        return (tensor.float() if name == "bfloat16" else tensor).numpy().astype(dtype, copy=False)

    return StoredArray(key, tuple(value.shape), dtype, read)
