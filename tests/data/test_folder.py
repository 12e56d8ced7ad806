"""Folders of images, right and wrong."""

import os
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import load_dataset


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def random_pixels(seed, shape=(6, 9, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Ten cats, seven dogs and two owls, each with pixels of its own."""
    for name, count in (("owl", 2), ("cat", 10), ("dog", 7)):
        for i in range(count):
            write(tmp_path / "pets" / name / f"{i}.png", random_pixels([len(name), i, ord(name[0])]))
    return tmp_path / "pets"


def load(folder, **options) -> Any:  # the splits are held in memory
    return load_dataset(f"folder:{folder}", data_dir=folder.parent / "prepared", **options)


def test_each_image_is_in_one_split_with_the_label_of_its_folder(pets):
    dataset = load(pets)
    assert dataset.class_names == ("cat", "dog", "owl")
    assert dataset.image_shape == (6, 9, 3)
    found = [
        (dataset.class_names[label], image.tobytes())
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    expected = [(file.parent.name, np.asarray(Image.open(file)).tobytes()) for file in pets.glob("*/*.png")]
    assert sorted(found) == sorted(expected)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [2, 1, 1])
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [8, 6, 1])


def test_the_split_does_not_depend_on_where_the_folder_is(pets):
    first = load(pets)
    second = load(shutil.copytree(pets, pets.parent / "copy"))
    np.testing.assert_array_equal(first.test.images, second.test.images)


def test_train_and_test_folders_are_taken_as_they_are(tmp_path):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in ("b", "a"):
            for i in range(count):
                write(tmp_path / "set" / split / name / f"{i}.png", random_pixels([count, ord(name), i]))
    dataset = load(tmp_path / "set")
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(dataset.test.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.test.images[3], random_pixels([2, ord("b"), 1]))
    shutil.rmtree(tmp_path / "set" / "test")
    np.testing.assert_array_equal(load(tmp_path / "set").test.images[1], random_pixels([1, ord("b"), 0]))


def test_grey_images_stay_grey_and_one_colour_image_makes_all_rgb(tmp_path):
    for name in "ab":
        for i in range(2):
            write(tmp_path / "grey" / name / f"{i}.png", random_pixels([ord(name), i], (4, 5)))
    assert load(tmp_path / "grey").image_shape == (4, 5, 1)
    write(tmp_path / "grey" / "b" / "2.png", random_pixels(0, (4, 5, 3)))
    dataset = load(tmp_path / "grey")
    assert dataset.image_shape == (4, 5, 3)
    grey = dataset.train.images[0]
    np.testing.assert_array_equal(grey, np.repeat(grey[:, :, :1], 3, axis=2))


def test_images_of_other_modes_become_rgb_and_upright(tmp_path):
    colours = random_pixels(1, (4, 6, 3))
    write(tmp_path / "s" / "a" / "1.png", colours)
    write(tmp_path / "s" / "a" / "2.png", np.dstack([colours, random_pixels(2, (4, 6))]))
    Image.fromarray(colours[:, :, 0] // 100 * 100).convert("P").save(tmp_path / "s" / "a" / "3.gif")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "s" / "b").mkdir()
    Image.fromarray(np.rot90(colours)).save(tmp_path / "s" / "b" / "1.png", exif=exif)
    Image.fromarray(np.full((4, 6), 0x1234, np.uint16)).save(tmp_path / "s" / "b" / "2.png")
    dataset = load(tmp_path / "s")
    images = [image for split in (dataset.train, dataset.test) for image in split.images]
    assert dataset.image_shape == (4, 6, 3)
    assert (
        sum(np.array_equal(image, colours) for image in images) == 3
    )  # as it was, without alpha, turned upright
    assert sum(np.array_equal(image, np.full((4, 6, 3), 0x12)) for image in images) == 1


def test_jpegs_are_kept_byte_for_byte(tmp_path):
    for name in "ab":
        for i in range(2):
            write(tmp_path / "s" / name / f"{i}.jpg", random_pixels([ord(name), i], (16, 24, 3)), quality=90)
    images = {
        image.tobytes()
        for split in (load(tmp_path / "s").train, load(tmp_path / "s").test)
        for image in split.images
    }
    assert images == {np.asarray(Image.open(file)).tobytes() for file in tmp_path.glob("s/*/*.jpg")}


def test_images_of_different_sizes_need_a_size(pets):
    write(pets / "cat" / "wide.png", random_pixels(0, (6, 18, 3)))
    with pytest.raises(
        ValueError, match=r"images of .*pets' differ in size; give image_size=\(height, width\)"
    ):
        load(pets)
    assert load(pets, image_size=(6, 9)).image_shape == (6, 9, 3)


def test_a_wide_image_is_cut_to_its_centre(pets):
    pixels = random_pixels(0, (6, 19, 3))
    write(pets / "cat" / "wide.png", pixels)
    dataset = load(pets, image_size=(6, 9))
    images = [*dataset.train.images, *dataset.test.images]
    assert any(np.array_equal(image, pixels[:, 5:14]) for image in images)


def test_hidden_files_and_those_of_file_managers_are_passed_over(pets):
    before = load(pets)
    (pets / ".DS_Store").write_bytes(b"?")
    (pets / "__MACOSX").mkdir()
    (pets / "cat" / ".hidden.png").write_bytes(b"?")
    (pets / "cat" / "Thumbs.db").write_bytes(b"?")
    np.testing.assert_array_equal(load(pets).train.images, before.train.images)


@pytest.mark.parametrize("change", ["touch", "add", "remove", "rename"])
def test_a_changed_folder_is_prepared_anew(pets, change, capfd):
    load(pets)
    if change == "touch":
        write(pets / "cat" / "0.png", random_pixels(99))
        os.utime(pets / "cat" / "0.png", ns=(1, 1))
    elif change == "add":
        write(pets / "cat" / "new.png", random_pixels(99))
    elif change == "remove":
        (pets / "cat" / "0.png").unlink()
    else:
        (pets / "cat").rename(pets / "tiger")
    capfd.readouterr()
    dataset = load(pets)
    assert "Preparing folder:" in capfd.readouterr().err
    images = {image.tobytes() for split in (dataset.train, dataset.test) for image in split.images}
    assert images == {np.asarray(Image.open(file)).tobytes() for file in pets.glob("*/*.png")}
    assert ("tiger" in dataset.class_names) == (change == "rename")


def test_a_streamed_folder_gives_the_same_examples(pets, monkeypatch):
    held = load(pets, image_size=(5, 4))
    monkeypatch.setattr("jaxcnn.data.dataset.RESIDENT_BYTES", 0)
    streamed = load(pets, image_size=(5, 4))
    for split, other in ((streamed.train, held.train), (streamed.test, held.test)):
        assert not hasattr(split, "images")
        np.testing.assert_array_equal([split[i]["image"] for i in range(len(split))], other.images)
        np.testing.assert_array_equal(split.labels, other.labels)
    np.testing.assert_allclose(streamed.mean, held.mean, rtol=1e-12)
    np.testing.assert_allclose(streamed.std, held.std, rtol=1e-12)


def assert_refused(folder, error, message):
    with pytest.raises(error, match=message) as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    assert not (folder.parent / "prepared").exists()  # nothing is written


def test_a_missing_folder_is_named(tmp_path):
    assert_refused(tmp_path / "nowhere", FileNotFoundError, "folder: there is no folder .*/nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(
        tmp_path / "empty", ValueError, "empty has no sub-folders; expected one sub-folder per class"
    )


def test_images_without_sub_folders_are_refused(tmp_path):
    write(tmp_path / "flat" / "1.png", random_pixels(0))
    assert_refused(
        tmp_path / "flat", ValueError, "flat has no sub-folders; expected one sub-folder per class"
    )


def test_a_file_beside_the_sub_folders_is_named(pets):
    (pets / "README.txt").write_text("hello")
    assert_refused(pets, ValueError, "pets has README.txt beside sub-folders")


def test_a_single_class_is_refused(pets):
    shutil.rmtree(pets / "cat")
    shutil.rmtree(pets / "owl")
    assert_refused(pets, ValueError, "pets has one class, 'dog'; at least 2 are needed")


def test_a_class_without_images_is_named(pets):
    (pets / "ant").mkdir()
    assert_refused(pets, ValueError, "class 'ant' has no images")


def test_a_class_with_one_image_is_named(pets):
    (pets / "owl" / "0.png").unlink()
    assert_refused(pets, ValueError, "class 'owl' has one image .*1.png.*; at least 2 are needed")


def test_a_folder_inside_a_class_is_named(pets):
    (pets / "cat" / "old").mkdir()
    assert_refused(pets, ValueError, "cat/old is a folder; expected only images in")


def test_a_test_class_that_is_not_in_train_is_named(tmp_path):
    for split, names in (("train", "ab"), ("test", "abc")):
        for name in names:
            write(tmp_path / "s" / split / name / "1.png", random_pixels(0))
    assert_refused(tmp_path / "s", ValueError, "class 'c' of .*/test is not in .*/train")


def test_a_file_that_is_no_image_is_named(pets):
    (pets / "dog" / "notes.txt").write_text("not an image")
    assert_refused(
        pets, ValueError, "dog/notes.txt is not a readable image: no image format that Pillow knows"
    )


def test_a_truncated_image_is_named(pets):
    data = (pets / "dog" / "3.png").read_bytes()
    (pets / "dog" / "3.png").write_bytes(data[:-60])
    assert_refused(pets, ValueError, "dog/3.png is not a readable image: ")


def test_an_image_of_floats_is_named(pets):
    Image.fromarray(np.zeros((6, 9), np.float32)).save(pets / "dog" / "depth.tiff")
    assert_refused(pets, ValueError, r"dog/depth.tiff has 32 bits a pixel \(mode F\)")


def test_a_broken_link_is_named(pets):
    (pets / "dog" / "gone.png").symlink_to(pets / "nowhere.png")
    assert_refused(pets, FileNotFoundError, "dog/gone.png")
