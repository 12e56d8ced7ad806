"""PyTorch's .pth files without PyTorch: a pickle that describes tensors, and the bytes of their storages."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.pretrained.stored import DIRECTORY_BYTES, StoredArray, WeightFile, short
from jaxcnn.pretrained.torch_pickle import Refused, Storage, Tensor, storage_from, unpickle

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file as torch < 1.6 wrote it; 1001 is the second."""

WRAPPERS = ("state_dict", "model", "model_ema")
"""Where training scripts keep the state dict in a checkpoint that holds more."""

CHUNK = 1 << 20


class Place(NamedTuple):
    """Where the bytes of a storage are."""

    start: int
    size: int
    check: Callable[[], None]
    """Compares them with their checksum, where there is one."""


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive, as torch >= 1.6 writes."""
    return head.startswith(b"PK\3\4")


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so was written by torch < 1.6."""
    return head.startswith(b"\x80") and MAGIC.to_bytes(10, "little") in head[:32]


def zip_arrays(file: WeightFile) -> dict[str, StoredArray]:
    """The arrays of a .pth file that is a zip archive: */data.pkl, and */data/KEY for each storage.

    Args:
        file: the open file.

    Returns:
        The arrays by name, in the order of the state dict.

    Raises:
        ValueError: an archive that is damaged or no checkpoint, or holds more than plain tensors.
    """
    try:
        with zipfile.ZipFile(file.file) as archive:
            records = archive.infolist()
    # What zipfile meets in a damaged directory it lets through as it comes.
    except Exception as error:
        raise file.error(f"is a damaged or truncated zip archive: {error}") from None
    names = {record.filename: record for record in records}
    if len(names) != len(records):
        raise file.error("is damaged: its zip directory has a name twice")
    if sum(record.compress_size for record in records) > file.size:
        raise file.error("is damaged: the records of its zip archive are larger than the file")
    folders = [
        name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(folders) != 1:
        raise file.error(
            f"is a zip archive with {len(folders)} records */data.pkl; a PyTorch checkpoint has one"
        )
    (folder,) = folders
    if folder + "constants.pkl" in names:
        raise file.error("is a TorchScript archive, which is a program; expected a state dict")

    def content(name: str) -> bytes:
        place = _record(file, names[folder + name])
        if place.size > DIRECTORY_BYTES:
            raise file.error(f"has a {name} of {place.size} bytes; expected at most {DIRECTORY_BYTES}")
        place.check()
        return file.bytes(place.start, place.size)

    if folder + "byteorder" in names and (order := content("byteorder")) != b"little":
        raise file.error(f"has byte order {short(order.decode('latin-1'))}; expected 'little'")

    def storage(persistent_id: tuple[Any, ...]) -> Storage:
        if len(persistent_id) != 5:
            raise Refused("is damaged: no storage is described so")
        return storage_from(*persistent_id)

    checkpoint = unpickle(file, "data.pkl", io.BytesIO(content("data.pkl")), storage)
    places: dict[str, Place] = {}

    def place(storage: Storage) -> Place:
        name = f"{folder}data/{storage.key}"
        if name not in names:
            raise file.error(f"is damaged: its storage {short(storage.key)} is not in the archive")
        if storage.key not in places:
            places[storage.key] = _record(file, names[name])
        return places[storage.key]

    return _arrays(file, checkpoint, place)


def legacy_arrays(file: WeightFile) -> dict[str, StoredArray]:
    """The arrays of a .pth file as torch < 1.6 wrote it: five pickles, and the storages one after the other.

    Args:
        file: the open file.

    Returns:
        The arrays by name, in the order of the state dict.

    Raises:
        ValueError: a file that is damaged, or holds more than plain tensors.
    """
    storages: dict[str, Storage] = {}

    def storage(persistent_id: tuple[Any, ...]) -> Storage:
        # The last says of which other storage this one is a part.
        if len(persistent_id) != 6 or persistent_id[5] is not None:
            raise Refused("has a storage that is a view of another one; only tensors may be views")
        found = storage_from(*persistent_id[:5])
        if storages.setdefault(found.key, found) != found:
            raise Refused(f"is damaged: it describes its storage {short(found.key)} in two ways")
        return found

    head = io.BytesIO(file.bytes(0, DIRECTORY_BYTES))
    magic, protocol, system, checkpoint, keys = (
        unpickle(file, name, head, storage)
        for name in (
            "magic number",
            "protocol version",
            "system description",
            "state dict",
            "list of storages",
        )
    )
    if type(magic) is not int or magic != MAGIC or type(protocol) is not int or protocol != 1001:
        raise file.error("is no PyTorch file of protocol 1001, the only one before torch 1.6")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise file.error("was not written in little-endian byte order")
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) != len(keys)
        or set(keys) != set(storages)
    ):
        raise file.error("is damaged: its list of storages is not that of its tensors")

    places = {}
    end = head.tell()
    for key in keys:
        _, dtype, length = storages[key]
        stated = int.from_bytes(file.bytes(end, 8), "little")
        start, size = end + 8, length * dtype.itemsize
        end = start + size
        if end > file.size:
            raise file.error(
                f"is damaged or truncated: its storages need {end} bytes; the file has {file.size}"
            )
        if stated != length:
            raise file.error(f"is damaged: its storage {short(key)} has {stated} values; expected {length}")
        places[key] = Place(start, size, lambda: None)
    return _arrays(file, checkpoint, lambda storage: places[storage.key])


def _arrays(
    file: WeightFile, checkpoint: object, place: Callable[[Storage], Place]
) -> dict[str, StoredArray]:
    """The tensors of an unpickled checkpoint, each checked against its storage."""
    state = checkpoint
    if isinstance(state, dict):
        state = next((state[name] for name in WRAPPERS if isinstance(state.get(name), dict)), state)
    if not isinstance(state, dict):
        raise file.error(f"holds a {type(state).__name__}; expected a state dict")
    # torch.nn.DataParallel's prefix.
    prefix = "module." if all(isinstance(key, str) and key.startswith("module.") for key in state) else ""
    arrays = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            name = short(key) if isinstance(key, str) else f"of number {key}"
            raise file.error(
                f"has an entry {name} that is a {type(tensor).__name__}; expected a flat state dict of "
                f"tensors, or one under {', '.join(map(repr, WRAPPERS))}"
            )
        key = key.removeprefix(prefix)
        arrays[key] = _stored(file, key, tensor, place(tensor.storage))
    return arrays


def _stored(file: WeightFile, key: str, tensor: Tensor, place: Place) -> StoredArray:
    (_, dtype, length), offset, shape, strides = tensor
    if place.size != length * dtype.itemsize:
        raise file.error(
            f"is damaged: the storage of {short(key)} has {place.size} bytes; expected {length} of {dtype}"
        )
    # An axis of size 1 may have any stride. The others, outermost first, must leave no gap and no overlap.
    axes = sorted((axis for axis, size in enumerate(shape) if size != 1), key=lambda axis: -strides[axis])
    sizes = [shape[axis] for axis in axes]
    dense = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    if 0 not in shape and [strides[axis] for axis in axes] != dense:
        raise file.error(
            f"has {short(key)} of shape {shape} with strides {strides}; expected those of a dense array"
        )
    if offset + math.prod(shape) > length:
        raise file.error(
            f"is damaged: {short(key)} of shape {shape} at offset {offset} is larger than its storage of "
            f"{length}"
        )

    def read() -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)
        place.check()
        flat = file.array(key, place.start + offset * dtype.itemsize, math.prod(shape), dtype)
        return flat.reshape(sizes).transpose(np.argsort(axes)).reshape(shape)

    return StoredArray(key, shape, dtype, read)


def _record(file: WeightFile, record: zipfile.ZipInfo) -> Place:
    """Where the bytes of a record of a zip archive are."""
    name = short(record.filename)
    if (
        record.compress_type != zipfile.ZIP_STORED
        or record.compress_size != record.file_size
        or record.flag_bits & 1
    ):
        raise file.error(f"has a compressed or encrypted record {name}; PyTorch stores them as they are")
    is_inside = 0 <= record.header_offset <= file.size - 30
    local = file.bytes(record.header_offset, 30) if is_inside else b""
    if not is_zip(local):
        raise file.error(f"is damaged: there is no record {name} where the zip directory says")
    name_length, extra_length = struct.unpack_from("<HH", local, 26)
    start, size = record.header_offset + 30 + name_length + extra_length, record.file_size
    if start + size > file.size:
        raise file.error(f"is damaged: its record {name} reaches beyond the end of the file")
    checked = False

    def check() -> None:
        nonlocal checked
        if checked:
            return
        crc = 0
        for first in range(start, start + size, CHUNK):
            crc = zlib.crc32(file.bytes(first, min(CHUNK, start + size - first)), crc)
        if crc != record.CRC:
            raise file.error(
                f"is damaged: the checksum of its record {name} is {crc:08x}, expected {record.CRC:08x}"
            )
        checked = True

    return Place(start, size, check)
