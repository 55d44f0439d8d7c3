"""A folder of pictures in a real browser: a cell of the confusion table, a picture's maps, and back.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import pytest
from support.browser import CHROMIUM, click_mark, map_titles, settle, until

from plugin import models

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(1200),
]


@pytest.fixture
def photos(tmp_path):
    """Six photographs, all said to be cats, and a file that is none."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for name, photograph in models.sample_images().items():
        photograph.save(tmp_path / "photos" / "cat" / f"{name}.jpg")
    (tmp_path / "photos" / "cat" / "torn.jpg").write_text("no picture")
    return tmp_path / "photos"


def test_click_on_a_cell_filters_a_click_on_a_picture_opens_its_maps_and_back_returns(page, address, photos):
    page.goto(f"{address}folder?pictures=folder")
    settle(page)

    def type_path():
        page.get_by_role("textbox", name="Path of the folder").fill(str(photos))
        page.keyboard.press("Enter")

    until(page, type_path, url="folder_name=photos")
    pictures = page.locator("[data-testid=stImage] img")
    sync_api.expect(pictures).to_have_count(6)
    assert page.get_by_text("1 file without a prediction").count() == 2
    # Only classes that occur have cells.
    classes = [name.text_content() for name in page.locator(".xaxislayer-above text").all() if name.text_content()]
    cell = classes.index("cat") * len(classes) + classes.index("dog")
    marks = "[class*='st-key-attribute-confusion'] .scatterlayer .point"
    click_mark(page, marks, cell, url="predicted=5")
    assert "labelled=3" in page.url
    sync_api.expect(pictures).to_have_count(1)
    opened = page.url
    until(page, page.get_by_role("link", name="astronaut.jpg").click, url="picture_name=astronaut.jpg")
    assert "/attribute?" in page.url
    map_titles(page, ["Gradient", "Deconvnet", "Guided backprop"])
    until(page, page.go_back, url="predicted=5")
    assert page.url == opened
    sync_api.expect(pictures).to_have_count(1)
