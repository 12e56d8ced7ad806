"""idx files as published, and every way in which they can be wrong."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcnn.data import load_dataset
from jaxcnn.data.idx import read_idx_folder

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        NAMES[0]: rng.integers(0, 256, (30, 5, 7)),
        NAMES[1]: rng.permutation(30) % 10,
        NAMES[2]: rng.integers(0, 256, (12, 5, 7)),
        NAMES[3]: rng.permutation(12) % 10,
    }


@pytest.fixture
def folder(arrays, tmp_path):
    (tmp_path / "my-set").mkdir()
    for name, array in arrays.items():
        (tmp_path / "my-set" / name).write_bytes(idx_bytes(array))
    return tmp_path / "my-set"


def load(folder, **options) -> Any:  # the splits are held in memory
    return load_dataset(f"idx:{folder}", data_dir=folder.parent / "prepared", **options)


def assert_holds(dataset, arrays):
    for split, images, labels in ((dataset.train, *NAMES[:2]), (dataset.test, *NAMES[2:])):
        np.testing.assert_array_equal(split.images[..., 0], arrays[images])
        np.testing.assert_array_equal(split.labels, arrays[labels])


def test_plain_files_are_read_in_their_order(folder, arrays):
    dataset = load(folder)
    assert_holds(dataset, arrays)
    assert dataset.image_shape == (5, 7, 1)
    assert dataset.class_names == tuple("0123456789")
    scaled = arrays[NAMES[0]] / 255
    np.testing.assert_allclose(dataset.mean, [scaled.mean()], rtol=1e-12)
    np.testing.assert_allclose(dataset.std, [scaled.std()], rtol=1e-12)


def test_the_second_time_the_prepared_copy_is_read(folder, arrays, monkeypatch, capfd):
    load(folder)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Preparing idx:") and printed.err.count("\n") == 1
    monkeypatch.setattr("jaxcnn.data.idx.read_idx_folder", None)
    assert_holds(load(folder), arrays)
    assert capfd.readouterr() == ("", "")


def test_compressed_files_are_read(folder, arrays):
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert_holds(load(folder), arrays)


def test_compression_is_seen_by_the_content_and_a_dot_in_the_name_is_taken(folder, arrays):
    (folder / NAMES[0]).write_bytes(gzip.compress((folder / NAMES[0]).read_bytes()))
    (folder / NAMES[1]).rename(folder / "train-labels.idx1-ubyte")
    assert_holds(load(folder), arrays)


def test_class_names_come_from_a_file(folder):
    (folder / "classes.txt").write_text("\n".join(f"class {letter}" for letter in "abcdefghijkl") + "\n\n")
    assert load(folder).class_names == tuple(f"class {letter}" for letter in "abcdefghijkl")


def test_changed_files_are_prepared_anew(folder, arrays):
    load(folder)
    changed = {**arrays, NAMES[2]: 255 - arrays[NAMES[2]]}
    (folder / NAMES[2]).write_bytes(idx_bytes(changed[NAMES[2]]))
    os.utime(folder / NAMES[2], ns=(1, 1))  # of the same size
    assert_holds(load(folder), changed)


def test_images_are_resized(folder):
    assert load(folder, image_size=(8, 6)).train.images.shape == (30, 8, 6, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"my-set has no {name} or {name}.gz"):
        load(folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: b"", "is not an idx file .* begins with nothing"),
        (lambda data: data[:3], "is not an idx file .* begins with 000008"),
        (lambda data: data[:6], "is truncated, its header ends after 6 bytes"),
        (lambda data: data[:-1], r"is truncated: \d+ bytes .* header says \d+ for the shape"),
        (lambda data: data + b"\0", r"has trailing bytes: \d+ bytes .* header says"),
        (lambda data: b"\x89PNG" + data[4:], "is not an idx file .* begins with 89504e47"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "is not an idx file .* begins with 00000d"),
        (lambda data: gzip.compress(data)[:-9], "is a damaged gzip file"),
        (
            lambda data: gzip.compress(data)[:12] + b"\xff\xff\xff" + gzip.compress(data)[15:],
            "is a damaged gzip file",
        ),
        (lambda data: gzip.compress(data)[:-6] + b"abcdef", "is a damaged gzip file"),
        (lambda data: gzip.compress(data[:-1]), "is truncated"),
    ],
)
def test_a_damaged_file_is_named(folder, name, damage, message):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=f"^load_dataset: idx: .*{name} {message}") as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    assert not (folder.parent / "prepared").exists()  # nothing is written


def swap(folder, first, second):
    (folder / first).rename(folder / "third")
    (folder / second).rename(folder / first)
    (folder / "third").rename(folder / second)


def test_swapped_files_are_named(folder):
    swap(folder, NAMES[0], NAMES[1])
    with pytest.raises(ValueError, match=f"{NAMES[0]} holds labels .* where images .* swapped"):
        load(folder)


def test_files_of_the_wrong_split_are_named(folder):
    swap(folder, NAMES[0], NAMES[2])
    with pytest.raises(ValueError, match=f"{NAMES[0]} holds 12 images, but .*{NAMES[1]} 30 labels"):
        load(folder)


def test_a_label_out_of_range_is_named(folder, arrays):
    arrays[NAMES[3]][4] = 10
    (folder / NAMES[3]).write_bytes(idx_bytes(arrays[NAMES[3]]))
    with pytest.raises(
        ValueError, match=f"{NAMES[3]}: label 10 at position 4, expected 0 to 9; .*classes.txt"
    ):
        load(folder)


def test_splits_with_images_of_different_sizes_are_named(folder):
    (folder / NAMES[2]).write_bytes(idx_bytes(np.zeros((12, 7, 5))))
    with pytest.raises(ValueError, match=f"{NAMES[0]} holds images of 5x7 pixels, but .*{NAMES[2]} of 7x5"):
        load(folder)


def test_no_images_is_an_error(folder):
    (folder / NAMES[0]).write_bytes(idx_bytes(np.zeros((0, 5, 7))))
    (folder / NAMES[1]).write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(ValueError, match=f"{NAMES[0]} holds no images"):
        load(folder)


@pytest.mark.parametrize("content", ["", "one\n", "a\nb\na\n"])
def test_bad_class_names_are_refused(folder, content):
    (folder / "classes.txt").write_text(content)
    with pytest.raises(
        ValueError, match="classes.txt must hold at least 2 class names, one a line, all different"
    ):
        load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="load_dataset: idx: there is no folder .*/nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_published():
    content = read_idx_folder(FASHION_MNIST)
    for split, examples in (("train", 60_000), ("test", 10_000)):
        images, labels = content.splits[split]
        assert images.shape == (examples, 28, 28, 1)
        np.testing.assert_array_equal(np.bincount(labels), [examples // 10] * 10)
