"""safetensors files: a length, a JSON header, the bytes of the arrays.

The library of that name accepts a header with the same key twice and lets the last one win. The header is
all that there is to the format, so it is checked here, and the arrays are read where it says they are.
"""

import json
import math
from typing import Any

import numpy as np

from jaxcnn.pretrained.stored import (
    BFLOAT16,
    DIRECTORY_BYTES,
    StoredArray,
    WeightFile,
    is_shape,
    is_size,
    short,
)

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is meant as safetensors."""
    return head[8:9] == b"{"


def arrays(file: WeightFile) -> dict[str, StoredArray]:
    """The arrays of a safetensors file.

    Args:
        file: the open file.

    Returns:
        The arrays by name, in the order of the header.

    Raises:
        ValueError: a header that is damaged, has a key twice, or does not say of every byte once what it is.

    Reference:
        https://huggingface.co/docs/safetensors, "Format".
    """
    length = int.from_bytes(file.bytes(0, 8), "little")
    start = 8 + length
    if start > file.size:
        raise file.error(f"is damaged: a header of {length} bytes in a safetensors file of {file.size}")
    if length > DIRECTORY_BYTES:
        raise file.error(f"has a header of {length} bytes; expected at most {DIRECTORY_BYTES}")
    try:
        header = json.loads(file.bytes(8, length).decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise file.error(f"has a damaged safetensors header: {error}") from None
    header.pop("__metadata__", None)

    end = 0
    for key, entry in sorted(header.items(), key=lambda item: _check(file, *item)):
        first, last = entry["data_offsets"]
        if first != end:
            raise file.error(
                f"is damaged: {short(key)} begins at byte {first} of the data; expected {end}, "
                "where the array before it ends"
            )
        end = last
    if start + end != file.size:
        raise file.error(f"is damaged: its arrays have {end} bytes; {file.size - start} follow the header")
    return {key: _stored(file, start, key, entry) for key, entry in header.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {short(key)} is there twice")
        result[key] = value
    return result


def _check(file: WeightFile, key: str, entry: Any) -> tuple[int, int]:
    """An entry's first and last byte, where its dtype, shape and offsets agree."""
    match entry:
        case {"dtype": str(name), "shape": list(shape), "data_offsets": [first, last]} if len(entry) == 3:
            pass
        case _:
            raise file.error(f"is damaged: the header has no dtype, shape and data_offsets for {short(key)}")
    if name not in DTYPES:
        raise file.error(f"has {short(key)} of dtype {short(name)}; expected one of {', '.join(DTYPES)}")
    dtype = DTYPES[name]
    if not is_shape(shape, dtype) or not is_size(first) or not is_size(last):
        raise file.error(f"is damaged: the shape or the offsets of {short(key)} are no sizes")
    if last - first != math.prod(shape) * dtype.itemsize:
        raise file.error(f"is damaged: {short(key)} has {last - first} bytes for {name} {tuple(shape)}")
    return first, last


def _stored(file: WeightFile, start: int, key: str, entry: dict[str, Any]) -> StoredArray:
    shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]

    def read() -> np.ndarray:
        return file.array(key, start + entry["data_offsets"][0], math.prod(shape), dtype).reshape(shape)

    return StoredArray(key, shape, dtype, read)
