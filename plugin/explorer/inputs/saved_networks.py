"""Networks that Hugging Face's libraries have saved, by a typed text: a name on the Hub, or a folder's path.

Links never hold a path: a folder's name and the start of a digest of its files stand for it.
"""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from plugin import models
from plugin.models import hugging_face
from plugin.models.hugging_face import FOLDER, HUB, WEIGHTS

from ..server import own_paths
from ..server.kept_files import SHORT, OwnFile, digest, folder_link_name, local
from .own_weights import Opened, check_memory

_MOST = 64
_PATH = re.compile(r"[/~.\\\"']|[A-Za-z]:")


@dataclass(frozen=True)
class _Folder:
    """A folder that was opened, with the files that are read of it."""

    path: Path
    files: tuple[OwnFile, ...]


# The folders of all sessions: a user who may type a path may open any of them.
_folders: OrderedDict[str, _Folder] = OrderedDict()
_lock = threading.Lock()


def may_be_opened() -> bool:
    """Whether a page may offer a field for such networks."""
    return hugging_face.is_installed() and own_paths.allowed()


def named(typed: str) -> str:
    """The network that somebody has typed, for links and lists.

    Raises:
        ValueError: it is neither a name on the Hub nor a folder that may be opened and holds a network. The message is
            one sentence.
    """
    text = typed.strip()
    # For users of other machines the answer would tell which folders exist on this one.
    is_name = re.fullmatch(hugging_face.REPOSITORY, text) and _serves_this_machine_only() and not Path(text).is_dir()
    if text.startswith(HUB) or is_name:
        return _on_the_hub(text.removeprefix(HUB))
    if not text.startswith(FOLDER) and "/" not in text and not _PATH.match(text):
        raise ValueError(
            f"{text[:80] or 'This'} is no network: give owner/name, as on the Hub, or the path of a folder"
        )
    return _keep(own_paths.resolved_folder(text.removeprefix(FOLDER)))


def check(name: str) -> None:
    """Refuse a name in a link that cannot be opened here.

    Raises:
        ValueError: the reason, as the end of a sentence.
    """
    if not may_be_opened():
        raise ValueError("cannot be opened here: start the explorer with --model and this name")
    if name.startswith(FOLDER):
        if name not in _folders:
            raise ValueError("is a folder that is not open here: open it again by its path")
    elif not _serves_this_machine_only() or not re.fullmatch(hugging_face.REPOSITORY, name.removeprefix(HUB)):
        raise ValueError("is no network that is opened here")


def opened(name: str) -> Opened:
    """A network by a name that `named` has returned.

    Raises:
        ValueError: it is not open, its files were changed, or it cannot be read.
        RuntimeError: it was not downloaded.
    """
    if name.startswith(HUB):
        if hugging_face.cached(name) is None:
            raise RuntimeError(f"The files of {name} are not on this machine")
        return Opened(models.load(name), f"models.load({name!r})")
    with _lock:
        found = _folders.get(name)
    if found is None:
        raise ValueError(f"{name} is not open any more: open its folder again")
    if found.files != _files(found.path):
        raise ValueError(f"The network in {found.path.name} was changed after it had been opened: open it again")
    check_memory(found.files[0])
    return Opened(models.load(place(name)), f"models.load({place(name)!r})")


def place(name: str) -> str:
    """The name of the network in a program: for a folder, its path."""
    with _lock:
        return f"{FOLDER}{_folders[name].path}" if name in _folders else name


def _serves_this_machine_only() -> bool:
    from ..server import connection  # needs Streamlit, whose absence the command line reports

    return connection.serves_this_machine_only()


def _on_the_hub(repository: str) -> str:
    if not _serves_this_machine_only():
        raise ValueError("This server opens no networks of the Hub: its owner can start it with --model")
    if not re.fullmatch(hugging_face.REPOSITORY, repository):
        raise ValueError(f"{repository[:80]} names no network of the Hub: give owner/name")
    return f"{HUB}{repository}"


def _keep(folder: Path) -> str:
    files = _files(folder)
    hugging_face.read_folder(folder)
    short = digest(" ".join(file.digest for file in files).encode())[:SHORT]
    name = f"{FOLDER}{folder_link_name(folder.name)}@{short}"
    with _lock:
        _folders[name] = _Folder(folder, files)
        _folders.move_to_end(name)
        while len(_folders) > _MOST:
            _folders.popitem(last=False)
    return name


def _files(folder: Path) -> tuple[OwnFile, ...]:
    """The files that are read of a folder, the weights first; no link leads out of the folders that may be opened."""
    if not (folder / WEIGHTS).exists():
        hugging_face.read_folder(folder)  # raises: the error names the missing file
    others = [name for name in hugging_face.FILES if name != WEIGHTS and (folder / name).exists()]
    return tuple(local(own_paths.resolved_file(str(folder / name))) for name in (WEIGHTS, *others))
