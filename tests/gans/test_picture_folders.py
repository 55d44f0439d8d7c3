"""Folders of pictures as people have them, read as they look."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.data import read


def picture(path: Path, value: int = 100, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def test_sixteen_bits_stay_grey_levels(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 257 * 60, np.uint16)).save(tmp_path / "a.png")
    picture(tmp_path / "b.png", 61)
    found = read(tmp_path, train=True)
    assert found.images.unique().tolist() == [60, 61]
    assert found.image_shape == (1, 8, 8)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (12, 8), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turn it by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path, train=True).image_shape == (3, 12, 8)


def test_hidden_files_are_left_out_and_broken_ones_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("._a.png", ".trash/b.png", "z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 of 2 pictures are left out: .*z\.png: The file is not a picture"):
        assert len(read(tmp_path, train=True)) == 1


def test_class_folders_may_be_links_but_not_in_circles(tmp_path: Path) -> None:
    for value, name in enumerate(("ant", "bee", "cat")):
        picture(tmp_path / "all" / name / "0.png", value)
    (tmp_path / "some").mkdir()
    for name in ("ant", "cat"):
        (tmp_path / "some" / name).symlink_to(tmp_path / "all" / name)
    (tmp_path / "all" / "ant" / "above").symlink_to(tmp_path / "all")
    with pytest.warns(UserWarning, match="ant/above/bee is a class of its own, as is each of the 4 folders"):
        found = read(tmp_path / "some", train=True)
    assert (found.classes, len(found)) == (("ant", "ant/above/bee", "ant/above/cat", "cat"), 4)
    (tmp_path / "all" / "ant" / "above").unlink()
    (tmp_path / "all" / "ant" / "itself.png").symlink_to("itself.png")
    with pytest.warns(UserWarning, match="1 of 3 pictures are left out"):
        found = read(tmp_path / "some", train=True)
    assert (found.classes, len(found)) == (("ant", "cat"), 2)


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("train", "val"), ("train", "validation"), ("Training", "Testing")]
)
def test_both_splits_have_the_classes_of_the_training(train: str, test: str, tmp_path: Path) -> None:
    for value, name in enumerate(("ant", "bee", "cat")):
        picture(tmp_path / train / name / "0.png", value)
    picture(tmp_path / test / "cat" / "1.png", 7)
    found = [read(tmp_path, train) for train in (True, False)]
    assert [split.classes for split in found] == [("ant", "bee", "cat")] * 2
    assert [split.labels.tolist() for split in found if split.labels is not None] == [[0, 1, 2], [2]]
    assert [len(split) for split in found] == [3, 1], "the training holds none of the test's"
    picture(tmp_path / test / "dog" / "1.png")
    with pytest.raises(
        ValueError, match=r"dog/1\.png is of a class that .*rain(ing)? has no pictures of \(ant, bee, cat"
    ):
        read(tmp_path, train=False)


def test_a_colour_picture_of_either_split_makes_both_colour(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "0.png")
    picture(tmp_path / "test" / "0.png", mode="RGB")
    assert [read(tmp_path, train).image_shape for train in (True, False)] == [(3, 8, 8)] * 2


@pytest.mark.parametrize("names", [("test/0.png", "ant/0.png"), ("train/0.png", "ant/0.png", "test/0.png")])
def test_splits_that_are_not_clear_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        picture(tmp_path / name)
    with pytest.raises(ValueError, match=r"put the (pictures to learn|classes) in train/.*or rename the class t"):
        read(tmp_path, train=True)


def test_a_picture_beside_the_class_folders_is_no_class(tmp_path: Path) -> None:
    for name in ("a.png", "ant/0.png", "bee/0.png"):
        picture(tmp_path / name)
    with pytest.warns(UserWarning, match=r"a\.png lies beside the class folders, so that no picture has a class"):
        found = read(tmp_path, train=True)
    assert (found.labels, found.classes) == (None, ())


def test_a_class_without_pictures_is_told(tmp_path: Path) -> None:
    for name in ("ant/0.png", "bee/0.pgm", "cat/0.heic"):  # the last one is of no format that is read
        picture(tmp_path / "0.png")
        (tmp_path / name).parent.mkdir()
        (tmp_path / "0.png").rename(tmp_path / name)
    with pytest.warns(UserWarning, match=r"cat holds no picture \(png, jpg, .*, and is no class"):
        assert read(tmp_path, train=True).classes == ("ant", "bee")


def test_the_folder_where_one_is_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert read(".", train=True).name == tmp_path.name


def test_too_few_pictures_for_a_test(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="every tenth is for testing, so give ten or more, or a folder test/"):
        read(tmp_path, train=False)
