"""The line at the top of each page that names its network, the file of the weights, and the picture."""

import streamlit as st

from ..choices.settings import DRAWING, UPLOAD, Settings
from ..server.untrusted_text import escaped, quoted
from . import page_state
from .page_state import key


def draw(page: str, settings: Settings) -> None:
    """Draw the line; on a page that is alone, also a button that ends this."""
    text = f"Open: {described(settings)}"
    if not page_state.is_alone(page):
        st.caption(text)
        return
    st.caption(f"{text}, on this page alone. The other pages have {described(page_state.shared())}.")
    st.button("Show the inputs of the other pages here", key=key("join"), on_click=page_state.join)


def described(settings: Settings) -> str:
    """Network, checkpoint with its class names and preprocessing, and picture, as Markdown."""
    parts = [f"network {escaped(settings.network)}"]
    if settings.checkpoint:
        parts.append(f"weights {_file(settings.checkpoint_name, settings.checkpoint)}")
    if settings.checkpoint and settings.class_names:
        parts.append(f"classes {_file(settings.class_names_name, settings.class_names)}")
    if settings.checkpoint and (settings.resize or settings.crop or settings.mean or settings.std):
        parts.append("preprocessing changed")
    picture = escaped(settings.image)
    if settings.image == UPLOAD:
        picture = _file(settings.picture_name, settings.picture)
    elif settings.image == DRAWING:
        picture = "your drawing"
    return ", ".join([*parts, f"picture {picture}"])


def _file(name: str, short: str) -> str:
    """A file's name, or else the start of its digest."""
    return quoted(name) if name else f"{short}…" if short else "none yet"
