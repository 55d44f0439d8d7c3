"""Giving a file: sent by the browser, or, where that is allowed, named by its path on the server's machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from ..choices.settings import B
from ..server import own_paths
from ..server.kept_files import OwnFile
from ..server.untrusted_text import markdown_sentence
from . import own_files
from .callbacks import uninterrupted
from .page_state import key

# The endings of the labels of widgets, by side of a comparison.
OF = {"": "", B: " of B"}


@dataclass(frozen=True)
class Wanted:
    """A file that a page asks for.

    Attributes:
        label: of the widget, such as "Checkpoint for vgg16".
        kind: of file, such as "checkpoint".
        endings: of the files that can be sent.
        most_sent: the largest length of a file that is sent, in bytes.
        most_named: the same for a file that is named by its path; None is any.
        help: the help text, on the content that is read.
    """

    label: str
    kind: str
    endings: Sequence[str]
    most_sent: int
    most_named: int | None
    help: str | None = None


def draw(name: str, wanted: Wanted, use: Callable[[OwnFile | None], None]) -> None:
    """Draw the widgets.

    Args:
        name: of the widgets.
        wanted: the file.
        use: called in a callback with the file that was given; with None when a sent one was taken away.
    """
    sent, typed = key(name), key(f"{name}.path")
    st.file_uploader(
        wanted.label, wanted.endings, key=sent, on_change=_take_sent, args=(sent, use),
        max_upload_size=wanted.most_sent // 2**20, help=wanted.help,
    )  # fmt: skip
    if not own_paths.allowed():
        return
    where = ", ".join(map(str, own_paths.folders()))
    # Streamlit's advice to press Enter would cover the end of a path.
    with st.form(f"{typed}.form", border=False, enter_to_submit=False):
        st.text_input(
            f"Path of a {wanted.kind}", key=typed, placeholder="/path/to/file",
            help=f"On the server's machine, in {where}." if where else "On this machine. The file stays where it is.",
        )  # fmt: skip
        st.form_submit_button(
            f"Open the {wanted.kind}", key=f"{typed}.open", on_click=_take_typed, args=(typed, wanted, use)
        )
    if refused := st.session_state.get(_refused(typed)):
        st.error(refused)


@uninterrupted
def _take_sent(sent: str, use: Callable[[OwnFile | None], None]) -> None:
    """Callback of the uploader."""
    file = st.session_state[sent]
    use(None if file is None else own_files.keep(file))


@uninterrupted
def _take_typed(typed: str, wanted: Wanted, use: Callable[[OwnFile | None], None]) -> None:
    """Callback of the button beside the path."""
    st.session_state.pop(_refused(typed), None)
    try:
        with st.spinner("Reading the file …"):
            file = own_files.keep_path(st.session_state[typed], wanted.most_named)
    except ValueError as error:
        st.session_state[_refused(typed)] = markdown_sentence(error)
        return
    use(file)


def _refused(typed: str) -> str:
    return f"{typed}.refused"
