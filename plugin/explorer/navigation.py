"""The pages by their paths, and links that open them. Light: what a page needs is imported when it is drawn."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import streamlit as st

_PAGES = "attribute.pages"


def view(name: str) -> Callable[[], None]:
    """What draws the page of `views/<name>.py`, which is imported then."""

    def draw() -> None:
        import_module(f"{__package__}.views.{name}").page()

    return draw


def register(pages: dict[str, Any]) -> None:
    """Keep the pages by their path."""
    st.session_state[_PAGES] = pages


def pages() -> dict[str, Any]:
    """The pages by their path, in order."""
    found: dict[str, Any] = st.session_state[_PAGES]
    return found


def link(path: str, label: str, query: Mapping[str, str]) -> None:
    """A link to the page with this path, with these query parameters."""
    st.page_link(pages()[path], label=label, icon=":material/arrow_forward:", query_params=dict(query))
