"""Files and folders by a path that is typed into a page.

Users of a server that is bound to the loopback interface sit at its machine, and may name any of its files. Other
servers open only files in the folders that their owner named at the start. Named folders are the limit on any server.
A page offers a field for a path where `allowed` is true, and opens no path but those that `resolved` returns.
"""

import os
import stat
import unicodedata
from pathlib import Path

_LONGEST = 4096

# The folders of the command line, which alone sets them, without symbolic links.
_folders: list[Path] = []


def add_folder(folder: str | Path) -> None:
    """Let the pages open the files in a folder, and nothing outside of such folders.

    Raises:
        ValueError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder: give one whose files the pages may open")
    _folders.append(Path(os.path.realpath(folder)))


def folders() -> tuple[Path, ...]:
    """The folders that were named; none where any path of this machine may be given."""
    return tuple(_folders)


def allowed() -> bool:
    """Whether a page may offer a field for a path."""
    from . import connection  # needs Streamlit, whose absence the command line reports

    return bool(_folders) or connection.serves_this_machine_only()


def resolved(text: str) -> Path:
    """The file or folder that a typed path means, without symbolic links.

    Quotes around it and `~` are understood. A relative path starts at the first of the named folders, else where the
    server was started.

    Args:
        text: a path of the server's machine.

    Raises:
        ValueError: paths are not allowed here, it leads outside of the named folders (also by `..` or a symbolic link),
            it does not exist, may not be read, or is neither a regular file nor a folder. The message is one sentence,
            and the same for all paths outside.
    """
    if not allowed():
        raise ValueError("This server opens no paths: its owner can start it with --folder FOLDER")
    path = _real(_typed(text))
    if _folders and not any(path.is_relative_to(folder) for folder in _folders):
        named = ", ".join(map(str, _folders))
        raise ValueError(f"{text.strip()} is not inside of the folders that this server opens: {named}")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {(error.strerror or 'it is not there').lower()}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path} is a device, a pipe or a socket: give a file or a folder")
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise ValueError(f"{path} may not be read by the server: change its permissions")
    return path


def resolved_file(text: str) -> Path:
    """The regular file that a typed path means.

    Raises:
        ValueError: see `resolved`; or it is a folder.
    """
    path = resolved(text)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file in it")
    return path


def resolved_folder(text: str) -> Path:
    """The folder that a typed path means.

    Raises:
        ValueError: see `resolved`; or it is a file.
    """
    path = resolved(text)
    if not path.is_dir():
        raise ValueError(f"{path} is a file: give the folder {path.parent}")
    return path


def _typed(text: str) -> str:
    """The path that somebody has typed or pasted."""
    path = text.strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
        path = path[1:-1]
    # Line breaks and halves of characters; spaces of any width are common in names.
    unusable = any(unicodedata.category(character) in ("Cc", "Cs") for character in path)
    if not path or len(path) > _LONGEST or unusable:
        raise ValueError(f"This is no path: give one of 1 to {_LONGEST} characters, such as {Path.home()}")
    return path


def _real(path: str) -> Path:
    """An absolute path without symbolic links, whether or not it exists."""
    start = _folders[0] if _folders else Path.cwd()
    return Path(os.path.realpath(start / os.path.expanduser(path)))
