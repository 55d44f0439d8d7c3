"""Pages by their address, in fresh sessions over a slow line: each load must end on the page asked for."""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from plugin.explorer.app import PAGES

from .browser import PATIENCE_MS, watched
from .views import View, drawn

# Bytes and milliseconds, and how many times slower the browser's processor is.
LINE = {"offline": False, "latency": 150, "downloadThroughput": 400_000, "uploadThroughput": 100_000}
SLOWER = 3
_NETWORK = "Open: network"
_WITH_FIGURES = ("tour", "attribute", "deconvnet", "lrp", "compare", "benchmarks")


@dataclass(frozen=True)
class Loads:
    """How the loads of a page went: seconds until all was drawn, and faults."""

    view: View
    seconds: list[float]
    failures: list[str]


def load(window: Any, address: str, view: View) -> float:
    """Open a page in a session of its own, and check it; the seconds until all of it is drawn.

    Args:
        window: a context of Playwright's.
        address: of the explorer, with a slash at its end.
        view: the page and its state.

    Raises:
        AssertionError: the screen shows something else than the address asks for.
    """
    with watched(window.new_page()) as page:
        client = window.new_cdp_session(page)
        client.send("Network.emulateNetworkConditions", LINE)
        client.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        start = time.perf_counter()
        page.goto(f"{address}{view.path}?{view.query}".rstrip("?"), timeout=PATIENCE_MS)
        drawn(page)
        seconds = time.perf_counter() - start
        _check(page, view)
        return seconds


def _check(page: Any, view: View) -> None:
    (title,) = (each.title for each in PAGES if each.path == view.path)
    assert page.title() == f"{title} · Attribution explorer"
    shown, asked = urlsplit(page.url), parse_qs(view.query)
    assert shown.path == f"/{view.path}"
    # Values that are the default leave the address.
    now = parse_qs(shown.query)
    assert {name: now.get(name, asked[name]) for name in asked} == asked, page.url
    assert page.locator("[data-testid=stAlertContentError], [data-testid=stAlertContentWarning]").count() == 0
    assert page.get_by_role("heading").first.inner_text().strip()
    if "network" in asked:
        assert asked["network"][0] in page.get_by_text(_NETWORK).inner_text()
    if view.button:
        page.get_by_role("button", name=view.button).first.wait_for()
        assert page.get_by_role("button", name="Stop", exact=True).count() == 0
    elif view.path in _WITH_FIGURES:
        assert page.locator("[data-testid=stPlotlyChart]").count()


def fresh_loads(window: Any, address: str, view: View, count: int) -> Loads:
    """Load a page so many times."""
    found = Loads(view, [], [])
    for _ in range(count):
        try:
            found.seconds.append(load(window, address, view))
        except AssertionError as error:
            found.failures.append(str(error).splitlines()[0] if str(error) else repr(error))
    return found
