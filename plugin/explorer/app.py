"""The explorer's frame: the one list of pages. A new page is a folder in `pages/` and a row here.

The order of the rows is that of the navigation. A page is imported when it is drawn.
"""

import streamlit as st

from .widgets import navigation
from .widgets.navigation import Page

PAGES: tuple[Page, ...] = (
    Page("", "Start", "what this is, a live picture, and the way to every page", "start"),
    Page("tour", "Tour", "the argument of the paper, step by step, with live figures", "tour"),
    Page(
        "attribute",
        "Attribute",
        "several methods side by side: what spoke for a class, and what against it",
        "attribute",
    ),
    Page(
        "deconvnet",
        "Deconvnet",
        "what one unit looks for, without a picture and with one, with pooling and without",
        "deconvnet",
    ),
    Page("lrp", "LRP", "a rule for each layer, and where the relevance went", "lrp"),
    Page(
        "code-space",
        "Code space",
        "digits that excite a class or a unit most, searched for in the code space of a GAN",
        "code_space",
    ),
    Page("invariance", "Invariance", "what invariant representation means, in three figures", "invariance"),
    Page("benchmarks", "Benchmarks", "time and memory against the gradient and other libraries", "benchmarks"),
)


def main() -> None:
    """Draw the page that the URL asks for."""
    st.set_page_config(page_title="Attribution explorer", layout="wide")
    st.navigation(navigation.register(PAGES), position="top").run()
