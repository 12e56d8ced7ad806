"""The digits, sets of tfds, and the names of data sets."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import jaxcnn.data
from jaxcnn.data.prepare import default_data_dir
from jaxcnn.data.stratify import stratified_split


def load_dataset(name, **options) -> Any:  # the splits of these tests are held in memory
    return jaxcnn.data.load_dataset(name, **options)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


def test_digits_are_those_of_scikit_learn_split_by_class(data_dir):
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    dataset = load_dataset("digits", data_dir=data_dir)
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.class_names == tuple("0123456789")
    images = np.concatenate([dataset.train.images, dataset.test.images])
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert images.min() == 0 and images.max() == 255
    counts = np.rint(images[..., 0] * (16 / 255))  # back to 0..16
    found = sorted(zip(map(bytes, counts.astype(np.uint8)), labels, strict=True))
    expected = sorted(zip(map(bytes, digits["images"].astype(np.uint8)), digits["target"], strict=True))
    assert found == expected
    per_class = np.bincount(digits["target"])
    assert np.all(np.abs(np.bincount(dataset.test.labels) - per_class / 5) < 1)
    scaled = dataset.train.images / 255
    np.testing.assert_allclose([*dataset.mean, *dataset.std], [scaled.mean(), scaled.std()], rtol=1e-12)


def test_digits_are_the_same_wherever_they_are_prepared(data_dir, tmp_path):
    first, second = load_dataset("digits", data_dir=data_dir), load_dataset("digits", data_dir=tmp_path)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)


def test_preparing_prints_one_line_and_reading_none(tmp_path, capfd):
    load_dataset("digits", data_dir=tmp_path)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", f"Preparing digits in {tmp_path}/digits/1.0.0 (only once)\n")
    load_dataset("digits", data_dir=tmp_path, image_size=(12, 10))
    assert capfd.readouterr() == ("", "")


def test_the_default_place_is_that_of_tfds(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert default_data_dir() == Path.home() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    assert default_data_dir() == Path.home() / "sets"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match="cannot write the prepared copy of digits to .*/file/.*: .*; choose another"
    ):
        load_dataset("digits", data_dir=tmp_path / "file" / "inside")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write the prepared copy of digits .* Permission denied"):
        load_dataset("digits", data_dir=tmp_path)


KILLED = """
import os, signal, sys
import jaxcnn.data.prepare as prepare
from jaxcnn.data import load_dataset
def examples(self, examples):
    for i, (image, label) in enumerate(examples):
        if i == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        yield i, {"image": image, "label": int(label)}
prepare.ImageBuilder._generate_examples = examples
load_dataset("digits", data_dir=sys.argv[1])
"""


def test_a_killed_preparation_leaves_nothing_that_is_read(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.glob("digits/incomplete*"))
    assert len(load_dataset("digits", data_dir=tmp_path).train) == 1437


def test_of_two_that_prepare_at_once_the_first_wins(tmp_path, monkeypatch):
    """The second finds the directory there when it renames its own."""
    from jaxcnn.data import prepare
    from jaxcnn.data.digits import Digits

    original = prepare.ImageBuilder._generate_examples

    def generate(self, examples):
        monkeypatch.setattr(prepare.ImageBuilder, "_generate_examples", original)
        Digits(data_dir=tmp_path, file_format="array_record").download_and_prepare()
        return original(self, examples)

    monkeypatch.setattr(prepare.ImageBuilder, "_generate_examples", generate)
    assert len(load_dataset("digits", data_dir=tmp_path).test) == 360


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "digit",
            r"load_dataset: unknown data set 'digit'; did you mean digits\? There are digits, idx:DIR",
        ),
        ("cifar-10", "unknown data set 'cifar-10'; did you mean cifar10"),
        ("qqqqqq", "unknown data set 'qqqqqq'. There are digits, idx:DIR"),
        ("qqq:qqq", "unknown data set 'qqq:qqq'. There are digits"),
        ("", "unknown data set ''. There are digits"),
        ("idx:", "name must be idx:DIR with the folder of the images, got 'idx:'"),
        ("folder:", "name must be folder:DIR with the folder of the images, got 'folder:'"),
        ("mnist:9.9.9", "tfds has no 'mnist:9.9.9': .*only: 3"),
        ("cifar10/gray", "tfds has no 'cifar10/gray': "),
    ],
)
def test_an_unknown_name_says_what_is_near(name, message, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        load_dataset(name, data_dir=tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_its_prefix_is_recognised(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=f"for the images in that folder use folder:{tmp_path}"):
        load_dataset(str(tmp_path), data_dir=tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(ValueError, match=f"for the images in that folder use idx:{tmp_path}"):
        load_dataset(str(tmp_path), data_dir=tmp_path)


@pytest.mark.parametrize("size", [(0, 8), (8,), (8, 8, 1), (-1, 8)])
def test_a_wrong_size_is_refused(size, tmp_path, unchecked):
    with pytest.raises(ValueError, match="load_dataset: image_size must be"):
        load_dataset("digits", data_dir=tmp_path, image_size=size)


def test_a_set_of_tfds_without_tensorflow_says_what_to_install(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"'mnist' is not prepared .* pip install -e '\.\[train,tensorflow\]'"
    ) as raised:
        load_dataset("mnist", data_dir=tmp_path)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


class FakeSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A stand-in for a stock set that TensorFlow has prepared, with encoded images."""

    VERSION = tfds.core.Version("3.0.1")
    code_path = None
    splits = {"train": range(10), "test": range(10, 14)}
    labelled_test = True
    shape = (28, 28, 1)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.shape),
            "label": tfds.features.ClassLabel(num_classes=10),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split):
        for place, i in enumerate(self.splits[split]):
            label = -1 if split == "test" and not self.labelled_test else i % 10
            yield place, {"image": png(fake_pixels(i)), "label": label, "id": str(i)}


def fake_pixels(i):
    return np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8)


def prepare_fake(data_dir, name="mnist", **attributes):
    builder = type("Fake", (FakeSet,), attributes, skip_registration=True)
    builder.name = name
    builder(data_dir=data_dir, file_format="array_record").download_and_prepare()


def test_a_prepared_set_of_tfds_is_read_without_tensorflow(tmp_path, capfd):
    prepare_fake(tmp_path)
    capfd.readouterr()
    dataset = load_dataset("mnist", data_dir=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules
    assert dataset.image_shape == (28, 28, 1)
    np.testing.assert_array_equal(dataset.train.images[..., 0], [fake_pixels(i) for i in range(10)])
    np.testing.assert_array_equal(dataset.test.images[..., 0], [fake_pixels(i) for i in range(10, 14)])
    np.testing.assert_array_equal(dataset.test.labels, [0, 1, 2, 3])


def test_without_a_labelled_test_split_validation_is_taken_or_a_fifth_of_train(tmp_path):
    splits = {"train": range(10), "test": range(10, 14), "validation": range(20, 23)}
    prepare_fake(tmp_path / "a", splits=splits, labelled_test=False)
    np.testing.assert_array_equal(load_dataset("mnist", data_dir=tmp_path / "a").test.labels, [0, 1, 2])
    prepare_fake(tmp_path / "b", splits={"train": range(10)})
    dataset = load_dataset("mnist", data_dir=tmp_path / "b")
    np.testing.assert_array_equal(dataset.train.labels, range(8))
    np.testing.assert_array_equal(dataset.test.labels, [8, 9])


def test_sets_that_do_not_fit_are_refused(tmp_path):
    prepare_fake(tmp_path / "a", splits={"test": range(3)})
    with pytest.raises(ValueError, match="'mnist' has no split 'train', only test"):
        load_dataset("mnist", data_dir=tmp_path / "a")
    prepare_fake(tmp_path / "b", name="of_my_own", shape=(None, None, 1))
    with pytest.raises(ValueError, match="the images of 'of_my_own' differ in size; give image_size"):
        load_dataset("of_my_own", data_dir=tmp_path / "b")
    assert load_dataset("of_my_own", data_dir=tmp_path / "b", image_size=(9, 7)).image_shape == (9, 7, 1)


def test_what_only_tensorflow_reads_is_refused(tmp_path):
    prepare_fake(tmp_path)
    info = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in info.parent.glob("*array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(
        ValueError, match="'mnist' is prepared in .* only TensorFlow reads; give another data_dir"
    ):
        load_dataset("mnist", data_dir=tmp_path)


def test_a_constant_channel_has_std_one(tmp_path):
    for name in "ab":
        for i in range(2):
            (tmp_path / "s" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((3, 4, 3), np.uint8)
            pixels[..., 1], pixels[0, :, 2] = 255, 255
            Image.fromarray(pixels).save(tmp_path / "s" / name / f"{i}.png")
    dataset = load_dataset(f"folder:{tmp_path / 's'}", data_dir=tmp_path)
    np.testing.assert_allclose(dataset.mean, [0, 1, 1 / 3])
    np.testing.assert_allclose(dataset.std, [1, 1, np.sqrt(2) / 3])


@pytest.mark.parametrize("counts", [[2, 2], [5, 5, 5], [178, 182, 177], [2, 3, 100], [50]])
def test_a_stratified_split_is_exact_and_random_within_the_classes(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    train, test = stratified_split(labels, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
    given = np.bincount(labels[test])
    for count, part in zip(counts, given, strict=True):
        assert part in {max(1, count // 5), -(-count // 5)}
    assert len(test) == max(-(-len(labels) // 5), sum(max(1, count // 5) for count in counts))
    np.testing.assert_array_equal(test, stratified_split(labels, seed=1)[1])
    if len(labels) > 10:
        assert not np.array_equal(test, stratified_split(labels, seed=2)[1])


def test_a_class_with_one_example_cannot_be_split():
    with pytest.raises(ValueError, match="stratified_split: class 7 has one example"):
        stratified_split(np.array([3, 3, 7]))
