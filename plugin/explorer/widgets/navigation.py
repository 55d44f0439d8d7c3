"""The pages by their paths, and links that open them. Light: a page is imported when it is drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import streamlit as st

_EXPLORER = __name__.rpartition(".widgets.")[0]
_PAGES, _STREAMLIT_PAGES = "attribute.pages", "attribute.streamlit_pages"


@dataclass(frozen=True)
class Page:
    """A row of the list of pages.

    Attributes:
        path: its part of the URL; empty for the first page.
        title: for people.
        purpose: its purpose, as a part of a sentence.
        folder: of `plugin.explorer.pages`: the function `draw` of its `page.py` draws it.
        uses: the fields of `Settings` that it has, besides those of `INPUTS`.
    """

    path: str
    title: str
    purpose: str
    folder: str
    uses: tuple[str, ...] = ()

    def draw(self) -> None:
        """Draw it, which imports its module."""
        import_module(self.module).draw()

    @property
    def module(self) -> str:
        """The name of its `page.py` as a module."""
        return f"{_EXPLORER}.pages.{self.folder}.page"


def register(listed: Iterable[Page]) -> list[Any]:
    """Keep the pages for links, and return them as Streamlit's."""
    known = {page.path: page for page in listed}
    made = {path: st.Page(page.draw, title=page.title, url_path=path, default=not path) for path, page in known.items()}
    st.session_state[_PAGES], st.session_state[_STREAMLIT_PAGES] = known, made
    return list(made.values())


def pages() -> dict[str, Page]:
    """The pages by their path, in order."""
    found: dict[str, Page] = st.session_state[_PAGES]
    return found


def link(path: str, label: str, query: Mapping[str, str]) -> None:
    """A link to the page with this path, with these query parameters; nothing if there is no such page."""
    if page := st.session_state[_STREAMLIT_PAGES].get(path):
        st.page_link(page, label=label, icon=":material/arrow_forward:", query_params=dict(query))
