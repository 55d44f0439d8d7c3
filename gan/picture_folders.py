"""Folders of pictures as they lie on disks: in class folders or not, in splits or not, of any format."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from plugin.models.pictures import decode

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
# Names of the test split: the first one found is used, the others are ignored.
_TEST = ("test", "val", "valid", "validation")
_MAX_BYTES = 256 * 2**20
_GREY = ("1", "L", "LA", "F")  # and modes that begin with I, of 16 and 32 bits
_SHOWN = 3


class _Split(NamedTuple):
    """The pictures of one split, below a folder."""

    root: Path
    files: list[Path]

    def classes(self) -> tuple[str, ...]:
        """The class folders; none if there is only one, or if a picture lies beside them."""
        found = tuple(sorted({_class(self.root, file) for file in self.files}))
        return () if len(found) < 2 or "." in found else found


def read_folder(folder: Path, train: bool, size: int | None) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """One split of a folder of pictures.

    Both splits share their channels and classes: one colour picture makes all RGB, and class numbers follow the sorted
    training folders, even where the test split lacks a class.

    Returns:
        Images `(N, C, H, W)` uint8, labels `(N,)` int64 or None, and the names of the classes.

    Raises:
        FileNotFoundError: there are too few pictures.
        ValueError: no picture can be read, they differ in size and no `size` is given, the test split has a class
            that the training split lacks, or the two splits cannot be told apart.

    Warns:
        UserWarning: unreadable files are left out.
    """
    splits = _splits(folder)
    chosen, classes = splits[0 if train else 1], splits[0].classes()
    if not chosen.files:
        why = f"expected files {', '.join(PICTURES)}"
        if splits[0].files and splits[0].root == splits[1].root:
            why = "every tenth is for testing, so give ten or more, or a folder test/"
        raise FileNotFoundError(f"too few pictures in {chosen.root}: {why}")
    if classes:
        _refuse_other_classes(splits[1], classes, splits[0].root)
    grey = all(_is_grey(file) for split in splits for file in split.files)
    files, arrays = _decoded(chosen, grey, size)
    for file, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            (height, width), (first_height, first_width) = array.shape[:2], arrays[0].shape[:2]
            raise ValueError(
                f"{file} has {width} x {height} pixels, {files[0].name} {first_width} x {first_height}: "
                "give a size to resize them all to"
            )
    images = torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())
    labels = [classes.index(_class(chosen.root, file)) for file in files] if classes else None
    return images, None if labels is None else torch.tensor(labels, device="cpu"), classes


def _splits(folder: Path) -> tuple[_Split, _Split]:
    """The pictures to train on and those to test on.

    Raises:
        ValueError: there is a folder for testing and none for training, or folders of pictures beside the two.
    """
    names = [name for name in _TEST if (folder / name).is_dir()]
    if not (folder / "train").is_dir():
        if names and _pictures(folder / names[0]):
            raise ValueError(
                f"{folder} has {names[0]}/ and no train/: put the pictures to learn in train/, or rename the class "
                f"{names[0]}"
            )
        return _tenths(folder)
    others = [path.name for path in _visible_folders(folder) if path.name not in ("train", *_TEST) and _pictures(path)]
    if others:
        raise ValueError(
            f"{folder} has train/, and pictures in {others[0]}/ beside it: put the classes in train/ and test/, or "
            "rename the class train"
        )
    if not names:
        return _tenths(folder / "train")
    train, test = (_Split(root, _pictures(root)) for root in (folder / "train", folder / names[0]))
    return train, test


def _tenths(root: Path) -> tuple[_Split, _Split]:
    """Every tenth picture is for testing."""
    files = _pictures(root)
    train = [file for index, file in enumerate(files) if index % 10 != 9]
    return _Split(root, train), _Split(root, files[9::10])


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(root: Path) -> list[Path]:
    """The picture files below a folder, by their endings, without hidden ones such as macOS's `._a.png`."""
    return sorted(path for path in _visible_files(root, frozenset()) if path.suffix.lower() in PICTURES)


def _visible_files(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The files below a folder, also behind links to folders; `above` holds device and inode of its ancestors.

    Class folders are often links into a larger data set.
    """
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:  # a link to an ancestor
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _visible_files(path, above | {identity})
        else:
            yield path


def _class(root: Path, file: Path) -> str:
    return file.parent.relative_to(root).as_posix()


def _refuse_other_classes(test: _Split, classes: Sequence[str], root: Path) -> None:
    for file in test.files:
        if _class(test.root, file) not in classes:
            raise ValueError(
                f"{file} is of a class that {root} has no pictures of ({', '.join(classes[:5])} ...): give both the "
                "same class folders"
            )


def _is_grey(file: Path) -> bool:
    """Whether a file declares a picture without colours; unreadable files count as grey."""
    try:
        with Image.open(file) as picture:
            return picture.mode in _GREY or picture.mode.startswith("I")
    except Exception:  # Pillow's parsers may raise anything for a damaged file
        return True


def _decoded(split: _Split, grey: bool, size: int | None) -> tuple[list[Path], list[NDArray[np.uint8]]]:
    """The readable files, and their pixels `(H, W, C)`, upright and of 8 bits."""
    files, arrays, broken = list[Path](), list[NDArray[np.uint8]](), dict[Path, str]()
    for file in split.files:
        try:
            picture = decode(file.read_bytes(), _MAX_BYTES).convert("L" if grey else "RGB")
        except (ValueError, OSError) as error:
            broken[file] = str(error)
            continue
        if size is not None:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        files.append(file)
        arrays.append(np.atleast_3d(np.asarray(picture)))
    if broken:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in [*broken.items()][:_SHOWN])
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        if not files:
            raise ValueError(f"no picture in {split.root} can be read: {reasons}{more}")
        warnings.warn(f"{len(broken)} of {len(split.files)} pictures are left out: {reasons}{more}", stacklevel=5)
    return files, arrays
