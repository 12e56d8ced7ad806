"""Weight files, well made and otherwise: what is read is right; what is wrong is said before it does harm."""

import itertools
import json
import math
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxcnn.pretrained.files import open_arrays

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    BFLOAT16: "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}
MEGABYTE = 1 << 20


# An assembler for pickles, so that files are made without PyTorch, and such as no PyTorch would make.


class Global(NamedTuple):
    module: str
    name: str


class Reduce(NamedTuple):
    function: Any
    arguments: tuple


class Build(NamedTuple):
    target: Any
    state: Any


class Persistent(NamedTuple):
    id: Any


def assemble(value) -> bytes:
    match value:
        case bytes():  # assembled already
            return value
        case Global(module, name):
            return b"c" + f"{module}\n{name}\n".encode()
        case Reduce(function, arguments):
            return assemble(function) + assemble(arguments) + b"R"
        case Build(target, state):
            return assemble(target) + assemble(state) + b"b"
        case Persistent(id):
            return assemble(id) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            number = pickle.encode_long(value)
            return b"\x8a" + bytes([len(number)]) + number
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case list():
            return b"](" + b"".join(map(assemble, value)) + b"e"
        case dict():
            return b"}(" + b"".join(map(assemble, itertools.chain(*value.items()))) + b"u"
        case tuple():
            return b"(" + b"".join(map(assemble, value)) + b"t"
    raise TypeError(type(value))


def program(value) -> bytes:
    return b"\x80\x02" + assemble(value) + b"."


ORDERED_DICT = Reduce(Global("collections", "OrderedDict"), ())
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


class Form(NamedTuple):
    """How torch >= 1.6 writes files, or how it did before."""

    name: str

    def storage(self, key, dtype, length, changes=()):
        fields = {"what": "storage", "dtype": Global("torch", STORAGES[np.dtype(dtype)]), "key": key}
        fields |= {"location": "cpu", "length": length}
        fields |= {"view": None} if self.name == "legacy" else {}
        return Persistent(tuple((fields | dict(changes)).values()))

    def tensor(self, key, dtype, length, shape, strides=None, offset=0):
        if strides is None:
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        storage = self.storage(key, dtype, length)
        return Reduce(REBUILD, (storage, offset, shape, strides, False, ORDERED_DICT))

    def write(self, path, pickled, storages, **options):
        pickled = pickled if isinstance(pickled, bytes) else program(pickled)
        (write_zip if self.name == "zip" else write_legacy)(path, pickled, storages, **options)
        return path

    def save(self, path, arrays, wrap=lambda state: state, **options):
        """A state dict of NumPy arrays."""
        tensors = {
            key: self.tensor(f"{i}", a.dtype, a.size, a.shape) for i, (key, a) in enumerate(arrays.items())
        }
        return self.write(path, wrap(tensors), dict(enumerate(arrays.values())), **options)


def write_zip(path, pickled, storages, records=(), leave_out=(), compression=zipfile.ZIP_STORED):
    content = {"data.pkl": pickled, "byteorder": b"little"}
    content |= {f"data/{key}": array.tobytes() for key, array in storages.items()} | {"version": b"3\n"}
    content |= dict(records)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            if name not in leave_out:
                archive.writestr(f"archive/{name}", data)


def write_legacy(
    path, pickled, storages, magic=0x1950A86A20F9469CFC6C, protocol=1001, little=True, keys=None
):
    keys = sorted(map(str, storages)) if keys is None else keys
    system = {
        "protocol_version": 1001,
        "little_endian": little,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    with open(path, "wb") as file:
        file.write(program(magic) + program(protocol) + program(system) + pickled + program(keys))
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())


@pytest.fixture(params=["zip", "legacy"])
def form(request):
    return Form(request.param)


ZIP, LEGACY = Form("zip"), Form("legacy")


def values(seed, shape, dtype: Any = np.float32):
    return np.asarray(10 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def read(path):
    """Every array of a file, each as it was announced."""
    with open_arrays("load", path) as stored:
        arrays = {}
        for key, array in stored.items():
            arrays[key] = array.read()
            assert array.key == key
            assert (arrays[key].shape, arrays[key].dtype) == (array.shape, array.dtype)
        return arrays


def refused(path, *words):
    """The file is refused, in words, at little cost and before any array is read."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught, open_arrays("load", path):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"load: {path} ")
    assert len(message) < 600
    assert peak < 30 * MEGABYTE
    for word in words:
        assert word in message
    return message


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for key in expected:
        assert actual[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(actual[key], expected[key])


# What is well made


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_every_dtype(form, dtype, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of torch would now fail
    arrays = {"conv.weight": values(0, (4, 3, 5, 2), dtype), "steps": values(1, (), dtype)}
    assert_same(read(form.save(tmp_path / "weights", arrays)), arrays)


def test_views_of_one_storage(form, tmp_path):
    block = values(0, 120)
    views: dict[str, tuple] = {
        "whole": ((2, 3, 4, 5), (60, 20, 5, 1), 0),
        "part": ((3, 7), (7, 1), 99),
        "transposed": ((3, 7), (1, 3), 11),
        "channels_last": ((2, 3, 4, 5), (60, 1, 15, 3), 0),
        "odd strides of size 1": ((1, 6, 1), (999, 1, 0), 4),
        "number": ((), (), 119),
        "empty": ((0, 3), (3, 1), 120),
    }
    tensors = {name: form.tensor("0", np.float32, 120, *view) for name, view in views.items()}
    expected = {
        name: np.lib.stride_tricks.as_strided(block[offset:], shape, [4 * stride for stride in strides])
        for name, (shape, strides, offset) in views.items()
    }
    assert_same(read(form.write(tmp_path / "weights", tensors, {0: block})), expected)


def test_parameters_metadata_and_older_tensors(form, tmp_path):
    new, old = values(0, (2, 3)), values(1, (5,))
    parameter = Global("torch._utils", "_rebuild_parameter")
    first_form = Global("torch._utils", "_rebuild_tensor")
    size = Reduce(Global("torch", "Size"), ((5,),))
    state = {
        "new": Reduce(parameter, (form.tensor("0", np.float32, 6, (2, 3)), True, ORDERED_DICT)),
        "old": Reduce(first_form, (form.storage("1", np.float32, 5), 0, size, (1,))),
    }
    metadata = {"_metadata": {"": {"version": 1}}}
    path = form.write(tmp_path / "weights", Build(state, metadata), {0: new, 1: old})
    assert_same(read(path), {"new": new, "old": old})


def test_ordered_dict_of_python_2(form, tmp_path):
    array = values(0, (2, 3))
    pair = [b"U\x06weight", form.tensor("0", np.float32, 6, (2, 3))]
    state = Reduce(Global("collections", "OrderedDict"), ([pair],))
    assert_same(read(form.write(tmp_path / "weights", state, {0: array})), {"weight": array})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "loss": 0.5, "model": {}},
        lambda state: {"model_ema": {"other": 1}, "model": state},
        lambda state: {"optimizer": {"groups": [{"lr": 0.1}]}, "model_ema": state},
    ],
)
def test_checkpoints_are_unwrapped(form, wrap, tmp_path):
    arrays = {"a": values(0, 3), "b": values(1, (2, 2))}
    assert_same(read(form.save(tmp_path / "weights", arrays, wrap)), arrays)


def test_prefix_of_data_parallel(form, tmp_path):
    array = values(0, 3)
    assert list(read(form.save(tmp_path / "1", {"module.a": array, "module.module.b": array}))) == [
        "a",
        "module.b",
    ]
    assert list(read(form.save(tmp_path / "2", {"module.a": array, "b": array}))) == ["module.a", "b"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_files_of_torch(zipped, protocol, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    state = module.state_dict()  # an OrderedDict with _metadata
    state["parameter"] = torch.nn.Parameter(torch.randn(3, 2))
    state["view"] = state["0.weight"][1:3].permute(0, 3, 1, 2)
    state["transposed"] = torch.randn(5, 7).T
    for dtype in STORAGES:
        state[str(dtype)] = (10 * torch.randn(3, 5)).to(getattr(torch, str(dtype)))
    path = tmp_path / "weights"
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    arrays = read(path)
    assert list(arrays) == list(state)
    for key, tensor in state.items():
        assert str(tensor.dtype) == f"torch.{arrays[key].dtype}"
        exact = tensor.detach().double().numpy()
        np.testing.assert_array_equal(arrays[key].astype(np.float64), exact)


def test_arrays_are_not_read_before_they_are_asked_for(form, tmp_path):
    path = form.save(
        tmp_path / "weights", {"large": np.zeros(50 * MEGABYTE, np.uint8), "small": values(0, 3)}
    )
    tracemalloc.start()
    try:
        with open_arrays("load", path) as stored:
            stored["small"].read()
            assert tracemalloc.get_traced_memory()[1] < 10 * MEGABYTE
            stored["large"].read()
            assert 50 * MEGABYTE < tracemalloc.get_traced_memory()[1] < 65 * MEGABYTE
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="closed"):
        stored["small"].read()


# Pickles that do something


class Command:
    """Pickled, it is an order to run a command."""

    def __init__(self, function, *arguments):
        self.order = function, arguments

    def __reduce__(self):
        return self.order


def touch(path):
    return f"open({str(path)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, exec, eval])
def test_a_pickle_runs_nothing(form, protocol, function, tmp_path):
    marker = tmp_path / "marker"
    command = f"touch {marker}" if function is os.system else touch(marker)
    pickled = pickle.dumps({"weight": Command(function, command)}, protocol)
    path = form.write(tmp_path / "weights", pickled, {})
    refused(path, function.__name__ if protocol else "")
    assert not marker.exists()
    pickle.loads(pickled)
    assert marker.exists()  # it would have


def stack_global(module, name):
    return assemble(module) + assemble(name) + b"\x93"


@pytest.mark.parametrize(
    ("payload", "words"),
    {
        "dotted name": (
            stack_global("collections", "OrderedDict.__init__"),
            "names collections.OrderedDict.__init__",
        ),
        "method of a type": (
            stack_global("torch", "FloatStorage.__reduce__"),
            "names torch.FloatStorage.__reduce__",
        ),
        "getattr": (
            Reduce(Global("builtins", "getattr"), (Global("collections", "OrderedDict"), "x")),
            "getattr",
        ),
        "empty module": (stack_global("", "eval"), "names .eval"),
        "a space in the module": (Global("collections OrderedDict", "x"), "names"),
        "our own functions": (Global("jaxcnn.pretrained.torch_pickle", "_expect"), "it would execute code"),
        "torch.load": (Global("torch", "load"), "names torch.load: it would execute code"),
        "name that is no text": (assemble(1) + assemble(2) + b"\x93", "a int where a str belongs"),
        "name of a kilometre": (Global("a", "b" * 100_000), "..."),
        "old instance": (b"(ios\nsystem\n", "names os.system"),
        "old instance of an allowed name": (b"(icollections\nOrderedDict\n", "makes no object so"),
        "object": (b"(" + assemble(Global("collections", "OrderedDict")) + b"o", "the instruction OBJ"),
        "new object": (
            assemble((Global("collections", "OrderedDict"), ()))[1:-1] + b"\x81",
            "the instruction NEWOBJ",
        ),
        "extension": (b"\x82\x01", "the instruction EXT1"),
        "call of a dtype": (Reduce(Global("torch", "FloatStorage"), ()), "where a function belongs"),
        "call of text": (Reduce("eval", ("1",)), "where a function belongs"),
        "state of a function": (Build(REBUILD, {"__defaults__": (1, 2)}), "where a dict belongs"),
        "persistent text": (b"Pos.system\n", "the instruction PERSID"),
        "persistent number": (Persistent(5), "where a tuple belongs"),
        "bytearray of 2**60": (b"\x96" + struct.pack("<Q", 1 << 60), ""),
        "text of 2**31": (b"X" + struct.pack("<I", 1 << 31), ""),
        "memo of 2**32 places": (b"Nr\xff\xff\xff\xff", "holds a NoneType"),
        "nothing on the stack": (b"0000", "POP"),
        "no mark": (b"t", "is no pickle"),
        "a key that cannot be hashed": (b"}]Ns", "a key of type list"),
        "a key that is nested deeply": (b"}N" + b"\x85" * 100_000 + b"Ns", "a key of type tuple"),
        "lists that are nested deeply": (b"]" * 20_000 + b"a" * 19_999, "holds a list"),
        "a list in itself": (b"]q\x00h\x00a", "holds a list"),
        "half a pair": (b"}(Nu", "is no pickle"),
        "a key twice": (b"}(" + assemble("a") + b"N" + assemble("a") + b"Nu", "has the key 'a' twice"),
        "sparse": (Global("torch._utils", "_rebuild_sparse_tensor"), "a sparse tensor"),
        "quantised": (Global("torch._utils", "_rebuild_qtensor"), "a quantised tensor"),
        "complex": (Global("torch", "ComplexFloatStorage"), "a complex tensor"),
        "a number": (3, "holds a int"),
        "a list": ([1, 2], "holds a list"),
    }.values(),
)
def test_pickles_that_are_refused(form, payload, words, tmp_path):
    refused(form.write(tmp_path / "weights", program(payload), {}), words)


def test_a_list_is_not_copied_a_thousand_times(form, tmp_path):
    pairs = [[f"{i}", i] for i in range(1000)]
    call = assemble(Global("collections", "OrderedDict")) + b"h\x00\x85R"
    payload = assemble(pairs) + b"q\x00" + call * 1000
    refused(form.write(tmp_path / "weights", program(payload), {}), "no pickle")


# Tensors that are not what they say


@pytest.mark.parametrize(
    ("change", "words"),
    {
        "64 GiB of one number": ({"shape": (1 << 17, 1 << 17), "strides": (0, 0)}, "strides (0, 0)"),
        "as much, dense": ({"shape": (1 << 17, 1 << 17)}, "larger than its storage of 6"),
        "overlap": ({"shape": (2, 3), "strides": (2, 1)}, "expected those of a dense array"),
        "gap": ({"shape": (2, 2), "strides": (3, 1)}, "expected those of a dense array"),
        "backwards": ({"shape": (6,), "strides": (-1,)}, "no sizes"),
        "negative size": ({"shape": (-2, -3)}, "no sizes"),
        "negative offset": ({"shape": (2,), "offset": -1}, "no sizes"),
        "beyond the end": ({"shape": (2,), "offset": 5}, "larger than its storage"),
        "empty, beyond the end": ({"shape": (0,), "offset": 7}, "larger than its storage"),
        "empty and huge": ({"shape": (0, 1 << 50, 1 << 50)}, "no sizes"),
        "a size that no machine has": ({"shape": (1 << 70,)}, "no sizes"),
        "a bool for a size": ({"shape": (True,)}, "no sizes"),
        "text for a size": ({"shape": ("6",), "strides": (1,)}, "no sizes"),
        "more strides than sizes": ({"shape": (6,), "strides": (1, 1)}, "no sizes"),
        "a hundred axes": ({"shape": (1,) * 100}, "no sizes"),
        "no tuple": ({"shape": None, "strides": ()}, "no sizes"),
    }.values(),
)
def test_tensors_that_are_refused(form, change, words, tmp_path):
    tensor = form.tensor("0", np.float32, 6, **change)
    refused(form.write(tmp_path / "weights", {"weight": tensor}, {0: values(0, 6)}), words)


@pytest.mark.parametrize(
    "change",
    [
        {"what": "module"},
        {"dtype": "float32"},
        {"key": 0},
        {"length": -6},
        {"length": 1 << 62},
        {"length": 7},
        {"length": 5},
        {"length": None},
        {"extra": 1},
        {"key": "../0"},
    ],
    ids=str,
)
def test_storages_that_are_refused(form, change, tmp_path):
    tensor = Reduce(REBUILD, (form.storage("0", np.float32, 6, change), 0, (1,), (1,), False, None))
    refused(form.write(tmp_path / "weights", {"weight": tensor}, {0: values(0, 6)}))


@pytest.mark.parametrize(
    "arguments",
    [(), (0, 0, (), ()), (None,) * 6, ((),) * 6, (None,) * 1000],
    ids=["none", "no storage", "nothing", "empty", "many"],
)
def test_calls_with_other_arguments(form, arguments, tmp_path):
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        refused(
            form.write(tmp_path / "weights", Reduce(Global("torch._utils", name), arguments), {}), "no pickle"
        )


def test_conjugated_tensor(form, tmp_path):
    arguments = (form.storage("0", np.float32, 6), 0, (6,), (1,), False, None, {"neg": True})
    refused(form.write(tmp_path / "weights", {"a": Reduce(REBUILD, arguments)}, {0: values(0, 6)}), "negated")


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda state: {"net": state}, "an entry 'net' that is a dict; expected a flat state dict"),
        (lambda state: {"model": {"model": state}}, "an entry 'model' that is a dict"),
        (lambda state: {**state, "epoch": 3}, "an entry 'epoch' that is a int"),
        (lambda state: {1: state["a"]}, "an entry of number 1"),
        (lambda state: [state["a"]], "holds a list"),
        (lambda state: state["a"], "holds a Tensor"),
    ],
)
def test_objects_that_are_no_state_dict(form, wrap, words, tmp_path):
    refused(form.save(tmp_path / "weights", {"a": values(0, 3)}, wrap), words)


# Damage


def sample(form, path):
    arrays = {"conv.weight": values(0, (4, 3, 2, 2)), "conv.bias": values(1, 4, BFLOAT16)}
    return arrays, form.save(path, arrays, lambda state: Build(state, {"_metadata": {"": {"version": 1}}}))


def test_every_beginning_of_a_file_is_refused(form, tmp_path):
    _, path = sample(form, tmp_path / "weights")
    content = path.read_bytes()
    assert len(content) > 500
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused(path)


def flipped(content, rng):
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def test_a_flipped_bit_in_the_pickle(form, tmp_path):
    arrays, path = sample(form, tmp_path / "weights")
    storages = dict(enumerate(arrays.values()))
    state = {k: form.tensor(f"{i}", a.dtype, a.size, a.shape) for i, (k, a) in enumerate(arrays.items())}
    pickled = program(Build(state, {"_metadata": {"": {"version": 1}}}))
    rng = np.random.default_rng(0)
    outcomes = set()
    tracemalloc.start()
    try:
        for _ in range(300):
            form.write(path, flipped(pickled, rng), storages)  # with the checksum of the damaged pickle
            try:
                # Another name or another shape of the same size cannot be told from the right one.
                assert sum(array.nbytes for array in read(path).values()) < 1000
                outcomes.add("read")
            except ValueError as error:
                assert str(error).startswith(f"load: {path} ")
                outcomes.add("refused")
        assert tracemalloc.get_traced_memory()[1] < 20 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert outcomes == {"read", "refused"}


def test_a_flipped_bit_of_a_zip_file_is_noticed_or_harmless(tmp_path):
    arrays, path = sample(ZIP, tmp_path / "weights")
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    refusals = 0
    for _ in range(300):
        path.write_bytes(flipped(content, rng))
        try:
            assert_same(read(path), arrays)
        except ValueError as error:
            assert str(error).startswith(f"load: {path} ")
            refusals += 1
    assert refusals > 150


def test_random_bytes_after_a_good_beginning(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "weights"
    for begin in (b"PK\3\4", program(0x1950A86A20F9469CFC6C), b"\x40\0\0\0\0\0\0\0{", b""):
        for length in (0, 10, 100, 1000):
            path.write_bytes(begin + rng.bytes(length))
            refused(path)


# Files of another kind


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"weights\n" * 100, "is text"),
        ("Gewichte für später".encode(), "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not Found</html>", "a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (bytes(257) + b"ustar\0" + bytes(300), "a tar archive"),
        (pickle.dumps({"weight": [1.0]}), "a pickle of something else"),
        (bytes(range(1, 100)), "it begins with 01 02 03 04 05 06 07 08"),
    ],
)
def test_files_that_hold_no_weights(content, words, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    refused(path, words, "expected a .pth or .safetensors file")


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is no regular file")
    with pytest.raises(FileNotFoundError, match="load: there is no file .*missing.pth"):
        read(tmp_path / "missing.pth")


def test_the_suffix_says_nothing(tmp_path):
    arrays = {"a": values(0, 3)}
    assert_same(read(ZIP.save(tmp_path / "a.safetensors", arrays)), arrays)
    assert_same(read(str(LEGACY.save(tmp_path / "b.txt", arrays))), arrays)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"leave_out": ["data.pkl"]}, "0 records */data.pkl"),
        ({"leave_out": ["data/0"]}, "storage '0' is not in the archive"),
        ({"records": {"data/0": bytes(8)}}, "has 8 bytes; expected 3 of float32"),
        ({"records": {"byteorder": b"big"}}, "has byte order 'big'; expected 'little'"),
        ({"records": {"constants.pkl": b""}}, "a TorchScript archive"),
        ({"records": {"data.pkl": bytes(5 * MEGABYTE)}}, "a data.pkl of 5242880 bytes"),
        ({"compression": zipfile.ZIP_DEFLATED}, "a compressed or encrypted record"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_zip_archives_that_are_refused(options, words, tmp_path):
    refused(ZIP.save(tmp_path / "weights", {"a": values(0, 3)}, **options), words)


def test_a_byte_order_that_is_not_stated_is_little(tmp_path):
    arrays = {"a": values(0, 3)}
    assert_same(read(ZIP.save(tmp_path / "weights", arrays, leave_out=["byteorder"])), arrays)


def test_a_zip_bomb(tmp_path):
    records = {"data.pkl": bytes(200 * MEGABYTE)}
    path = ZIP.save(tmp_path / "weights", {}, records=records, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MEGABYTE
    refused(path, "compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_record_twice(tmp_path):
    path = ZIP.save(tmp_path / "weights", {"a": values(0, 3)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(12))
    refused(path, "a name twice")


def test_two_checkpoints_in_one_archive(tmp_path):
    path = ZIP.save(tmp_path / "weights", {"a": values(0, 3)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", program({}))
    refused(path, "2 records */data.pkl")


def in_directory(path, name, field, value):
    """Change a field of a record in the zip directory: its place, its length."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2", 0, content.rindex(name.encode()))
    content[entry + field[0] : entry + field[0] + field[1]] = value.to_bytes(field[1], "little")
    path.write_bytes(content)


CRC, COMPRESSED, SIZE, FLAGS, PLACE = (16, 4), (20, 4), (24, 4), (8, 2), (42, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({COMPRESSED: 1 << 30, SIZE: 1 << 30}, "larger than the file"),
        ({SIZE: 1 << 30}, "compressed"),
        ({FLAGS: 1}, "encrypted"),
        ({PLACE: 1}, "where the zip directory says"),
        ({PLACE: 1 << 31}, "damaged"),
    ],
)
def test_a_zip_directory_that_lies(changes, words, tmp_path):
    path = ZIP.save(tmp_path / "weights", {"a": values(0, 30)})
    for field, value in changes.items():
        in_directory(path, "archive/data/0", field, value)
    refused(path, words)


def test_a_checksum_that_does_not_fit(tmp_path):
    path = ZIP.save(tmp_path / "weights", {"a": values(0, 30)})
    in_directory(path, "archive/data/0", CRC, 12345)
    with (
        open_arrays("load", path) as arrays,
        pytest.raises(ValueError, match="'archive/data/0' is .*, expected 00003039"),
    ):
        arrays["a"].read()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": 1002}, "protocol 1001"),
        ({"magic": [0x1950A86A20F9469CFC6C]}, "protocol 1001"),
        ({"little": False}, "little-endian"),
        ({"keys": []}, "list of storages"),
        ({"keys": ["0", "0"]}, "list of storages"),
        ({"keys": [0]}, "list of storages"),
        ({"keys": {"0": 1}}, "list of storages"),
        ({"keys": ["0", "1"]}, "list of storages"),
    ],
)
def test_legacy_files_that_are_refused(options, words, tmp_path):
    refused(LEGACY.save(tmp_path / "weights", {"a": values(0, 3)}, **options), words)


def test_a_legacy_storage_of_another_length(tmp_path):
    tensor = LEGACY.tensor("0", np.float32, 3, (3,))
    refused(LEGACY.write(tmp_path / "weights", {"a": tensor}, {0: values(0, 4)}), "has 4 values; expected 3")


def test_a_legacy_storage_described_in_two_ways(tmp_path):
    state = {"a": LEGACY.tensor("0", np.float32, 3, (3,)), "b": LEGACY.tensor("0", np.int32, 3, (3,))}
    refused(LEGACY.write(tmp_path / "weights", state, {0: values(0, 3)}), "storage '0' in two ways")


def test_a_view_as_a_legacy_storage(tmp_path):
    tensor = Reduce(
        REBUILD, (LEGACY.storage("0", np.float32, 3, {"view": ("1", 0, 3)}), 0, (3,), (1,), False, None)
    )
    refused(LEGACY.write(tmp_path / "weights", {"a": tensor}, {0: values(0, 3)}), "a view of another one")


# safetensors


def write_safetensors(path, header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def entry(first, last, shape, dtype: Any = "F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_safetensors_of_the_library(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {str(dtype): values(i, (3, i), dtype) for i, dtype in enumerate(STORAGES)}
    arrays["number"] = values(0, ())
    arrays |= {"u16": values(1, 4, np.uint16), "u32": values(2, 4, np.uint32), "u64": values(3, 4, np.uint64)}
    (tmp_path / "weights").write_bytes(safetensors.save(arrays, metadata={"format": "pt"}))
    actual = read(tmp_path / "weights")
    assert_same({key: actual[key] for key in arrays}, arrays)
    assert len(actual) == len(arrays)


def test_safetensors_by_hand(tmp_path):
    arrays = {"b": values(0, (2, 3)), "a": values(1, 2, BFLOAT16), "none": values(2, (0, 4))}
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(4, 28, [2, 3]),
        "a": entry(0, 4, [2], "BF16"),
        "none": entry(28, 28, [0, 4]),
    }
    path = write_safetensors(tmp_path / "weights", header, arrays["a"].tobytes() + arrays["b"].tobytes())
    assert_same(read(path), arrays)


ONE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "words"),
    {
        "a key twice": (ONE + b"," + ONE[1:] + b"}", "the key 'a' is there twice"),
        "a field twice": (ONE[:-1] + b',"shape":[1]}}', "the key 'shape' is there twice"),
        "overlap": (
            {"a": entry(0, 4, [1]), "b": entry(0, 4, [1])},
            "begins at byte 0 of the data; expected 4",
        ),
        "gap": ({"a": entry(0, 1, [1], "I8"), "b": entry(2, 4, [1], "I16")}, "begins at byte 2"),
        "beyond the end": ({"a": entry(0, 8, [2])}, "have 8 bytes; 4 follow"),
        "bytes left over": ({"a": entry(0, 2, [1], "F16")}, "have 2 bytes; 4 follow"),
        "backwards": ({"a": entry(4, 0, [1])}, "has -4 bytes"),
        "negative": ({"a": entry(-4, 0, [1])}, "no sizes"),
        "64 GiB": ({"a": entry(0, 4, [1 << 34])}, "has 4 bytes for F32"),
        "a size that no machine has": ({"a": entry(0, 4, [1 << 80])}, "no sizes"),
        "sizes whose product wraps": ({"a": entry(0, 0, [1 << 32, 1 << 32, 0])}, "no sizes"),
        "a fraction": ({"a": entry(0, 4, [1.0])}, "no sizes"),
        "a bool": ({"a": entry(0, 4, [True])}, "no sizes"),
        "another dtype": ({"a": entry(0, 4, [1], "F4")}, "dtype 'F4'; expected one of F64, F32"),
        "dtype that is no text": ({"a": entry(0, 4, [1], ["F32"])}, "no dtype, shape and data_offsets"),
        "no entry": ({"a": 5}, "no dtype, shape and data_offsets for 'a'"),
        "another field": (
            {"a": entry(0, 4, [1]) | {"file": "/etc/passwd"}},
            "no dtype, shape and data_offsets",
        ),
        "three offsets": ({"a": entry(0, 4, [1]) | {"data_offsets": [0, 2, 4]}}, "no dtype, shape"),
        "no JSON": (b"{a}", "a damaged safetensors header"),
        "no UTF-8": (b'{"\xff":1}', "a damaged safetensors header"),
        "nested deeply": (b'{"a":' * 100_000, "a damaged safetensors header"),
        "a number without end": (b'{"a":' + b"9" * 100_000, "a damaged safetensors header"),
        "nothing": ({}, "have 0 bytes; 4 follow"),
        "more than one value": (b"{}{}", "a damaged safetensors header"),
    }.values(),
)
def test_safetensors_headers_that_are_refused(header, words, tmp_path):
    refused(write_safetensors(tmp_path / "weights", header, bytes(4)), words)


@pytest.mark.parametrize("length", [100, 1 << 40, (1 << 64) - 1])
def test_a_safetensors_header_longer_than_the_file(length, tmp_path):
    refused(
        write_safetensors(tmp_path / "weights", ONE + b"}", bytes(4), length), f"a header of {length} bytes"
    )


def test_a_safetensors_header_of_any_length(tmp_path):
    refused(
        write_safetensors(tmp_path / "weights", b"{" + b" " * 5 * MEGABYTE + b"}"), "expected at most 4194304"
    )


def test_every_beginning_of_a_safetensors_file_is_refused(tmp_path):
    path = write_safetensors(tmp_path / "weights", ONE + b"}", bytes(4))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path)


# Mappings


def test_mappings_of_arrays():
    arrays = {"numpy": values(0, (2, 3)), "bfloat16": values(1, 4, BFLOAT16), "number": np.float32(2)}
    assert_same(
        read(arrays | {"jax": jnp.arange(3, dtype=jnp.bfloat16)}),
        arrays | {"jax": np.arange(3, dtype=BFLOAT16)},
    )
    assert read({}) == {}


def test_mappings_of_tensors():
    torch = pytest.importorskip("torch")
    array = values(0, (2, 3))
    tensors = {
        "plain": torch.from_numpy(array),
        "parameter": torch.nn.Parameter(torch.from_numpy(array)),
        "transposed": torch.from_numpy(array.T.copy()).T,
    }
    assert_same(read(tensors), dict.fromkeys(tensors, array))
    for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.bool):
        tensor = (10 * torch.randn(3, 5)).to(dtype)
        (actual,) = read({"a": tensor}).values()
        assert f"torch.{actual.dtype}" == str(dtype)
        np.testing.assert_array_equal(actual.astype(np.float64), tensor.double().numpy())


def test_mappings_that_are_refused():
    torch = pytest.importorskip("torch")
    for value, words in (
        ([1.0, 2.0], "is a list; expected an array or tensor"),
        ({"weight": np.ones(3)}, "is a dict; expected"),
        (torch.eye(3).to_sparse(), "sparse or has no data"),
        (torch.ones(3, device="meta"), "sparse or has no data"),
        (jax.random.key(0), "dtype key<fry>, unknown to NumPy"),
    ):
        with pytest.raises(ValueError, match="load: the mapping's entry 'a' ") as caught:
            read({"a": value})
        assert words in str(caught.value)


def test_a_mapping_whose_keys_are_no_names(unchecked):
    with pytest.raises(ValueError, match="load: the mapping has a key of type int; expected names"):
        read({1: np.ones(3)})
