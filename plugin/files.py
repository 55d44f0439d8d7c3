"""Files that are written completely or not at all."""

import errno
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import IO, Any, cast

# A process that writes a file writes to it at least once in so many seconds.
_WRITTEN_WITHIN = 60.0
# The errors of network file systems and of Windows, which cannot wait for the entries of a folder.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


@contextmanager
def replacing(path: str | Path, put: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """A path to write to instead of `path`, which gets the content when the block ends without an error.

    The new content is on the disk before it replaces the old one. After an interruption, a full disk or a power cut,
    one of the two is there. Missing folders are made. Several processes may write the same file: the last wins.

    Args:
        path: the file.
        put: gives the new content the file's name.

    Raises:
        OSError: the file cannot be written, for example on a full disk; the old file is unchanged, and the message
            names it.
    """
    target = Path(path)
    # In the same folder, since a file can be replaced at once only within a file system; the ending is kept, by which
    # libraries choose the format.
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        to_disk(partial)
        put(partial, target)
        with suppress(OSError):  # the file has its name
            to_disk(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        # If the folder itself could not be made, there is nothing to remove either.
        with suppress(OSError):
            partial.unlink()


def is_partial(name: str) -> bool:
    """Whether a file of this name is being written by `replacing`, or was when its process was killed."""
    return name.startswith(".") and ".partial" in name


def require_writable(path: str | Path) -> None:
    """Raise the error of `replacing` before the work, as far as it can be foreseen; nothing is made.

    Raises:
        OSError: `path` is a folder, a file stands in its way, or its folder may not be written to.
    """
    target = Path(path)
    absolute = target.absolute()
    above = next((parent for parent in absolute.parents if os.path.lexists(parent)), absolute)  # the root has none
    found = errno.EISDIR if target.is_dir() else None if above.is_dir() else errno.ENOTDIR
    if found is None and not os.access(above, os.W_OK | os.X_OK):
        found = errno.EACCES
    if found is not None:
        raise OSError(found, f"{target} cannot be written ({os.strerror(found)}): give another name")


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file with this content; see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def create_bytes(path: str | Path, content: bytes) -> bool:
    """Write a file with this content unless it is there; of several processes one does. See `replacing`.

    Returns:
        Whether this call wrote it.
    """
    try:
        with replacing(path, _put_first) as partial:
            partial.write_bytes(content)
    except OSError as error:
        if error.errno != errno.EEXIST or not Path(path).exists():
            raise
        return False
    return True


def _put_first(partial: Path, target: Path) -> None:
    """Give a file a name that no other has."""
    try:
        os.link(partial, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if target.exists():  # on a file system without links two processes may both see none
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        os.replace(partial, target)


def write_text(path: str | Path, content: str) -> Path:
    """Write a file with this text as UTF-8; see `replacing`."""
    return write_bytes(path, content.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """Write a file with this value, a line for each entry; see `replacing`."""
    return write_text(path, json.dumps(value, indent=1))


@contextmanager
def replacing_archive(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to for `torch.save` and `torch.export.save`; otherwise `replacing`.

    PyTorch's writer of archives ends the process when a disk is full. It is therefore not told of an error, which is
    raised when it has finished.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        patient = _PatientFile(file)
        yield cast(IO[bytes], patient)
        if patient.error is not None:
            raise patient.error


class _PatientFile(io.BufferedIOBase):
    """Writes to a file up to the first error, and from then on only pretends to.

    PyTorch takes nothing but files of `io` that can be written and searched.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """The file itself is flushed when it is closed."""


def save_torch(value: Any, path: str | Path) -> Path:
    """Write a file by `torch.save`; see `replacing`."""
    import torch

    with replacing_archive(path) as file:
        torch.save(value, file)
    return Path(path)


def remove_left_over(found: Iterable[Path], started: float = 0.0) -> None:
    """Remove the files and folders that killed processes were writing, and none that another process writes now.

    Args:
        found: everything under a temporary name.
        started: when this process began, in seconds since the epoch, if it resumes older work.
    """
    for path in found:
        with suppress(FileNotFoundError):  # its process has just given it its name
            if path.stat().st_mtime < max(started, time() - _WRITTEN_WITHIN):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def unwritable(target: str | Path, error: OSError) -> OSError:
    """The same error with a message for the owner of the file."""
    found = OSError(f"{target} cannot be written ({error.strerror or error}): any previous content is kept")
    found.errno = error.errno
    return found


def to_disk(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk, as far as the file system can tell.

    Args:
        path: the file or folder.

    Raises:
        OSError: the disk fails.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _UNSUPPORTED:
            raise
