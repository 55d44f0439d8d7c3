"""Files on this machine and, under URLs, wherever fsspec reaches: `s3://`, `gs://`, `memory://`, ..."""

import errno
import glob
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..extras import require
from ..files import create_bytes, write_bytes
from .records import UnreadablePicture

# Packages below fsspec whose errors are no OSError.
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")
# How the URLs of files of this machine begin.
_LOCAL = ("file://", "local://")
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "modified", "created")


def is_url(path: str | Path) -> bool:
    """Whether a path is for fsspec."""
    return "://" in str(path)


def of_this_machine(path: str) -> str:
    """A path, a URL of a local file as a path: fsspec would write it neither as a whole nor durably.

    `~` is the home folder, as in a shell.
    """
    found = next((path.removeprefix(start) for start in _LOCAL if path.startswith(start)), path)
    return os.path.expanduser(found)


def behind_link(path: str) -> str:
    """The place that a link means, there or not; every other path as it is."""
    return os.path.realpath(path) if not is_url(path) and os.path.islink(path.rstrip("/")) else path


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        ValueError: there is no such file system, or the package that speaks its protocol is not installed.
    """
    fsspec = require("fsspec", extra="datasets", purpose=f"the URL {url}")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be reached: {error}. fsspec, of 'captum-simplicity[datasets]', needs the package for it, "
            "such as s3fs or gcsfs"
        ) from error
    return system, path


def as_os_error(error: Exception) -> Exception:
    """An error of object storage as the one that a failing disk raises; every other error as it is."""
    client = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or client not in _CLIENTS:
        return error
    return OSError(
        f"object storage fails ({client}: {error}): check the URL, the network and the credentials that {client} finds"
    )


@contextmanager
def os_errors() -> Iterator[None]:
    """Raise errors of object storage as `as_os_error` says."""
    try:
        yield
    except Exception as error:
        expected = as_os_error(error)
        if expected is error:
            raise
        raise expected from error


def join(parent: str, name: str) -> str:
    """A path or URL below another."""
    return f"{parent.rstrip('/')}/{name}" if is_url(parent) else os.path.join(parent, name)


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
        UnreadablePicture: it may not be read, is a folder, a device or a pipe, or a link to one of these or to nothing.
        OSError: it is gone, or the disk or network fails.
    """
    try:
        if is_url(path):
            system, inner = file_system(path)
            return bytes(system.cat_file(inner))
        if not stat.S_ISREG(kind := os.stat(path).st_mode) and not stat.S_ISDIR(kind):
            raise UnreadablePicture("It is a device or a pipe, and no file.")  # either may never end
        return Path(path).read_bytes()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) or isinstance(error, PermissionError):
            raise UnreadablePicture("The file may not be read.") from error
        if not is_url(path) and _leads_nowhere(path, error):
            raise UnreadablePicture("The file is a link that leads nowhere.") from error
        if isinstance(error, IsADirectoryError):
            raise UnreadablePicture("It is a folder, and no file.") from error
        raise


def _leads_nowhere(path: str, error: OSError) -> bool:
    """Whether a file cannot be opened because it is a link to nothing; a disk may fail behind a link as well."""
    return error.errno == errno.ELOOP or (error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.islink(path))


def write(path: str, content: bytes) -> None:
    """Write a file as a whole: here by renaming it, in object storage as one object."""
    if not is_url(path):
        write_bytes(path, content)
        return
    system, inner = file_system(path)
    system.pipe_file(inner, content)


def create(path: str, content: bytes) -> bool:
    """Write a file as a whole unless it is there, so that of several processes one does; whether this call wrote it."""
    if not is_url(path):
        return create_bytes(path, content)
    system, inner = file_system(path)
    try:
        system.pipe_file(inner, content, mode="create")
    except OSError:
        system.invalidate_cache()
        if not system.exists(inner):
            raise
        return False
    return True


def remove_file(path: str) -> None:
    """Remove a file; it need not be there."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
        return
    system, inner = file_system(path)
    if system.exists(inner):
        system.rm_file(inner)


def remove_folder(path: str) -> None:
    """Remove a folder with everything in it; it need not be there."""
    if not is_url(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    system, inner = file_system(path)
    if system.exists(inner):
        system.rm(inner, recursive=True)


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    if not is_url(path):
        return Path(path).exists()
    system, inner = file_system(path)
    return bool(system.exists(inner))


def has_folder(path: str) -> bool:
    """Whether the folder of a file, or the bucket of an object, is there; without it, the file may be there as well."""
    if not is_url(path):
        return os.path.isdir(os.path.dirname(path) or ".")  # an object of pathlib takes three times as long
    if path.startswith(("http://", "https://")):  # the server has answered
        return True
    system, inner = file_system(path)
    return bool(system.exists(inner.lstrip("/").partition("/")[0]))


def names_in(folder: str) -> dict[str, int]:
    """Names and sizes of the files right below a folder; none if it is not there."""
    if not is_url(folder):
        if not Path(folder).exists():
            return {}
        sizes: dict[str, int] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process has renamed or removed it meanwhile
                    sizes[entry.name] = entry.stat().st_size
        return sizes
    system, inner = file_system(folder)
    system.invalidate_cache()
    if not system.exists(inner):
        return {}
    return {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] or 0 for entry in system.ls(inner, detail=True)}


def size_and_stamp(path: str) -> tuple[int, str]:
    """The length of a file, -1 for a link to nothing, and a stamp that changes with its content."""
    if not is_url(path):
        try:
            found = os.stat(path)
        except OSError as error:
            if _leads_nowhere(path, error):
                return -1, ""
            raise
        return found.st_size, str(found.st_mtime_ns)
    system, inner = file_system(path)
    return described(system.info(inner))


def described(info: Mapping[str, Any]) -> tuple[int, str]:
    """The length and the stamp in fsspec's facts about a file; -1 for an unknown length."""
    size = info.get("size")
    return -1 if size is None else int(size), next((str(info[name]) for name in _STAMPS if info.get(name)), "")


def expand(pattern: str) -> list[str]:
    """The files that a path or glob means, sorted, as paths or URLs.

    Raises:
        FileNotFoundError: there are none.
    """
    if is_url(pattern):
        system, inner = file_system(pattern)
        names = system.glob(inner) if has_wildcard(inner) else [inner] if system.exists(inner) else []
        found = [system.unstrip_protocol(name) for name in names]
    elif has_wildcard(pattern) and not Path(pattern).exists():
        # A pattern with two `**` meets a file in several ways.
        found = [name for name in set(glob.iglob(pattern, recursive=True)) if is_file(name)]
    else:
        found = [pattern] if Path(pattern).exists() else []
    if not found:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", pattern)
    return sorted(found)


def named(pattern: str) -> list[tuple[str, str]]:
    """The files of `expand` with their names, relative to the last folder without a wildcard."""
    parts = pattern.replace("\\", "/").split("/")
    fixed = next((index for index, part in enumerate(parts) if has_wildcard(part)), len(parts) - 1)
    start = len("/".join(parts[:fixed])) + 1 if fixed else 0
    return [(path[start:], path) for path in expand(pattern)]


def has_wildcard(text: str) -> bool:
    """Whether a text holds a glob."""
    return any(character in text for character in "*?[")


def visible_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder of this machine, without hidden names, in the order of the full names below it."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    yield from sorted(visible, key=lambda entry: entry.name + "/" if is_folder(entry) else entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def is_file(path: str) -> bool:
    """Whether there is a file, or a link to anything but a folder."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.isdir(path))
