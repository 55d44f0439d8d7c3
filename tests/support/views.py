"""Every page of the explorer in one state, and how to wait until it is drawn."""

from dataclasses import dataclass
from typing import Any

from plugin.explorer.app import PAGES

from .browser import looks, settle

# Nothing is being computed, and every chart is drawn.
_DRAWN = """() => {
    const charts = [...document.querySelectorAll('[data-testid=stPlotlyChart]')];
    const images = [...document.querySelectorAll('[data-testid=stImage] img')];
    return !document.querySelector('[data-testid=stProgress], [data-testid=stSpinner]')
        && charts.every(chart => chart.querySelector('.main-svg'))
        && images.every(image => image.complete && image.naturalWidth > 0);
}"""


@dataclass(frozen=True)
class View:
    """A page in one state.

    Attributes:
        name: of its files.
        path: of the page, as in `plugin.explorer.app.PAGES`.
        query: the state, as in a link.
        height: of the light picture at most, in pixels.
        button: the start of the label of the button that starts the page's computation; empty where nothing waits.
    """

    name: str
    path: str
    query: str
    height: int
    button: str


# By the path of the page; the others are as they open.
QUERIES = {
    "tour": "step=guided-backprop",
    "attribute": "methods=gradient,guided-backprop,lrp-epsilon-plus-flat",
    "deconvnet": "network=model-c&layer=features.relu4&view=colour",
    "lrp": "target=3",
    "compare": "method=lrp-epsilon-plus-flat",
    "folder": "network=mnist-classifier&image=digit-3",
    "units": "layer=features.relu4&neuron=9.7.7&unit_order=response",
    "code-space": "network=mnist-classifier&image=digit-3",
    "invariance": "network=mnist-classifier&image=digit-3",
}
HEIGHTS = {"lrp": 1100, "compare": 1100, "invariance": 1400}
BUTTONS = {"code-space": "Maximise with", "invariance": "Measure A"}
VIEWS = tuple(
    View(
        page.path or "start",
        page.path,
        QUERIES.get(page.path, ""),
        HEIGHTS.get(page.path, 1000),
        BUTTONS.get(page.path, ""),
    )
    for page in PAGES
)
# Suffix of the file, colour scheme, width.
VARIANTS = (("", "light", 1280), ("-dark", "dark", 1280), ("-narrow", "light", 390))


def open_view(page: Any, address: str, view: View, press: bool = False) -> None:
    """Open a view and wait until all of it is drawn.

    Args:
        page: of Playwright.
        address: of the explorer, with a slash at its end.
        view: the view to open.
        press: whether to press its button, too, and to wait for all badges.
    """
    page.goto(f"{address}{view.path}?{view.query}" if view.query else f"{address}{view.path}")
    drawn(page)
    if not press:
        return
    page.wait_for_function("!document.body.innerText.includes('It is being checked')")
    if view.button:
        page.get_by_role("button", name=view.button).first.click()
        page.locator("[data-testid=stPlotlyChart]").first.wait_for()
        drawn(page)


def drawn(page: Any) -> None:
    """Wait until nothing is computed any more and every chart is there."""
    settle(page)
    page.wait_for_function(_DRAWN, **looks)
    settle(page)
