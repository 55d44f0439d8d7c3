"""The explorer's frame: the list of pages. A new page is a file in `views/` and a row here."""

from collections.abc import Callable

import streamlit as st

from . import navigation
from .navigation import view

# Title, path in the URL (empty for the first page), and the function that draws the page.
PAGES: tuple[tuple[str, str, Callable[[], None]], ...] = (
    ("Start", "", view("home")),
    ("Tour", "tour", view("tour")),
    ("Attribute", "attribute", view("attribute")),
    ("Deconvnet", "deconvnet", view("deconvnet")),
    ("LRP", "lrp", view("lrp")),
    ("Code space", "code-space", view("code_space")),
    ("Invariance", "invariance", view("invariance")),
    ("Benchmarks", "benchmarks", view("benchmarks")),
)


def main() -> None:
    """Draw the page that the URL asks for."""
    st.set_page_config(page_title="Attribution explorer", layout="wide")
    pages = {path: st.Page(draw, title=title, url_path=path, default=not path) for title, path, draw in PAGES}
    navigation.register(pages)
    st.navigation(list(pages.values()), position="top").run()
