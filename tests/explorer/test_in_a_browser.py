"""The explorer as a person meets it: a server and a real browser.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import io
import json
import pickle
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from support.browser import (
    CHROMIUM,
    PATIENCE_MS,
    ROOT,
    choose,
    choose_in_table,
    click_mark,
    map_titles,
    new_window,
    settle,
    stay,
    until,
)

from plugin import figures, models

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(1200),
]


def test_attribute_page(page, stranger, address, tmp_path):
    page.goto(f"{address}attribute?opacity=0.6&view=red")
    settle(page)
    map_titles(page, ["Gradient", "Deconvnet", "Guided backprop"])
    badges = page.get_by_text("Depends on the weights:")
    sync_api.expect(badges).to_have_count(3, timeout=PATIENCE_MS)  # unasked
    settle(page)
    page.locator("[class*='st-key-attribute-map'] .plotly .nsewdrag").first.hover()
    sync_api.expect(page.locator(".hoverlayer .hovertext").first).to_contain_text("row")

    pills = page.get_by_role("toolbar", name="Methods")
    until(page, pills.get_by_role("button", name="Guided Grad-CAM").click, url="methods=")
    map_titles(page, ["Gradient", "Deconvnet", "Guided backprop", "Guided Grad-CAM"])
    click_mark(page, "[class*='st-key-attribute-bars'] .bars .point path", 1, url="target=")
    choose(page, "Picture", "astronaut", url="image=astronaut")
    check_files(page)
    check_fresh_session(page, stranger)

    photograph = tmp_path / "photograph.jpg"
    models.sample_images()["coffee"].save(photograph)
    until(
        page,
        lambda: page.set_input_files(".st-key-attribute-file input[type=file]", photograph),
        url="picture=",
    )
    sync_api.expect(page.get_by_text("photograph.jpg").first).to_be_attached()


def saved(page, kind):
    """The first file of a kind on the page."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"{kind} of ").first.click()
    return Path(download.value.path()).read_bytes()


def saved_arrays(page):
    with np.load(io.BytesIO(saved(page, "NPZ"))) as arrays:
        return dict(arrays)


def check_files(page):
    """The first map's figure, program, NPZ and PNG file hold the same numbers."""
    settle(page)
    arrays = saved_arrays(page)
    settings = json.loads(str(arrays["settings"]))
    drawn = page.evaluate("""() => {
        const plot = document.querySelector("[class*='st-key-attribute-map'] .js-plotly-plot");
        return Array.from(plot._fullData.find(trace => trace.type === 'heatmap').z, row => Array.from(row));
    }""")
    np.testing.assert_array_equal(np.asarray(drawn, arrays["map"].dtype), arrays["map"])
    page.get_by_text("Reproduce this view").click()
    code = page.locator("[data-testid=stCode]").filter(has_text="explain = ").first
    sync_api.expect(code).to_be_attached()
    program = {}
    exec(code.text_content().replace("figure.show()", ""), program)
    largest = np.abs(arrays["attribution"]).max()
    np.testing.assert_allclose(program["attribution"], arrays["attribution"], atol=1e-5 * largest)
    colours = figures.signed_colours(arrays["map"], limit=settings["limit"])
    picture = program["model"].visible(program["image"]) if "image" in program else None
    assert saved(page, "Bare PNG") == figures.to_png(colours, picture, settings["opacity"])


@pytest.fixture(scope="module")
def stranger(window):
    """A window that shares nothing with that of the other pages."""
    other = new_window(window.browser)
    other.set_default_timeout(PATIENCE_MS)
    stay(other)
    yield other
    other.close()


def check_fresh_session(page, stranger):
    """The address of a view gives the same address and the same files wherever it is opened."""
    arrays = saved_arrays(page)
    again = stranger.new_page()
    again.goto(page.url)
    settle(again)
    assert parse_qs(urlsplit(again.url).query) == parse_qs(urlsplit(page.url).query)
    same = saved_arrays(again)
    for name in arrays.keys() - {"settings"}:  # they tell the time that a map took
        np.testing.assert_array_equal(same[name], arrays[name])
    again.close()
    return arrays


def test_zoom_and_hover_of_a_comparison_are_linked(page, address):
    page.goto(f"{address}compare?method=lrp-epsilon")
    settle(page)
    chart = page.locator("[class*='st-key-attribute-map']")
    ranges = """() => {
        const plot = document.querySelector("[class*='st-key-attribute-map'] .js-plotly-plot");
        return ['xaxis', 'xaxis2', 'xaxis3', 'yaxis', 'yaxis2', 'yaxis3'].map(axis => plot._fullLayout[axis].range);
    }"""
    assert page.evaluate(ranges) == [[-0.5, 31.5]] * 3 + [[31.5, -0.5]] * 3
    box = chart.locator(".nsewdrag").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    sync_api.expect(chart.locator(".hoverlayer .hovertext").first).to_contain_text("B minus A")
    chart.locator(".modebar-btn[data-title=Zoom]").click()  # else a drag scrolls
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    page.wait_for_function(f"() => ({ranges})()[0][1] < 25")
    x, x2, x3, y, y2, y3 = page.evaluate(ranges)
    assert x == x2 == x3
    assert y == y2 == y3
    assert 3 < x[0] < x[1] < 25
    assert abs((x[1] - x[0]) - (y[0] - y[1])) < 0.5


def test_report_prints_what_it_shows(page, address, tmp_path):
    page.goto(f"{address}lrp?target=3")
    settle(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Report of this view").click()
    file = tmp_path / "report.html"
    download.value.save_as(file)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    # As wide as the paper less its margins.
    page.set_viewport_size({"width": 688, "height": 980})
    page.emulate_media(media="print")
    cut = """() => [...document.querySelectorAll('body *')].filter(element =>
        element.getBoundingClientRect().right > innerWidth + 1).map(element => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(cut) == []
    unbroken = page.evaluate("[...document.querySelectorAll('figure, tr')].map(e => getComputedStyle(e).breakInside)")
    assert {*unbroken} == {"avoid"}
    # Of one page; the layout follows the change to paper after a moment. Playwright's own way to wait for it compiles
    # text, which the report forbids.
    highest = """async () => {
        const height = () => Math.max(...[...document.querySelectorAll('.map')].map(map => map.offsetHeight));
        for (let frame = 0; height() >= 980 && frame < 600; frame++) await new Promise(requestAnimationFrame);
        return height();
    }"""
    assert page.evaluate(highest) < 980
    assert page.pdf(format="A4")[:5] == b"%PDF-"


@pytest.mark.slow
def test_benchmarks_page_measures_until_it_is_stopped(page, address):
    page.goto(f"{address}benchmarks?measured=mobilenet_v2")
    settle(page)
    page.get_by_role("button", name="Measure MobileNet-V2").click()
    # The first row is there; others would follow.
    page.locator("[class*='st-key-attribute-time-here'] .bars .point path").first.wait_for(state="attached")
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    sync_api.expect(stop).to_have_count(0, timeout=PATIENCE_MS)
    settle(page)
    assert page.get_by_role("button", name="Measure MobileNet-V2").is_visible()
    assert page.locator("[class*='st-key-attribute-time-here'] .bars .point path").count() >= 1


class Attack:
    """Leaves a file behind where a pickle of it is loaded."""

    def __reduce__(self):
        return (open, ("attacked", "w"))


def test_hostile_links_and_files_get_sentences(page, address, tmp_path):
    markup = "<img src=x onerror=alert(1)>"
    page.goto(f"{address}attribute?network={markup}&layer={markup}&view=![](http://127.0.0.1:9/x.png)&target=9e9")
    settle(page)
    warning = page.locator("[data-testid=stAlert]").first
    sync_api.expect(warning).to_contain_text(markup)  # as text
    assert page.locator("img[src=x], img[src*='127.0.0.1:9']").count() == 0
    files = {
        "text.png": b"no picture",
        "vector.png": f"<svg xmlns='http://www.w3.org/2000/svg'>{markup}</svg>".encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        until(
            page,
            lambda name=name: page.set_input_files(".st-key-attribute-file input[type=file]", tmp_path / name),
            url="image=upload",
        )
        sync_api.expect(page.locator("[data-testid=stAlert]").get_by_text("The file")).to_be_visible()
        choose(page, "Picture", "cat", url=lambda url: "image=" not in url)
    map_titles(page, ["Gradient", "Deconvnet", "Guided backprop"])
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Attack()))
    until(
        page,
        lambda: page.set_input_files("[class*='st-key-attribute-weights'] input[type=file]", tmp_path / "weights.pt"),
        url="checkpoint=",
    )
    sync_api.expect(page.locator("[data-testid=stAlert]").get_by_text("checkpoint")).to_be_visible()
    assert not (ROOT / "attacked").exists()


def test_lrp_page(page, stranger, address):
    page.goto(f"{address}attribute?target=3&image=coffee&methods=lrp-epsilon,lrp-epsilon-gamma-box")
    settle(page)
    map_titles(page, ["LRP epsilon", "LRP epsilon, gamma, box"])

    # The choices of the first page go along, and come back.
    until(page, page.get_by_role("link", name="LRP").click, url=lambda url: "/lrp?" in url and "target=3" in url)
    assert "image=coffee" in page.url
    choose(page, "Rules", "LRP epsilon, gamma, box", url="preset=epsilon_gamma_box")
    choose(page, "Picture", "cat", url=lambda url: "image=" not in url)
    sync_api.expect(page.locator("[class*='st-key-attribute-ledger'] .bars").first).to_be_attached()

    choose_in_table(page, row=8, column=1, option="flat", url="rules=features.conv1")
    assert "flat" in page.url
    check_files(page)
    assert "ledger_left" in check_fresh_session(page, stranger)
    sync_api.expect(page.locator("[data-testid=stCode]").first).to_contain_text(f"{address}lrp?")
    until(page, page.get_by_role("button", name="Back to the preset").click, url=lambda url: "rules=" not in url)
    until(
        page,
        page.get_by_role("link", name="Attribute").click,
        url=lambda url: "/attribute?" in url and "target=3" in url,
    )
    map_titles(page, ["LRP epsilon", "LRP epsilon, gamma, box"])


def test_deconvnet_page(page, stranger, address):
    page.goto(f"{address}deconvnet?network=mnist-classifier&image=digit-3&layer=body.relu2&unpooling=corner")
    settle(page)
    rows = ["Deconvnet, no picture", "Deconvnet", "Guided backprop", "Gradient"]
    map_titles(page, rows + [f"Deconvnet, {unpooling}" for unpooling in ("centre", "corner", "uniform", "replicate")])
    click_mark(page, "[class*='st-key-attribute-units'] .scatterlayer .trace:first-child .point", 5, url="neuron=5.")
    click_mark(
        page, "[class*='st-key-attribute-positions'] .scatterlayer .trace:first-child .point", 0, url="neuron=5.0.0"
    )
    check_files(page)
    assert "ledger_left" not in check_fresh_session(page, stranger)

    # The unit goes along to the other page, and back.
    until(page, page.get_by_role("link", name="Attribute this unit").click, url="explain=neuron")
    assert "neuron=5.0.0" in page.url
    sync_api.expect(page.get_by_role("spinbutton", name="Channel")).to_have_count(1)
    map_titles(page, ["Gradient", "Deconvnet", "Guided backprop"])
    until(page, page.get_by_role("link", name="Reconstruct this unit").click, url="/deconvnet?")
    assert "neuron=5.0.0" in page.url


def test_drawn_digit(page, address):
    page.goto(f"{address}attribute?network=mnist-classifier&image=drawing")
    sheet = page.locator("[class*='st-key-attribute-sheet'] .nsewdrag")

    def stroke():
        box = sheet.bounding_box()
        page.mouse.move(box["x"] + 170, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 165, box["y"] + 270, steps=12)
        page.mouse.up()

    sheet.wait_for()
    until(page, stroke, url="drawing=")
    sync_api.expect(page.locator("[class*='st-key-attribute-bars']").get_by_text("1").first).to_be_attached()
    before = page.url
    table = page.locator("[data-testid=stDataFrame]").first

    def fill_with_the_keyboard():
        table.click(position={"x": 14, "y": 60})
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")

    until(page, fill_with_the_keyboard, url=lambda url: url != before)
    until(page, page.get_by_role("button", name="Clear the sheet").click, url=lambda url: "drawing=" not in url)
