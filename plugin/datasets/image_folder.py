"""The files of a folder: which there are, their pixels, and the classes that their folders name."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models import Preprocessing
from ..models.pictures import decode

# Room for the largest picture that is decoded, uncompressed with 16 bits per channel.
MAX_FILE_BYTES = 256 * 2**20


def list_files(folder: Path) -> dict[str, int]:
    """Every file below a folder, pictures or not, by name relative to it with `/`, sorted; with its size in bytes.

    Hidden files and folders are left out, and so are zarr stores.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no file, or one whose name is not valid Unicode.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    if not files:
        raise ValueError(f"{folder} holds no files")
    for name in files:
        if not _is_unicode(name):
            raise ValueError(f"the name of {name!r} is not valid Unicode, so it cannot be stored: rename the file")
    return dict(sorted(files.items()))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        visible = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in visible if not (Path(parent) / name / "zarr.json").exists()]
        paths = (Path(parent) / name for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_pixels(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8] | str:
    """The pixels that a network sees of a picture, or why the file has none.

    Returns:
        Pixels `(H, W, C)`, or one sentence.

    Raises:
        OSError: the file is gone or the disk fails, which says nothing about the picture.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            return f"The file has {size / 2**20:.0f} MB; at most {MAX_FILE_BYTES // 2**20} MB are read."
        data = path.read_bytes()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "The file may not be read."
        raise
    try:
        return preprocessing.pixels(decode(data, MAX_FILE_BYTES))
    except ValueError as error:
        return str(error)


def labels_of(names: Sequence[str], classes: Sequence[str], outputs: int) -> list[int]:
    """The class of each file, from the folder that it lies in.

    Folders are called as the classes are, or by the classes' numbers, or there are as many folders as classes and they
    stand in the same order (the convention of torchvision's `ImageFolder`).

    Args:
        names: the files, with `/`.
        classes: names of the network's outputs; empty if they are not known.
        outputs: how many outputs the network has.

    Raises:
        ValueError: none of these holds, or a file lies in no folder.
    """
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise ValueError(f"{loose} lies in no class folder, so its label is not known: choose target='predicted'")
    folders = [name.split("/")[-2] for name in names]
    distinct = sorted(set(folders))
    by_name = {_plain(name): index for index, name in enumerate(classes)}
    if all(_plain(folder) in by_name for folder in distinct):
        numbers = {folder: by_name[_plain(folder)] for folder in distinct}
    elif all(folder.isdecimal() and int(folder) < outputs for folder in distinct):
        numbers = {folder: int(folder) for folder in distinct}
    elif len(distinct) == outputs:
        numbers = {folder: index for index, folder in enumerate(distinct)}
    else:
        unknown = next(folder for folder in distinct if _plain(folder) not in by_name)
        raise ValueError(
            f"the folder {unknown} is called like none of the {outputs} classes, nor by a number, and there are "
            f"{len(distinct)} class folders: rename it, or choose target='predicted'"
        )
    return [numbers[folder] for folder in folders]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
