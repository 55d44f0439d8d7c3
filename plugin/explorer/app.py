"""The explorer's frame: the one list of pages. A new page is a folder in `pages/` and a row here.

The order of the rows is that of the navigation. A page is imported when it is drawn. A row ends with the settings that
the page has beside the network and the picture: its link holds no others.
"""

# Plotly looks whether pandas has been loaded, and fails if another session is loading it just then.
import pandas  # noqa: F401
import streamlit as st

from .widgets import browser_history, callbacks, navigation
from .widgets.navigation import Page

_DRAWN = ("view", "percentile")
_UNIT = ("explain", "target", "contrast", "layer", "neuron")
PAGES: tuple[Page, ...] = (
    Page("", "Start", "an introduction, a live picture, and the way to every page", "start", ("device", "target")),
    Page("tour", "Tour", "the argument of the paper, step by step, with live figures", "tour", ("step",)),
    Page(
        "attribute",
        "Attribute",
        "several methods side by side: which pixels led to a class, or to a neuron's value",
        "attribute",
        ("device", *_DRAWN, "opacity", "scale", "methods", *_UNIT, "randomise"),
    ),
    Page(
        "folder",
        "Folder",
        "many pictures at once: which ones the network gets wrong, and maps of all of them",
        "folder",
        (
            "device",
            "pictures",
            "folder",
            "folder_name",
            "correctness",
            "labelled",
            "predicted",
            "confidence",
            "order",
            "sheet",
            "whole",
            "layer",
        ),
    ),
    Page(
        "deconvnet",
        "Deconvnet",
        "the pattern that one unit looks for, without a picture and with one, with pooling and without",
        "deconvnet",
        ("device", *_DRAWN, "layer", "neuron", "unpooling", "frame"),
    ),
    Page(
        "units",
        "Units",
        "the real pictures that excite each unit of a layer most, and the part that it sees of each",
        "units",
        ("device", "pictures", "folder", "folder_name", "layer", "neuron", "unit_order", "selective_for", "unit_sheet"),
    ),
    Page(
        "lrp",
        "LRP",
        "a rule for each layer, and where the relevance went",
        "lrp",
        ("device", *_DRAWN, "opacity", "target", "contrast", "preset", "rules", "epsilon", "gamma", "alpha", "layer"),
    ),
    Page(
        "compare",
        "Compare",
        "two methods, classes, networks, checkpoints or pictures, and the difference of their maps",
        "compare",
        ("device", "percentile", "opacity", "method", "target", "differs", "b"),
    ),
    Page(
        "code-space",
        "Code space",
        "pictures that excite a class or a unit most, in the codes of a GAN, in Fourier space or in pixels",
        "code_space",
        (
            *("device", "generator", *_UNIT, "span", "prior", "runs", "seed", "steps"),
            *("until", "stop_at", "data", "count"),
        ),
    ),
    Page(
        "invariance",
        "Invariance",
        "the meaning of invariant representation, in three figures",
        "invariance",
        ("data", "count", "layer", "neuron", "generator", "runs", "seed", "ascent"),
    ),
    Page(
        "benchmarks",
        "Benchmarks",
        "time and memory against the gradient and other libraries",
        "benchmarks",
        ("device", "results", "results_beside", "measured", "batch"),
    ),
)


def main() -> None:
    """Draw the page that the URL asks for."""
    chosen = st.navigation(navigation.register(PAGES), position="top")
    st.set_page_config(page_title=f"{chosen.title} · Attribution explorer", layout="wide")
    callbacks.carry_out()
    browser_history.keep_views_only()
    chosen.run()
    # Not before: this needs PyTorch, which the first page imports when its text is on the screen.
    from .widgets import map_badges

    map_badges.check()
