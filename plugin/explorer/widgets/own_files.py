"""The user's own pictures and checkpoints: kept for the session, and beyond it where nobody else could ask for them.

A link names a file by the start of its digest. Whatever is shown under that name is that file.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import streamlit as st

from ..server.connection import owner_of_files
from ..server.files import FileStore, SentFile, sent
from ..settings import UPLOAD, Settings
from ..untrusted_text import quoted

_SESSION, _EXPECTED, _OFFERED = "attribute.files", "attribute.expected_files", "attribute.offered_files"
_MOST_OFFERED = 2000
_MOST_SESSION_BYTES, _MOST_SESSION_FILES = 256 * 2**20, 16
# Of all sessions, for the life of the server.
_store = FileStore()


def keep(uploaded: Any) -> SentFile:
    """Keep a file of Streamlit's uploader."""
    return _keep(sent(uploaded.name, uploaded.getvalue()))


def _keep(file: SentFile) -> SentFile:
    _of_session().put("", file)
    owner = owner_of_files()
    if owner is not None:
        _store.put(owner, file)
    return file


def offer(short: str, name: str, read: Callable[[], bytes]) -> None:
    """Let this session find a file that is read when it is asked for.

    Args:
        short: the start of its digest. What is read is used only if its digest starts so.
        name: of the file.
        read: its content; may raise `OSError` or `ValueError`.
    """
    offered: OrderedDict[str, tuple[str, Callable[[], bytes]]] = st.session_state.setdefault(_OFFERED, OrderedDict())
    offered[short] = name, read
    offered.move_to_end(short)
    while len(offered) > _MOST_OFFERED:
        offered.popitem(last=False)


def find(short: str) -> SentFile | None:
    """The file whose digest starts so; None if it is not here, or was dropped for newer ones."""
    if not short:
        return None
    owner = owner_of_files()
    kept = _of_session().get("", short) or (_store.get(owner, short) if owner is not None else None)
    return kept or _read(short)


def _read(short: str) -> SentFile | None:
    """A file that was offered, which is kept from now on."""
    if short not in (offered := st.session_state.get(_OFFERED, {})):
        return None
    name, read = offered[short]
    try:
        file = sent(name, read())
    except (OSError, ValueError):  # gone, as a file that was dropped is
        return None
    return _keep(file) if file.short == short else None


def expect(settings: Settings) -> None:
    """Note which files a link needs that are not here."""
    needed = {"checkpoint": (settings.checkpoint, settings.checkpoint_name)}
    if settings.image == UPLOAD:
        needed["picture"] = settings.picture, settings.picture_name
    st.session_state[_EXPECTED] = {
        kind: (settings.network, *file) for kind, file in needed.items() if file[0] and find(file[0]) is None
    }


def request(kind: str, short: str, name: str) -> str:
    """A sentence that asks for the file a link needs; `kind` is "picture" or "checkpoint"."""
    if not short:
        return ""
    called = f" {quoted(name)}," if name else ""
    return f"This link needs the {kind}{called} whose SHA-256 starts with {short}: upload it in the sidebar."


def show_difference(kind: str, settings: Settings) -> None:
    """Warn if the link needed another file than the one that is shown."""
    expected = st.session_state.get(_EXPECTED, {})
    if kind not in expected:
        return
    network, short, name = expected[kind]
    given, given_name = getattr(settings, kind), getattr(settings, f"{kind}_name")
    dropped = not given or (kind == "picture" and settings.image != UPLOAD)
    if given == short or dropped or (kind == "checkpoint" and settings.network != network):
        del expected[kind]
        return
    called = f"{quoted(name)} (SHA-256 {short}…)" if name else f"the {kind} whose SHA-256 starts with {short}"
    st.warning(
        f"This is another {kind} than the link's: it needs {called}, and {quoted(given_name)} (SHA-256 {given}…) is "
        "open. The maps are those of the file that is open."
    )


def _of_session() -> FileStore:
    if _SESSION not in st.session_state:
        st.session_state[_SESSION] = FileStore(_MOST_SESSION_BYTES, _MOST_SESSION_FILES)
    found: FileStore = st.session_state[_SESSION]
    return found
