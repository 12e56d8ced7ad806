"""Pickles of state dicts, read without PyTorch and without Python's own unpickler.

A pickle is a program for a small stack machine, and Python's machine calls what the program names. The one
here knows the instructions that PyTorch writes for a state dict, and calls nothing but the few functions in
`NAMES`, which only note what a tensor is.
"""

import io
import pickletools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.pretrained.stored import BFLOAT16, WeightFile, is_shape, is_size, short


class Storage(NamedTuple):
    """A block of numbers in the file, which tensors are views of."""

    key: str
    dtype: np.dtype
    length: int


class Tensor(NamedTuple):
    """A view of a storage: element (i, j, ...) is number offset + i * strides[0] + j * strides[1] + ..."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):
    """What is wrong with a pickle."""


def unpickle(
    file: WeightFile, part: str, stream: io.BytesIO, storage: Callable[[tuple[Any, ...]], Storage]
) -> Any:
    """The object of one pickle, in which tensors are `Tensor`s.

    Args:
        file: the open file.
        part: what the pickle is, for errors.
        stream: where the pickle begins; it is left where the pickle ends.
        storage: gives the storage for a persistent id.

    Returns:
        None, bools, numbers, strings, tuples, lists, dicts, `Tensor`s and `Storage`s.

    Raises:
        ValueError: a damaged pickle, or one that makes anything else.
    """
    try:
        return _run(stream, storage)
    except Refused as refused:
        raise file.error(f"cannot be read: its {part} {refused}") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise file.error(f"is damaged or truncated: its {part} is no pickle: {error}") from None


def _run(stream: io.BytesIO, storage: Callable[[tuple[Any, ...]], Storage]) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each mark
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    instructions: Iterator[tuple[Any, Any, Any]] = pickletools.genops(stream)
    for instruction, argument, _ in instructions:
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            # The last two are the text of Python 2.
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(instruction.name[-1])
                if len(stack) < count:
                    raise IndexError("the stack is empty")
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items = to_mark()
                stack.append(tuple(items))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = to_mark() if instruction.name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = to_mark() if instruction.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _set_items(_expect(stack[-1], dict), zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = _expect(stack.pop(), str)
                stack.append(_named(_expect(stack.pop(), str), name))
            case "REDUCE":
                arguments = _expect(stack.pop(), tuple)
                stack.append(_expect(stack.pop(), FunctionType)(*arguments))
            case "BUILD":
                # The attributes of an OrderedDict: a state dict's _metadata.
                stack.pop()
                _expect(stack[-1], dict)
            case "BINPERSID":
                stack.append(storage(_expect(stack.pop(), tuple)))
            case "INST":
                _named(*argument.split(" ", 1))
                raise Refused("is damaged: PyTorch makes no object so")
            case other:
                raise Refused(f"has the instruction {other}, which describes no tensor")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _set_items(target: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        # Nothing else: Python computes the hash of a deeply nested tuple without a limit, and crashes.
        if type(key) not in (str, int):
            raise TypeError(f"a key of type {type(key).__name__}")
        if key in target:
            raise Refused(f"has the key {short(str(key))} twice")
        target[key] = value


def _named(module: str, name: str) -> Any:
    """What stands for a name of PyTorch's."""
    if (module, name) in NAMES:
        return NAMES[module, name]
    whole = short(f"{module}.{name}")[1:-1]
    if kind := OTHER_TENSORS.get(name) if module.partition(".")[0] == "torch" else None:
        raise Refused(f"names {whole}: {kind}; only plain tensors are read")
    raise Refused(f"names {whole}: it would execute code; only tensors are read")


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    if pairs is not None:
        _set_items(result, _expect(pairs, list))
        # Python 2 passes a list that nothing else refers to. So that none is copied a thousand times:
        pairs[:] = [None]
    return result


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    storage = _expect(storage, Storage)
    if (
        not is_size(offset)
        or not is_shape(shape, storage.dtype)
        or not isinstance(strides, tuple)
        or len(strides) != len(shape)
        or not all(map(is_size, strides))
    ):
        raise Refused("is damaged: a tensor's offset, shape or strides are no sizes from 0 on")
    return Tensor(storage, offset, tuple(shape), strides)


def _rebuild_tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    if metadata:
        raise Refused(
            "has a tensor that is conjugated or negated when it is used; only plain tensors are read"
        )
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Any:
    return _expect(tensor, Tensor)


def _size(sizes: Any) -> Any:
    return _expect(sizes, tuple)


def storage_from(what: Any, dtype: Any, key: Any, location: Any, length: Any) -> Storage:
    """The storage that a persistent id describes; it is said to lie on a device, which is not asked for."""
    if (
        what != "storage"
        or not isinstance(dtype, np.dtype)
        or not isinstance(key, str)
        or not is_size(length)
    ):
        raise Refused("is damaged: no storage is described so")
    return Storage(key, dtype, length)


NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,  # torch < 0.4
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "DoubleStorage"): np.dtype(np.float64),
    ("torch", "FloatStorage"): np.dtype(np.float32),
    ("torch", "HalfStorage"): np.dtype(np.float16),
    ("torch", "BFloat16Storage"): BFLOAT16,
    ("torch", "LongStorage"): np.dtype(np.int64),
    ("torch", "IntStorage"): np.dtype(np.int32),
    ("torch", "ShortStorage"): np.dtype(np.int16),
    ("torch", "CharStorage"): np.dtype(np.int8),
    ("torch", "ByteStorage"): np.dtype(np.uint8),
    ("torch", "BoolStorage"): np.dtype(np.bool_),
}

OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without data",
    "_rebuild_tensor_v3": "a tensor of a dtype that has no storage of its own",
    "QInt8Storage": "a quantised tensor",
    "QUInt8Storage": "a quantised tensor",
    "QInt32Storage": "a quantised tensor",
    "ComplexFloatStorage": "a complex tensor",
    "ComplexDoubleStorage": "a complex tensor",
}
