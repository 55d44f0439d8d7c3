"""The explorer as a person meets it: a server, a real browser, and a screenshot to look at.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from plugin import models

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The explorer, served on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--server.fileWatcherType", "none"], cwd=ROOT, stdout=output, stderr=output, env=os.environ
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def window():
    """A browser with one profile, so that only the first page has to fetch the scripts."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser.new_context(viewport={"width": 1400, "height": 1080})
        browser.close()


@pytest.fixture
def page(window):
    """An empty page. An exception on it or an error in its console fails the test."""
    complaints = []
    page = window.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert page.locator("[data-testid=stException]").count() == 0
    page.close()
    assert complaints == []


def settle(page):
    """Wait until the script has run and the maps are drawn."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_selector(".heatmaplayer image, .imagelayer image", state="attached")
    page.wait_for_timeout(300)


def map_titles(page):
    titles = [label for label in page.locator("[data-testid=stMarkdown] strong").all_inner_texts() if label]
    assert page.locator("[class*='st-key-attribute-map'] .js-plotly-plot").count() == len(titles)
    return titles


def choose(page, label, text):
    """Pick an entry of a list, as a person would: click, type, enter."""
    box = page.get_by_role("combobox", name=label)
    box.click()
    box.fill(text)
    box.press("Enter")
    box.press("Tab")  # a list of several choices stays open otherwise, and hides the others


def screenshot(page, name, height):
    """The page as high as it needs to be: Streamlit scrolls inside the window."""
    folder = ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    page.set_viewport_size({"width": 1400, "height": height})
    page.mouse.move(5, 5)
    page.wait_for_timeout(700)
    page.screenshot(path=folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 20_000


def test_attribute_page(page, address, tmp_path):
    page.goto(address)
    settle(page)
    assert map_titles(page) == ["Gradient", "Deconvnet", "Guided backprop"]
    screenshot(page, "attribute", 1080)
    hover_and_download(page)

    choose(page, "Methods", "Guided Grad")
    page.wait_for_url("**methods=**")
    settle(page)
    assert len(map_titles(page)) == 4

    # Plotly's own layer lies over the bars and catches the mouse.
    bar = page.locator("[class*='st-key-attribute-bars'] .bars .point path").nth(1).bounding_box()
    page.mouse.click(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    page.wait_for_url("**target=**")
    settle(page)

    choose(page, "Picture", "astronaut")
    page.wait_for_url("**image=astronaut**")
    settle(page)

    photograph = tmp_path / "photograph.jpg"
    models.sample_images()["coffee"].save(photograph)
    page.set_input_files("[data-testid=stFileUploader] input[type=file]", photograph)
    page.wait_for_url("**picture=**")
    settle(page)
    page.get_by_text("Reproduce this view").click()
    assert page.get_by_text("photograph.jpg").count() > 0
    screenshot(page, "attribute-upload", 2000)


def hover_and_download(page):
    page.locator("[class*='st-key-attribute-map'] .plotly .nsewdrag").first.hover()
    page.wait_for_selector(".hoverlayer .hovertext")
    assert "row" in page.locator(".hoverlayer .hovertext").first.text_content()
    with page.expect_download() as download:
        page.get_by_role("button", name="NPZ").first.click()
    with np.load(download.value.path()) as arrays:
        assert arrays["attribution"].shape == (3, 32, 32)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").first.click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_lrp_page(page, address):
    page.goto(f"{address}?target=3&image=coffee&methods=lrp-epsilon,lrp-epsilon-gamma-box")
    settle(page)
    assert map_titles(page) == ["LRP epsilon", "LRP epsilon, gamma, box"]

    # What was chosen on the first page goes along, and comes back.
    page.get_by_role("link", name="LRP").click()
    page.wait_for_url("**/lrp?**target=3**")
    assert "image=coffee" in page.url
    settle(page)
    choose(page, "Rules", "gamma, box")
    page.wait_for_url("**preset=epsilon_gamma_box**")
    settle(page)
    choose(page, "Picture", "cat")
    page.wait_for_url(lambda url: "image=" not in url)
    settle(page)
    assert page.locator("[class*='st-key-attribute-ledger'] .bars").count() > 0
    screenshot(page, "lrp", 1500)

    choose_rule(page, row=8, rule="flat")
    page.wait_for_url("**rules=features.conv1**flat**")
    settle(page)
    page.get_by_text("Reproduce this view").click()
    shown = page.locator("[data-testid=stCode]").first.inner_text()
    assert shown.startswith(f"{address}lrp?")
    screenshot(page, "lrp-rules", 2000)
    page.get_by_role("button", name="Back to the preset").click()
    page.wait_for_url(lambda url: "rules=" not in url)
    settle(page)
    page.get_by_role("link", name="Attribute").click()
    page.wait_for_url(lambda url: "/lrp" not in url and "target=3" in url)
    settle(page)
    assert map_titles(page) == ["LRP epsilon", "LRP epsilon, gamma, box"]


def choose_rule(page, row, rule):
    """Edit one cell of the table, which is drawn on a canvas: rows of 35 pixels below a header of the same height."""
    table = page.locator("[data-testid=stDataFrame]")
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    place = {"x": box["width"] * 0.3, "y": 35 * (row + 1.5)}
    table.click(position=place)
    table.dblclick(position=place)
    page.keyboard.type(rule)
    page.keyboard.press("Enter")


def test_link_opens_the_same_view(page, address):
    page.goto(f"{address}?network=model-c&explain=neuron&layer=features.relu3&view=colour&opacity=0.8&target=99")
    settle(page)
    assert page.get_by_text("there is no target 99").count() == 1
    assert page.get_by_role("spinbutton", name="Channel").count() == 1
    screenshot(page, "attribute-neuron", 1080)
