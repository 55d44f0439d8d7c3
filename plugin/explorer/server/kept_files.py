"""Files of the user's own, found by their content: they outlive the page, and where that is safe the session.

A browser has sent them, or they are of this machine and were named by their path.
"""

import hashlib
import re
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

# Patterns of names in a link: a folder's, and a file's, which has an ending.
FOLDER_NAME = r"[\w .,()+@&'=~-]{1,100}"
NAME = rf"{FOLDER_NAME}\.[A-Za-z0-9]{{1,12}}"
# A checkpoint has 200 MB at most, see `inputs.own_weights`.
_MOST_BYTES = 512 * 2**20
_MOST_FILES = 64
SHORT = 12
_LONGEST_NAME = 60


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def link_name(name: str) -> str:
    """A file's name as it may stand in a link: characters that `NAME` does not allow become underscores."""
    stem, dot, ending = name.rpartition(".")
    if not dot or not re.fullmatch(r"[A-Za-z0-9]{1,12}", ending):
        stem, ending = name, "file"
    return f"{folder_link_name(stem)}.{ending}"


def folder_link_name(name: str) -> str:
    """A folder's name as it may stand in a link: characters that `FOLDER_NAME` does not allow become underscores."""
    return re.sub(r"[^\w .,()+@&=~-]", "_", name)[:100] or "_"


@dataclass(frozen=True)
class OwnFile(ABC):
    """A file of the user's own.

    Attributes:
        name: the last part of its path, for people.
        digest: SHA-256 of the content in hexadecimal, by which files are compared.
        place: its name in a program: the path where that is known.
        held: bytes of memory that it takes while it is kept.
    """

    name: str
    digest: str
    place: str
    held: int

    @property
    def short(self) -> str:
        """The start of the digest, as links have it."""
        return self.digest[:SHORT]

    @abstractmethod
    def read(self, most: int) -> bytes:
        """The content; of a file longer than `most` bytes, at least `most + 1` of them.

        Raises:
            ValueError: it was changed or removed, or may not be read any more.
        """

    @abstractmethod
    def on_disk(self) -> AbstractContextManager[Path]:
        """A path to the content, for a block.

        Raises:
            ValueError: it was changed or removed, before the block or in it.
        """


@dataclass(frozen=True)
class SentFile(OwnFile):
    """A file that a browser has sent, with its content."""

    data: bytes = field(repr=False)

    def read(self, most: int) -> bytes:
        """The content."""
        return self.data

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """A path to a copy."""
        with tempfile.TemporaryDirectory() as folder:
            # Short: of other scripts a character has up to four bytes, and a name at most 255.
            path = Path(folder) / link_name(self.name)[-_LONGEST_NAME:]
            path.write_bytes(self.data)
            yield path


@dataclass(frozen=True)
class LocalFile(OwnFile):
    """A file of this machine. It is read where it is, and must stay as it was when it was opened.

    Attributes:
        path: one that `own_paths` has returned.
        stamp: its size in bytes, and when it was changed last.
    """

    path: Path
    stamp: tuple[int, int]

    def read(self, most: int) -> bytes:
        """The content, up to one byte more than `most`."""
        try:
            with self.on_disk() as path, path.open("rb") as file:
                return file.read(most + 1)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The path itself."""
        self._check()
        yield self.path
        self._check()

    def _check(self) -> None:
        if _stamp(self.path) != self.stamp:
            raise ValueError(f"{self.name} was changed after it had been opened: open it again")


def sent(name: str, data: bytes) -> SentFile:
    """A file that a browser has sent, with its digest."""
    return SentFile(name, digest(data), name, len(data), data)


def local(path: Path) -> LocalFile:
    """A file of this machine, with its digest, which is computed again only if the size or the time has changed.

    Raises:
        ValueError: it is gone, may not be read, or was changed meanwhile.
    """
    stamp = _stamp(path)
    try:
        found = LocalFile(path.name, _digest_of(path, stamp), str(path), 0, path, stamp)
    except OSError as error:
        raise _unreadable(path, error) from error
    with found.on_disk():
        return found


@lru_cache(maxsize=_MOST_FILES)
def _digest_of(path: Path, stamp: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path.name} cannot be read ({(error.strerror or str(error)).lower()}): open another file")


class FileStore:
    """Files by owner and digest; the least recently used go first when there are too many.

    Args:
        most_bytes: of all files together. The newest file is kept whatever its size.
        most_files: of all owners together.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES, most_files: int = _MOST_FILES) -> None:
        self._most_bytes, self._most_files = most_bytes, most_files
        self._files: OrderedDict[tuple[str, str], OwnFile] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, owner: str, file: OwnFile) -> None:
        """Keep a file for its owner."""
        place = owner, file.short
        with self._lock:
            self._files[place] = file
            self._files.move_to_end(place)
            while len(self._files) > 1 and (self._size() > self._most_bytes or len(self._files) > self._most_files):
                self._files.popitem(last=False)

    def get(self, owner: str, short: str) -> OwnFile | None:
        """The file of this owner whose digest starts with these `SHORT` characters; None if it is not kept any more."""
        with self._lock:
            file = self._files.get((owner, short))
            if file is not None:
                self._files.move_to_end((owner, short))
            return file

    def _size(self) -> int:
        # The same content of two owners is counted twice, which errs on the side of less memory.
        return sum(file.held for file in self._files.values())
