"""One's own checkpoint and photograph in a real browser: over all pages, back and forth, and after a reload.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import itertools
import os

import pytest
import torch
from support.browser import CHROMIUM, PATIENCE_MS, map_titles, settle, until
from support.fresh_loads import fresh_loads
from support.views import VIEWS, drawn

from plugin import models
from plugin.explorer.app import PAGES

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(1200),
]
# By the name of a view: those that once fell back to an empty page, and with AXE=all twice, and the others.
LOADS = {"code-space": 1, "invariance": 1}
if os.environ.get("AXE") == "all":
    LOADS = {"code-space": 2, "invariance": 2, "attribute": 1, "folder": 1, "units": 1, "compare": 1}


@pytest.fixture
def files(tmp_path):
    """A checkpoint for All-CNN-C and a photograph."""
    state = models.load("all-cnn-c").network.state_dict()
    torch.save({name: 2 * value for name, value in state.items()}, tmp_path / "mine.pt")
    models.sample_images()["astronaut"].save(tmp_path / "koala.jpg")
    return tmp_path


def send(page, selector, file, url):
    until(page, lambda: page.set_input_files(f"{selector} input[type=file]", file), url=url)


def turn_to(page, title, path):
    """Click the title of a page at the top; returns how often a slow page was asked for."""
    link, clicks = page.get_by_role("link", name=title, exact=True).first, itertools.count()

    def click():
        next(clicks)
        link.click()

    until(page, click, url=lambda url: f"/{path}" in url.partition("?")[0])
    drawn(page)
    return next(clicks)


def test_own_checkpoint_and_photograph_survive_every_page_and_a_reload(page, address, files):
    page.goto(f"{address}attribute?methods=gradient&target=3")
    settle(page)
    send(page, "[class*='st-key-attribute-weights']", files / "mine.pt", "checkpoint=")
    send(page, ".st-key-attribute-file", files / "koala.jpg", "picture=")
    map_titles(page, ["Gradient"])
    opened, strip = page.url, page.get_by_text("Open: network").inner_text()
    assert "mine.pt" in strip
    assert "koala.jpg" in strip
    titles, seen = [page.title()], []
    entries = [page.evaluate("history.length")]
    # A setting that one page loses is missing on the next, and in the address at the end.
    for listed in (each for each in PAGES if each.path not in ("", "attribute")):
        clicks = turn_to(page, listed.title, listed.path)
        sync_api.expect(page.get_by_text("Open: network")).to_have_text(strip)
        titles.append(page.title())
        seen.append(page.url)
        entries.append(page.evaluate("history.length"))
        assert entries[-1] - entries[-2] <= clicks, "a click is one step back"
    turn_to(page, "Attribute", "attribute")
    entries.append(page.evaluate("history.length"))
    assert page.url == opened
    assert len({*titles}) == len(titles)
    assert all(title.endswith("Attribution explorer") for title in titles)
    page.reload()
    settle(page)
    map_titles(page, ["Gradient"])
    sync_api.expect(page.get_by_text("Open: network")).to_have_text(strip)
    assert page.url == opened
    assert page.get_by_text("This link needs").count() == 0
    for step, view in enumerate(seen[:-5:-1], 1):
        page.evaluate(f"history.go({entries[-step - 1] - entries[-step]})")
        page.wait_for_url(view)
        settle(page)
        sync_api.expect(page.get_by_text("Open: network")).to_have_text(strip, timeout=PATIENCE_MS)


@pytest.mark.parametrize("view", [view for view in VIEWS if view.name in LOADS], ids=lambda view: view.name)
def test_page_by_its_address_is_always_drawn_on_a_slow_line(window, address, view):
    """No load may end on another view than its address asks for; `scripts/fresh_loads.py` loads all pages often."""
    assert not fresh_loads(window, address, view, LOADS[view.name]).failures


def test_page_offers_another_network_for_itself_alone(page, address):
    page.goto(f"{address}attribute?methods=gradient&target=5&image=coffee")
    settle(page)
    turn_to(page, "Code space", "code-space")
    sync_api.expect(page.get_by_text("Open: network")).to_have_text("Open: network all-cnn-c, picture coffee")
    until(page, page.get_by_role("button", name="Use mnist-classifier on this page").click, url="alone=1")
    sync_api.expect(page.get_by_text("on this page alone")).to_contain_text("The other pages have network all-cnn-c")
    turn_to(page, "Attribute", "attribute")
    assert "image=coffee" in page.url
    assert "target=5" in page.url
    assert "network=" not in page.url
