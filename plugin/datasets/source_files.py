"""Pictures that are files: of a folder, of a glob, of a list."""

import csv
import errno
import io
import os
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

from . import paths
from .records import Record, UnreadablePicture

MAX_FILE_BYTES = 256 * 2**20
# A folder that holds one of these is a result, and none of its files is a picture.
RESULT_MARKS = ("zarr.json", "_attribution.json")
_COLUMNS = ("path", "label", "bytes", "modified")
_ENCODING = "utf-8-sig"  # spreadsheets begin a file with a mark


class _Files:
    """Files whose place is their path or URL."""

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.sources.Source`."""
        if record.bytes > MAX_FILE_BYTES:
            size = f"{record.bytes / 2**20:.0f} MB"
            raise UnreadablePicture(f"The file has {size}; at most {MAX_FILE_BYTES // 2**20} MB are read.")
        return paths.read(record.place)


class FolderSource(_Files):
    """Every file below a folder, pictures or not, by name relative to it with `/`, in the order of the names.

    Hidden files and folders are left out, and so are results. Links to folders are followed, but not in circles.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)

    def enters(self, folder: str) -> bool:
        """Whether files of a folder below this one count; asked for each."""
        return True

    def records(self) -> Iterator[Record]:
        """The files, one at a time; see `plugin.datasets.sources.Source`.

        Raises:
            NotADirectoryError: there is no such folder.
            OSError: a folder below it cannot be listed.
            ValueError: it holds no file.
        """
        found = self._remote() if paths.is_url(self.folder) else self._local()
        first = next(found, None)
        if first is None:
            raise ValueError(f"{self.folder} holds no files")
        yield first
        yield from found

    def _local(self) -> Iterator[Record]:
        if Path(self.folder).is_file():
            raise NotADirectoryError(
                f"{self.folder} is no folder, nor a list (.txt, .csv, .tsv), .parquet or .tar: give the folder of the "
                "pictures, or a list of them"
            )
        if not Path(self.folder).is_dir():
            raise NotADirectoryError(f"{self.folder} is no folder")
        yield from _below(self.folder, "", frozenset(), self.enters)

    def _remote(self) -> Iterator[Record]:
        system, inner = paths.file_system(self.folder)
        if not system.isdir(inner):
            raise NotADirectoryError(f"{self.folder} is no folder")
        found = system.find(inner, detail=True)
        results = {name.rpartition("/")[0] + "/" for name in found if name.endswith(RESULT_MARKS)}
        start = len(inner.rstrip("/")) + 1
        for name in sorted(found):
            hidden = any(part.startswith(".") for part in name[start:].split("/"))
            if not hidden and not any(name.startswith(result) for result in results):
                yield Record(name[start:], system.unstrip_protocol(name), *paths.described(found[name]))


def _below(
    folder: str, prefix: str, above: frozenset[tuple[int, int]], enters: Callable[[str], bool]
) -> Iterator[Record]:
    """The files below a folder; `above` are the folders that it lies in, by device and number."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:  # a link to a folder that it lies in
        return
    for entry in paths.visible_entries(folder):
        if paths.is_folder(entry):
            if enters(entry.path) and not any((Path(entry.path) / mark).exists() for mark in RESULT_MARKS):
                yield from _below(entry.path, f"{prefix}{entry.name}/", above | {identity}, enters)
        elif paths.is_file(entry.path) if entry.is_symlink() else entry.is_file():
            yield Record(printable(prefix + entry.name), entry.path, *paths.size_and_stamp(entry.path))


def printable(name: str) -> str:
    """A name as valid Unicode: bytes that are none are written as `\\xff`."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class FileSource(_Files):
    """The files that a glob matches, by name relative to the last folder without a wildcard."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def records(self) -> Iterator[Record]:
        """The files, sorted; see `plugin.datasets.sources.Source`."""
        for name, path in paths.named(self.pattern):
            if not any(part.startswith(".") for part in name.split("/")):
                yield Record(printable(name), path, *paths.size_and_stamp(path))


class ListSource(_Files):
    """The pictures that a file names: paths or URLs, relative to the file.

    A `.txt` holds one in a line. A `.csv` or `.tsv` begins with a line of column names: `path`, and if known `label`,
    `bytes` and `modified`. Where the last two are missing, files on this machine are asked for theirs; files under URLs
    are not, so that a list of many begins at once.

    A file that is not there is listed as a picture that cannot be read. If the first file is not there, or the folder
    or bucket of any, the list or the disk is wrong, and an error is raised.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = path.rpartition("/")[0] if paths.is_url(path) else str(Path(path).parent)

    def records(self) -> Iterator[Record]:
        """The pictures in the order of the list; see `plugin.datasets.sources.Source`.

        Raises:
            FileNotFoundError: the first file, or the folder of another, is not there.
            ValueError: the list is empty, has no column `path`, or holds another entry that cannot be.
        """
        is_empty = True
        for path, label, length, modified in self._rows():
            if "\0" in path:
                raise ValueError(f"{self.path} names a path with a zero byte, {printable(path)!r}: save it as UTF-8")
            place = path if paths.is_url(path) else paths.join(self.folder, path)
            if is_empty and not paths.exists(place):
                raise _not_there(place, f"it is the first; a path counts from {self.folder}")
            is_empty = False
            size = self._length(path, length)
            if not modified and not paths.is_url(place):
                size, modified = _status(place)
            yield Record(printable(path), place, size, printable(modified), printable(label) or None)
        if is_empty:
            raise ValueError(f"{self.path} names no pictures")

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.sources.Source`."""
        try:
            return super().read(record)
        except OSError as error:
            _require_gone(record.place, error)
            raise UnreadablePicture("The list names a file that is not there.") from error

    def _length(self, path: str, text: str) -> int:
        """The size of a picture by the list, -1 if the list has none.

        Raises:
            ValueError: it is no size.
        """
        if text in ("", "-1"):
            return -1
        if not text.isdecimal() or int(text) >= 2**63:
            raise ValueError(f"{self.path} names {text!r} as the bytes of {path}: give a whole number, or none")
        return int(text)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """Path, label, bytes and modification time of each picture; values that are not known are empty."""
        with self._open() as file:
            if self.path.endswith(".txt"):
                yield from ((line, "", "", "") for line in map(str.rstrip, file) if line)
                return
            delimiter = "\t" if self.path.endswith(".tsv") else ","
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            columns = [name.strip().casefold() for name in next(reader, [])]
            if "path" not in columns:
                found = printable(", ".join(columns)) or "none"
                raise ValueError(
                    f"{self.path} has no column `path` in its first line, but {found}: name the columns, and separate "
                    "them by commas (.csv) or tabs (.tsv)"
                )
            # An empty value behind the columns stands for those that the list does not have.
            chosen = itemgetter(*(columns.index(name) if name in columns else len(columns) for name in _COLUMNS))
            padding = [""] * (len(columns) + 1)
            try:
                for values in filter(None, reader):
                    row = chosen(values[: len(columns)] + padding[len(values[: len(columns)]) :])
                    if not row[0]:
                        raise ValueError(f"{self.path} names no path in line {reader.line_num}")
                    yield row
            except csv.Error as error:
                raise ValueError(f"{self.path} cannot be read in line {reader.line_num}: {error}") from error

    def _open(self) -> io.TextIOBase:
        if not paths.is_url(self.path):
            return open(self.path, encoding=_ENCODING, errors="surrogateescape", newline="")
        system, inner = paths.file_system(self.path)
        return io.TextIOWrapper(system.open(inner, "rb"), encoding=_ENCODING, errors="surrogateescape", newline="")


def _status(place: str) -> tuple[int, str]:
    try:
        return paths.size_and_stamp(place)
    except OSError as error:
        _require_gone(place, error)
        return -1, ""


def _require_gone(place: str, error: OSError) -> None:
    """Refuse to take a disk that fails, or is missing, for a file that is not there."""
    if not isinstance(error, FileNotFoundError) and error.errno != errno.ENAMETOOLONG:
        raise error
    if not paths.has_folder(place):
        raise _not_there(place, "its folder is not there either")


def _not_there(place: str, why: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, f"the list names a file that is not there, and {why}", place)
