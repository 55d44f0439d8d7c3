"""Files that are made when they are asked for, and can still be fetched on a busy server."""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import streamlit as st
from streamlit import runtime

# A browser fetches a file at once; this many may be on their way at a time. They stay in memory.
_KEPT = 16
_places = cycle(range(_KEPT))
_TYPES = {"png": "image/png", "gif": "image/gif", "svg": "image/svg+xml", "html": "text/html"}


def download_button(label: str, make: Callable[[], bytes], name: str, key: str, slim: bool = False) -> None:
    """A button that downloads a file; the page is not drawn again.

    Args:
        label: on the button.
        make: the content, made when the button is pressed. It must not use Streamlit.
        name: of the file; its ending tells the type.
        key: of the widget.
        slim: drawn as a line of text, for several beside each other in a narrow column.
    """
    mime = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    # An icon would cut the label in a narrow column.
    look: dict[str, Any] = {"type": "tertiary"} if slim else {"icon": ":material/download:"}
    st.download_button(label, partial(_kept, make, name, mime), name, mime, key=key, on_click="ignore", **look)


def _kept(make: Callable[[], bytes], name: str, mime: str) -> bytes:
    """The content, which stays in memory until `_KEPT` others were made.

    Streamlit gives a file that is made on a click to no session, and drops it at the second end of any session's run.
    While others work, this happens before the browser has asked for the file. Added here, it has a place of its own.
    """
    data = make()
    if runtime.exists():
        runtime.get_instance().media_file_mgr.add(
            data, mime, f"download.{next(_places)}", file_name=name, is_for_static_download=True
        )
    return data
