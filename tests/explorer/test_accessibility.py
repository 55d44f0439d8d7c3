"""Every page in a real browser, on a desk and on a phone: named, in words as well as in colours, and by keyboard.

Needs Playwright's Python package and Debian's chromium; skips without them. Each page is read in one colour scheme and
width, all four of which occur; `AXE=all` reads each in all of them, with the results of its button.
"""

import os
import re
import time

import pytest
from support.browser import CHROMIUM, new_window, settle, watched
from support.helpers import slow
from support.reading import COMBINATIONS, complaints
from support.views import VARIANTS, VIEWS, drawn, open_view

from plugin.explorer.app import PAGES

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
pytestmark = pytest.mark.timeout(1200)

DESK, PHONE = 1280, 390
ALL = os.environ.get("AXE") == "all"
# Pages of many parts; together they are read in all schemes and widths.
ALWAYS = ("attribute", "folder", "units", "code-space")
READ_IN = {view.name: COMBINATIONS if ALL else COMBINATIONS[i % 4 :][:1] for i, view in enumerate(VIEWS)}
# The roles that a screen reader announces: none may be nameless. (Pictures are looked at below: those inside a chart
# are its parts, and the chart has a name.)
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
# The names of all controls that are seen and were not reached. In a group of buttons the arrow keys go on from the one
# that was; the arrow beside a list and a browser's own button for files stand beside a control that does the same.
_CONTROLS = """() => [...document.querySelectorAll('button, input, textarea, summary, a[href], [role=slider]')]
    .filter(element => element.checkVisibility({visibilityProperty: true, opacityProperty: true}) && !element.disabled
        && !element.dataset.reached && !element.matches('[tabindex="-1"]:is([aria-haspopup], [type=file])')
        && !element.closest('[role=radiogroup], [role=toolbar]')?.querySelector('[data-reached]'))
    .map(element => (element.ariaLabel ?? element.innerText) || element.outerHTML.slice(0, 200))"""
_REACH = "() => { document.activeElement.dataset.reached = true; }"
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


def test_every_page_is_in_the_screenshots():
    assert {view.path for view in VIEWS} == {page.path for page in PAGES}
    assert len({view.name for view in VIEWS}) == len(VIEWS)
    assert {(scheme, width) for _, scheme, width in VARIANTS} >= {("light", DESK), ("dark", DESK), ("light", PHONE)}
    assert {combination for read_in in READ_IN.values() for combination in read_in} == {*COMBINATIONS}


@needs_chromium
@pytest.mark.parametrize(
    "view",
    [view if view.name in ALWAYS else slow(view) for view in VIEWS],
    ids=[view.name for view in VIEWS],
)
def test_page_is_named_fits_a_phone_and_is_readable(page, address, view):
    page.emulate_media(color_scheme=READ_IN[view.name][0][0])
    page.set_viewport_size({"width": DESK, "height": 900})
    open_view(page, address, view, press=ALL)
    charts, pictures = (
        page.locator("[data-testid=stPlotlyChart]").all(),
        page.locator("[data-testid=stImage] img").all(),
    )
    buttons = page.locator("[data-testid=stMain] [data-testid=stDownloadButton] button").all_inner_texts()
    found = {
        "title": page.title(),
        "files of one name": sorted({name for name in buttons if buttons.count(name) > 1}),
        "language": page.evaluate("document.documentElement.lang"),
        "headers": page.locator("h1, h2").count() > 0,
        "nameless": nameless(page),
        "charts in words": all(len(chart.get_attribute("aria-label") or "") > 10 for chart in charts),
        "pictures in words": all(picture.get_attribute("alt") for picture in pictures),
        "small text": page.evaluate(_SMALLEST_TEXT) < 10,
    }
    page.set_viewport_size({"width": PHONE, "height": 844})
    drawn(page)
    (beyond, parts), cut = page.evaluate(_BEYOND), page.evaluate(_CUT)
    deadline = time.monotonic() + 60
    # Charts follow the window's width, and icons become pictures, in their own time.
    while (beyond > 1 or parts or cut) and time.monotonic() < deadline:
        page.wait_for_timeout(500)
        (beyond, parts), cut = page.evaluate(_BEYOND), page.evaluate(_CUT)
    found |= {"cut": cut, "complaints": read(page, address, view)}
    assert found | {"beyond the edge of a phone": parts, "scrolls sideways": beyond > 1} == {
        "title": f"{next(row.title for row in PAGES if row.path == view.path)} · Attribution explorer",
        "files of one name": [],
        "complaints": {combination: [] for combination in READ_IN[view.name]},
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


def read(page, address, view):
    """Complaints about a view in its colour schemes and widths, in lines."""
    found = {}
    opened = READ_IN[view.name][0][0]
    for scheme, width in READ_IN[view.name]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        if scheme != opened:  # Streamlit's charts keep the letters of the scheme that they were drawn in
            open_view(page, address, view, press=ALL)
            opened = scheme
        drawn(page)
        deadline = time.monotonic() + 60
        found[scheme, width] = complaints(page)
        while found[scheme, width] and time.monotonic() < deadline:  # a page fades while a badge is added to it
            page.wait_for_timeout(500)
            drawn(page)
            found[scheme, width] = complaints(page)
    return found


@needs_chromium
def test_complaints_are_found(window):
    page = window.new_page()
    page.set_content(
        "<div data-testid=stApp style='background: white'><main data-testid=stMain><button></button>"
        "<p style='color: #999'>pale</p><p>one</p><p style='margin-top: -2.2em'>two</p>"
        "<svg class=main-svg><text y=20 fill='#999'>tick</text></svg></main></div>"
    )
    found = "\n".join(complaints(page))
    for complaint in ("button-name: <button>", "color-contrast: <p style", "faint: tick", "covered: one | two"):
        assert complaint in found
    page.close()


@needs_chromium
def test_phone_shows_a_map_at_once_and_a_swipe_on_it_scrolls(window, address):
    screen = {"viewport": {"width": PHONE, "height": 844}, "has_touch": True, "is_mobile": True}
    context = new_window(window.browser, user_agent="Android 15; Mobile Safari/537.36", **screen)
    with watched(context.new_page()) as page:
        page.goto(f"{address}attribute")
        drawn(page)
        box = page.locator("[class*='st-key-attribute-map'] .nsewdrag").first.bounding_box()
        assert box["y"] + box["height"] / 2 < 844
        buttons = page.locator("[class*='st-key-attribute-map'] .modebar-btn").first.bounding_box()
        assert buttons["y"] + buttons["height"] <= box["y"] + 1, "the buttons lie over the map"
        swipe(context.new_cdp_session(page), box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, upwards=150)
        page.wait_for_function("document.querySelector('[data-testid=stMain]').scrollTop > 50")
    context.close()


def swipe(touches, x, y, upwards):
    """Move a finger over the screen, by the browser's own protocol."""
    touches.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y - upwards * step / 10}
        touches.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@needs_chromium
def test_keyboard_reaches_every_control_and_changes_the_view(page, address):
    page.set_viewport_size({"width": DESK, "height": 900})
    page.goto(f"{address}attribute?methods=gradient")
    page.get_by_text("Depends on the weights:").wait_for()  # else a badge would draw the page anew while it is walked
    drawn(page)
    missed = page.evaluate(_CONTROLS)
    for name in ("Network", "Guided Grad-CAM", "Class", "PNG of Gradient", "NPZ of Gradient", "Report of this view"):
        assert any(name in control for control in missed), f"{name} is not among {missed}"
    page.locator("body").focus()
    for _ in range(2 * len(missed)):
        page.keyboard.press("Tab")
        page.evaluate(_REACH)
        missed = page.evaluate(_CONTROLS)
        if not missed:
            break
    assert missed == []
    before = page.url
    box = page.get_by_role("combobox", name="Class", exact=False).first
    box.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url != before)
    settle(page)
    assert "target=" in page.url
