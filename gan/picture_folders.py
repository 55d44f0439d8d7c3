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

from plugin.models.pictures import EXTENSIONS, TESTING, TRAINING, decode

_MAX_BYTES = 256 * 2**20
_GREY = ("1", "L", "LA", "F")  # and modes that begin with I, of 16 and 32 bits
_SHOWN = 3


class _Split(NamedTuple):
    """The pictures of one split, below a folder."""

    root: Path
    files: list[Path]

    def classes(self) -> tuple[str, ...]:
        """The class folders; none if there is only one, or if a picture lies beside them."""
        found = self._folders()
        return () if len(found) < 2 or "." in found else tuple(found)

    def _folders(self) -> list[str]:
        """The folders that hold pictures; "." is the split itself."""
        return sorted({_class(self.root, file) for file in self.files})

    def warn(self) -> None:
        """Warn where the classes may be others than the folders say."""
        found = self._folders()
        outer = {folder.partition("/")[0] for folder in found}
        others = (path for path in _visible_folders(self.root) if path.name not in outer)
        empty = next((path for path in others if not _pictures(path)), None)
        told = ""
        if "." in found and len(found) > 2:
            loose = next(file for file in self.files if file.parent == self.root)
            told = f"{loose} lies beside the class folders, so that no picture has a class: move it into one"
        elif 1 < len(outer) < len(found):
            nested = [folder for folder in found if "/" in folder]
            told = f"{nested[0]} is a class of its own, as is each of the {len(found)} folders with pictures: put the "
            told += "pictures of a class into one folder"
        elif empty is not None and found != ["."]:
            told = f"{empty} holds no picture ({', '.join(EXTENSIONS)}), and is no class"
        if told:
            warnings.warn(told, stacklevel=5)


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
        UserWarning: unreadable files are left out; or the classes may be others than the folders say.
    """
    splits = _splits(folder)
    chosen, classes = splits[0 if train else 1], splits[0].classes()
    if not chosen.files:
        why = f"expected files {', '.join(EXTENSIONS)}"
        if splits[0].files and splits[0].root == splits[1].root:
            why = "every tenth is for testing, so give ten or more, or a folder test/"
        raise FileNotFoundError(f"too few pictures in {chosen.root}: {why}")
    splits[0].warn()
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
    train, test = _part(folder, TRAINING), _part(folder, TESTING)
    if train is None:
        if test is not None and _pictures(test):
            raise ValueError(
                f"{folder} has {test.name}/ and no train/: put the pictures to learn in train/, or rename the class "
                f"{test.name}"
            )
        return _tenths(folder)
    beside = (path for path in _visible_folders(folder) if path != train and path.name.casefold() not in TESTING)
    other = next((path.name for path in beside if _pictures(path)), None)
    if other is not None:
        raise ValueError(
            f"{folder} has {train.name}/, and pictures in {other}/ beside it: put the classes in {train.name}/ and "
            f"test/, or rename the class {train.name}"
        )
    if test is None:
        return _tenths(train)
    return _Split(train, _pictures(train)), _Split(test, _pictures(test))


def _part(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder of a split: the first of these names, in any case, that is there."""
    found = {path.name.casefold(): path for path in reversed(_visible_folders(folder))}
    return next((found[name] for name in names if name in found), None)


def _tenths(root: Path) -> tuple[_Split, _Split]:
    """Every tenth picture is for testing."""
    files = _pictures(root)
    train = [file for index, file in enumerate(files) if index % 10 != 9]
    return _Split(root, train), _Split(root, files[9::10])


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(root: Path) -> list[Path]:
    """The picture files below a folder, by their endings, without hidden ones such as macOS's `._a.png`."""
    return sorted(path for path in _visible_files(root, frozenset()) if path.suffix.lower()[1:] in EXTENSIONS)


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
