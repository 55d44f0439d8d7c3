"""The user's own pictures and checkpoints: kept for the session, and beyond it where no other user could ask for them.

A link names a file by the start of its digest. No other file is shown under that name.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from ..choices.settings import UPLOAD, B, Settings
from ..server import own_paths
from ..server.connection import owner_of_files
from ..server.kept_files import FileStore, OwnFile, local, sent
from ..server.untrusted_text import quoted

_SESSION, _EXPECTED, _OFFERED = "attribute.files", "attribute.expected_files", "attribute.offered_files"
_MOST_OFFERED = 2000
_MOST_SESSION_BYTES, _MOST_SESSION_FILES = 256 * 2**20, 16
# The settings that name a file.
_KINDS = ("checkpoint", "class_names", "picture")
# The files of all sessions, for the life of the server.
_store = FileStore()


def keep(uploaded: Any) -> OwnFile:
    """Keep a file of Streamlit's uploader."""
    return _kept(sent(uploaded.name, uploaded.getvalue()))


def keep_path(text: str, most: int | None = None) -> OwnFile:
    """Keep a file by a path that was typed; its content stays where it is.

    Args:
        text: see `own_paths.resolved`.
        most: the largest accepted length; None accepts any.

    Raises:
        ValueError: see `own_paths.resolved_file`; or the file is empty or too long. The message is one sentence.
    """
    path = own_paths.resolved_file(text)
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path.name} is empty: give another file")
    if most is not None and size > most:
        raise ValueError(f"{path.name} has {size / 2**20:.1f} MB; at most {most // 2**20} MB are read")
    return _kept(local(path))


def _kept(file: OwnFile) -> OwnFile:
    _of_session().put("", file)
    owner = owner_of_files()
    if owner is not None:
        _store.put(owner, file)
    return file


def offer(short: str, open_file: Callable[[], OwnFile]) -> None:
    """Let this session find a file that is opened when it is asked for.

    Args:
        short: the start of its digest. The opened file is used only if its digest starts with it.
        open_file: opens it; may raise `ValueError`.
    """
    offered: OrderedDict[str, Callable[[], OwnFile]] = st.session_state.setdefault(_OFFERED, OrderedDict())
    offered[short] = open_file
    offered.move_to_end(short)
    while len(offered) > _MOST_OFFERED:
        offered.popitem(last=False)


def find(short: str) -> OwnFile | None:
    """The file whose digest starts with `short`; None if it is not here, or was dropped for newer ones."""
    if not short:
        return None
    owner = owner_of_files()
    kept = _of_session().get("", short) or (_store.get(owner, short) if owner is not None else None)
    return kept or _opened(short)


def _opened(short: str) -> OwnFile | None:
    """A file that was offered, which is kept from now on."""
    offered: Mapping[str, Callable[[], OwnFile]] = st.session_state.get(_OFFERED, {})
    if short not in offered:
        return None
    try:
        file = offered[short]()
    except ValueError:  # gone, as a file that was dropped is
        return None
    return _kept(file) if file.short == short else None


def expect(settings: Settings) -> None:
    """Note the files that a link needs and that are not here."""
    needed = {}
    # Of B's files only those that it has of its own.
    for side, each, own in (("", settings, {*_KINDS}), (B, settings.beside, {*dict(settings.b)})):
        used = {
            "checkpoint",
            *(["class_names"] if each.checkpoint else []),
            *(["picture"] if each.image == UPLOAD else []),
        }
        for kind in own & used:
            needed[side, kind] = each.network, getattr(each, kind), getattr(each, f"{kind}_name")
    st.session_state[_EXPECTED] = {kind: file for kind, file in needed.items() if file[1] and find(file[1]) is None}


def request(kind: str, short: str, name: str) -> str:
    """A sentence that asks for the file a link needs; `kind` is a setting that names a file."""
    if not short:
        return ""
    called = f" {quoted(name)}," if name else ""
    way = "open" if own_paths.allowed() else "upload"
    return f"This link needs the {_plain(kind)}{called} whose SHA-256 starts with {short}: {way} it in the sidebar."


def show_difference(kind: str, settings: Settings, side: str = "") -> None:
    """Warn if the link needed another file than the one that is shown; `side` is `settings.B` for those of B."""
    expected = st.session_state.get(_EXPECTED, {})
    if (side, kind) not in expected:
        return
    network, short, name = expected[side, kind]
    given, given_name = getattr(settings, kind), getattr(settings, f"{kind}_name")
    dropped = not given or (kind == "picture" and settings.image != UPLOAD)
    if given == short or dropped or (kind != "picture" and settings.network != network):
        del expected[side, kind]
        return
    called = f"{quoted(name)} (SHA-256 {short}…)" if name else f"the {_plain(kind)} whose SHA-256 starts with {short}"
    st.warning(
        f"This is another {_plain(kind)} than the link's: it needs {called}, and {quoted(given_name)} "
        f"(SHA-256 {given}…) is open. The maps are those of the file that is open."
    )


def _plain(kind: str) -> str:
    return "file of class names" if kind == "class_names" else kind


def _of_session() -> FileStore:
    if _SESSION not in st.session_state:
        st.session_state[_SESSION] = FileStore(_MOST_SESSION_BYTES, _MOST_SESSION_FILES)
    found: FileStore = st.session_state[_SESSION]
    return found
