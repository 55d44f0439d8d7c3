"""The explorer as a person meets it: serving it, opening it in a real browser, and acting on the page.

Everything waits for a condition, never for time to pass: the machine may be slow.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]
# All pages of a window in one process, which has the scripts compiled already; and no optimising compiler for code that
# runs for seconds.
FOR_MANY_PAGES = ["--process-per-site", "--js-flags=--no-maglev --no-turbofan"]
PATIENCE_MS = 240_000
# When to look at a page that is waited for: at every frame, of which sixty are then drawn a second, or each so many
# milliseconds. Tests that measure times look at every frame.
looks: dict[str, Any] = {"polling": "raf"}
# An action goes unnoticed while the page is being drawn: the next attempt may come soon, and wait twice as long.
_FIRST_ATTEMPT_MS = 2_000

# Animations come to their end at once: to draw their frames takes a processor longer than all else on the page.
_STILL = """document.addEventListener('DOMContentLoaded', () => {
    const style = document.createElement('style');
    style.textContent = `*, *::before, *::after {
        animation-duration: 0.01ms !important; animation-delay: 0s !important; animation-iteration-count: 1 !important;
        transition-duration: 0.01ms !important; transition-delay: 0s !important}`;
    document.head.append(style);
});"""
# The script has run, nothing of the run before is left, and each map is drawn.
_SETTLED = """() => {
    const app = document.querySelector('[data-testid=stApp]');
    const maps = [...document.querySelectorAll("[class*='st-key-attribute-map']")];
    return app?.dataset.testConnectionState === 'CONNECTED'
        && app.dataset.testScriptState === 'notRunning'
        && !document.querySelector('[data-stale=true], [data-testid=stSkeleton]')
        && maps.every(map => map.querySelector('.heatmaplayer image, .imagelayer image'));
}"""


@contextmanager
def served(log: Path, *arguments: str) -> Iterator[str]:
    """The explorer on a free port; yields its address. `arguments` start it another way than by `streamlit run`."""
    with server(log, *arguments) as (address, _):
        yield address


@contextmanager
def server(log: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, int]]:
    """The same; yields its address and the identifier of its process, which gets these environment variables too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = list(arguments) or ["-m", "streamlit", "run", "streamlit_app.py"]
    options = ["--server.port", port]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/", process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()  # a page was still computing
            process.wait()


@contextmanager
def launched(*arguments: str) -> Iterator[Any]:
    """Chromium without a window, of Playwright. `arguments` are Chromium's own, beside those that it always gets."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


def new_window(browser: Any, **options: Any) -> Any:
    """A window with a profile of its own, in which nothing moves by itself. `options` are those of Playwright."""
    window = browser.new_context(reduced_motion="reduce", **options)
    window.add_init_script(_STILL)
    return window


def stay(window: Any) -> None:
    """Leave an empty page of the server's site open, so that its process outlives the other pages of the window."""
    page = window.new_page()
    page.route("**/*", lambda route: route.fulfill(body=""))
    page.goto("http://127.0.0.1/")


@contextmanager
def watched(page: Any) -> Iterator[Any]:
    """An empty page that takes its time. An exception on it, a dialog or an error in its console fails the test."""
    complaints: list[str] = []
    page.set_default_timeout(PATIENCE_MS)

    def listen(message: Any) -> None:
        # Opened below the root, Streamlit first asks for its own addresses below that page.
        if message.type == "error" and "/_stcore/" not in message.location["url"]:
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    yield page
    assert page.locator("[data-testid=stException]").count() == 0
    page.close()
    assert not complaints, complaints


def settle(page: Any) -> None:
    """Wait until the script has run and the maps are drawn."""
    page.wait_for_function(_SETTLED, **looks)


def until(page: Any, act: Callable[[], None], url: str | Callable[[str], bool]) -> None:
    """Act as a person does: again if nothing happens, until the address tells that it did, and the page is drawn.

    Args:
        page: of Playwright.
        act: may fail where what it acts on is redrawn at that moment.
        url: a part of the address, or a condition on it.
    """
    from playwright.sync_api import Error

    matches = url if callable(url) else lambda address: url in address
    deadline = time.monotonic() + PATIENCE_MS / 1000
    patience = _FIRST_ATTEMPT_MS
    while True:
        page.set_default_timeout(patience)
        try:
            act()
            page.wait_for_url(matches)
        except Error:
            if time.monotonic() > deadline:
                raise
            page.keyboard.press("Escape")
        page.set_default_timeout(PATIENCE_MS)
        settle(page)
        if matches(page.url):
            return
        patience *= 2


def choose(page: Any, label: str, option: str, url: str | Callable[[str], bool]) -> None:
    """Pick an entry of a list by its exact text."""

    def act() -> None:
        page.get_by_role("combobox", name=label).click()
        # A long list draws only the entries around the chosen one: typing leaves those that match.
        page.get_by_role("combobox", name=label).fill(option)
        page.get_by_role("option", name=option, exact=True).click()
        page.keyboard.press("Escape")  # a list of several choices stays open otherwise, and hides the others

    until(page, act, url)


def choose_in_table(page: Any, row: int, column: int, option: str, url: str | Callable[[str], bool]) -> None:
    """Pick another entry in the first visible table, which is drawn on a canvas: rows of 35 pixels, as the header."""
    table = page.locator("[data-testid=stDataFrame]:visible").first
    cell = table.locator(f"[data-testid=glide-cell-{column}-{row}]")

    def act() -> None:
        table.scroll_into_view_if_needed()
        cell.wait_for(state="attached")
        width = table.bounding_box()["width"]
        table.click(position={"x": width * 0.3, "y": 35 * (row + 1.5)})
        selected = table.locator(f"[data-testid=glide-cell-{column}-{row}][aria-selected=true]")
        selected.wait_for(state="attached")
        page.keyboard.press("Enter")
        page.get_by_role("option", name=option, exact=True).click()

    until(page, act, url)


def click_mark(page: Any, marks: str, index: int, url: str | Callable[[str], bool]) -> None:
    """Click one of the marks of a chart. Plotly's own layer lies over them and catches the mouse, not they."""

    def act() -> None:
        mark = page.locator(marks).nth(index)
        # Into the middle: at the upper edge the bar with the pages' titles would lie over it.
        mark.evaluate("mark => mark.scrollIntoView({block: 'center'})")
        box = mark.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    until(page, act, url)


def map_titles(page: Any, expected: list[str]) -> None:
    """Wait for the maps of these titles, and for as many drawings."""
    from playwright.sync_api import expect

    titles = page.locator("[data-testid=stMarkdown] strong").filter(has_text=re.compile("."))
    expect(titles).to_have_text(expected, timeout=PATIENCE_MS)
    expect(page.locator("[class*='st-key-attribute-map'] .js-plotly-plot")).to_have_count(len(expected))
