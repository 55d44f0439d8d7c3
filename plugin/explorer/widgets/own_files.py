"""The user's own pictures and checkpoints: kept for the session, and beyond it where nobody else could ask for them.

A link names a file by the start of its digest. Whatever is shown under that name is that file.
"""

from typing import Any

import streamlit as st

from ..server.connection import owner_of_files
from ..server.files import FileStore, SentFile, sent
from ..settings import UPLOAD, Settings
from ..untrusted_text import quoted

_SESSION, _EXPECTED = "attribute.files", "attribute.expected_files"
_MOST_SESSION_BYTES, _MOST_SESSION_FILES = 256 * 2**20, 16
# Of all sessions, for the life of the server.
_store = FileStore()


def keep(uploaded: Any) -> SentFile:
    """Keep a file of Streamlit's uploader."""
    return keep_file(sent(uploaded.name, uploaded.getvalue()))


def keep_file(file: SentFile) -> SentFile:
    """Keep a file of the user's."""
    _of_session().put("", file)
    owner = owner_of_files()
    if owner is not None:
        _store.put(owner, file)
    return file


def find(short: str) -> SentFile | None:
    """The file whose digest starts so; None if it is not here, or was dropped for newer ones."""
    if not short:
        return None
    owner = owner_of_files()
    return _of_session().get("", short) or (_store.get(owner, short) if owner is not None else None)


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
