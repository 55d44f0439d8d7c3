"""Files that browsers have sent, found by their content: they outlive the page, and where that is safe the session."""

import hashlib
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

# What a folder's name may consist of in a link, and a file's, which has an ending.
FOLDER_NAME = r"[\w .,()+@&'=~-]{1,100}"
NAME = rf"{FOLDER_NAME}\.[A-Za-z0-9]{{1,12}}"
# A checkpoint has 200 MB at most, see `inputs.uploaded_checkpoint`.
_MOST_BYTES = 512 * 2**20
_MOST_FILES = 64
SHORT = 12


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def link_name(name: str) -> str:
    """A file's name as it may stand in a link: what `NAME` does not allow becomes an underscore."""
    stem, dot, ending = name.rpartition(".")
    if not dot or not re.fullmatch(r"[A-Za-z0-9]{1,12}", ending):
        stem, ending = name, "file"
    return f"{folder_link_name(stem)}.{ending}"


def folder_link_name(name: str) -> str:
    """A folder's name as it may stand in a link: what `FOLDER_NAME` does not allow becomes an underscore."""
    return re.sub(r"[^\w .,()+@&=~-]", "_", name)[:100] or "_"


@dataclass(frozen=True)
class SentFile:
    """A file that a browser has sent.

    Attributes:
        name: that it has there.
        data: its content.
        digest: SHA-256 of the content in hexadecimal, by which files are compared.
    """

    name: str
    data: bytes = field(repr=False)
    digest: str

    @property
    def short(self) -> str:
        """The start of the digest, as links have it."""
        return self.digest[:SHORT]


def sent(name: str, data: bytes) -> SentFile:
    """A file with its digest."""
    return SentFile(name, data, digest(data))


class FileStore:
    """Files by owner and digest; those that were not asked for longest go first when there are too many.

    Args:
        most_bytes: of all files together. The newest file is kept whatever its size.
        most_files: of all owners together.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES, most_files: int = _MOST_FILES) -> None:
        self._most_bytes, self._most_files = most_bytes, most_files
        self._files: OrderedDict[tuple[str, str], SentFile] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, owner: str, file: SentFile) -> None:
        """Keep a file for its owner."""
        place = owner, file.short
        with self._lock:
            self._files[place] = file
            self._files.move_to_end(place)
            while len(self._files) > 1 and (self._size() > self._most_bytes or len(self._files) > self._most_files):
                self._files.popitem(last=False)

    def get(self, owner: str, short: str) -> SentFile | None:
        """The file of this owner whose digest starts so, of `SHORT` characters; None if there is none any more."""
        with self._lock:
            file = self._files.get((owner, short))
            if file is not None:
                self._files.move_to_end((owner, short))
            return file

    def _size(self) -> int:
        # The same content of two owners is counted twice, which errs on the side of less memory.
        return sum(len(file.data) for file in self._files.values())
