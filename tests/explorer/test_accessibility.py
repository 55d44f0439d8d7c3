"""Every page in a real browser, on a desk and on a phone: named, in words as well as in colours, and by keyboard.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import re
import time

import pytest
from support.browser import CHROMIUM, launched, settle
from support.views import VARIANTS, VIEWS, drawn, open_view

from plugin.explorer.app import PAGES

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
pytestmark = pytest.mark.timeout(1200)

DESK, PHONE = 1280, 390
# What a screen reader announces: none of these may be nameless. (Pictures are looked at below: those inside a chart are
# its parts, and the chart has a name.)
_NAMED = ("button", "link", "combobox", "textbox", "spinbutton", "slider", "checkbox", "radio", "tab", "figure")
# How far anything that is seen reaches beyond the right edge, unless it lies in a part that scrolls by itself.
_BEYOND = """() => {
    const scrolls = element => {
        for (let at = element.parentElement; at; at = at.parentElement) {
            const style = getComputedStyle(at);
            if (at.dataset.testid !== 'stMain' && style.overflowX !== 'visible' && at.clientWidth < at.scrollWidth
                && at.getBoundingClientRect().right <= innerWidth) return true;
        }
        return false;
    };
    const main = document.querySelector('[data-testid=stMain]');
    // Inside of charts much is drawn that a clip hides, and a closed expander keeps the width it had.
    const drawn = [...main.querySelectorAll('[data-testid=stElementContainer] *:not(svg *)')];
    const found = drawn.filter(element => !element.closest('details:not([open])')).filter(element => {
        const box = element.getBoundingClientRect();
        return box.width && box.height && box.right > innerWidth + 1 && !scrolls(element);
    });
    const page = Math.max(main.scrollWidth - main.clientWidth, document.documentElement.scrollWidth - innerWidth);
    return [page, [...new Set(found.map(element => element.closest('[data-testid]').dataset.testid))]];
}"""
# Links and buttons whose text does not fit.
_CUT = """() => [...document.querySelector('[data-testid=stMain]').querySelectorAll('a, button, h2, h3')]
    .filter(element => element.getClientRects().length && [element, ...element.querySelectorAll('*')].some(
        part => part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).overflowX !== 'visible'))
    .map(element => element.innerText)"""
_SMALLEST_TEXT = """() => {
    const texts = document.createTreeWalker(document.querySelector('[data-testid=stMain]'), NodeFilter.SHOW_TEXT);
    const sizes = [];
    while (texts.nextNode()) {
        const parent = texts.currentNode.parentElement;
        if (texts.currentNode.textContent.trim() && parent.getClientRects().length)
            sizes.push(parseFloat(getComputedStyle(parent).fontSize));
    }
    return Math.min(...sizes);
}"""


@pytest.fixture(scope="module")
def window():
    with launched() as browser:
        yield browser.new_context()


def test_every_page_is_in_the_screenshots():
    assert {view.path for view in VIEWS} == {page.path for page in PAGES}
    assert len({view.name for view in VIEWS}) == len(VIEWS)
    assert {(scheme, width) for _, scheme, width in VARIANTS} >= {("light", DESK), ("dark", DESK), ("light", PHONE)}


@needs_chromium
@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_page_is_named_fits_a_phone_and_is_readable(page, address, view):
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": DESK, "height": 900})
    open_view(page, address, view)
    charts, pictures = (
        page.locator("[data-testid=stPlotlyChart]").all(),
        page.locator("[data-testid=stImage] img").all(),
    )
    found = {
        "language": page.evaluate("document.documentElement.lang"),
        "headers": page.locator("h1, h2").count() > 0,
        "nameless": nameless(page),
        "charts in words": all(len(chart.get_attribute("aria-label") or "") > 10 for chart in charts),
        "pictures in words": all(picture.get_attribute("alt") for picture in pictures),
        "small text": page.evaluate(_SMALLEST_TEXT) < 10,
    }
    page.set_viewport_size({"width": PHONE, "height": 844})
    drawn(page)
    beyond, parts = page.evaluate(_BEYOND)
    deadline = time.monotonic() + 60
    while (beyond > 1 or parts) and time.monotonic() < deadline:  # charts follow the window's width in their own time
        page.wait_for_timeout(500)
        beyond, parts = page.evaluate(_BEYOND)
    found |= {"cut": page.evaluate(_CUT)}
    assert found | {"beyond the edge of a phone": parts, "scrolls sideways": beyond > 1} == {
        "language": "en",
        "headers": True,
        "nameless": [],
        "charts in words": True,
        "pictures in words": True,
        "small text": False,
        "cut": [],
        "beyond the edge of a phone": [],
        "scrolls sideways": False,
    }


def nameless(page):
    """Lines of the page as a screen reader is told it, of roles that need a name and have none."""
    lines = page.locator("body").aria_snapshot().splitlines()
    bare = re.compile(rf"^\s*- ({'|'.join(_NAMED)})(:|\s*\[[^\]]*\]:?)*\s*$")
    return [line.strip() for line in lines if bare.match(line)]


@needs_chromium
def test_keyboard_reaches_every_control_and_changes_the_view(page, address):
    page.set_viewport_size({"width": DESK, "height": 900})
    page.goto(f"{address}attribute?methods=gradient")
    drawn(page)
    reached = []
    page.locator("body").focus()
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('aria-label') ?? "
                                     "document.activeElement.innerText"))  # fmt: skip
    text = "\n".join(str(name) for name in reached)
    for name in ("Deconvnet", "Network", "Picture", "Methods", "Class", "Show", "PNG", "NPZ"):
        assert name in text, f"{name} is not reached: {reached}"
    before = page.url
    box = page.get_by_role("combobox", name="Class", exact=False).first
    box.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url != before)
    settle(page)
    assert "target=" in page.url
