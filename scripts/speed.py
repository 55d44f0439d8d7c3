"""How long a person waits for the explorer, measured in a real browser: `python scripts/speed.py`.

Prints, in milliseconds, the least and the median over the rounds: of opening the first page in a browser that has never
been there, until its first content and until everything on it is drawn; and from a click on a class to its first map,
to all maps, and until nothing moves any more. No click repeats a question, so every map is computed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.browser import PATIENCE_MS, launched, served, settle

# A network of ImageNet's size, with random weights: nothing is downloaded.
LARGE = "torchvision.models:resnet50"
VIEWS = {
    "All-CNN-C, gradient": "methods=gradient",
    "All-CNN-C, three methods": "methods=gradient,deconvnet,guided-backprop",
    "ResNet-50, guided backprop": f"network={LARGE}&methods=guided-backprop",
    "ResNet-50, LRP": f"network={LARGE}&methods=lrp-epsilon-plus-flat",
    "ResNet-50, three methods": f"network={LARGE}",
}
PICTURES = ("cat", "coffee", "rocket")
BARS = "[class*='st-key-attribute-bars'] .bars .point path"
# From the release of the button on, looks at each frame of the browser whether the maps are other ones.
CLOCK = """() => {
    const maps = () => [...document.querySelectorAll("[class*='st-key-attribute-map'] .heatmaplayer image")]
        .map(image => image.getAttribute('href') ?? image.getAttribute('xlink:href'));
    const before = maps(), clock = window.clock = {};
    document.addEventListener('pointerup', () => {
        const start = performance.now();
        const look = () => {
            const now = maps(), passed = performance.now() - start;
            const changed = now.filter((map, index) => map !== before[index]).length;
            if (changed && !clock.first) clock.first = passed;
            if (changed && changed === before.length && !clock.all) clock.all = passed;
            const app = document.querySelector('[data-testid=stApp]');
            if (clock.all && app.dataset.testScriptState === 'notRunning'
                && !document.querySelector('[data-stale=true]')) clock.still = passed;
            else requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, {capture: true, once: true});
}"""


def opened(browser: Any, address: str) -> dict[str, float]:
    """Open the first page with a fresh profile."""
    context = browser.new_context(viewport={"width": 1400, "height": 1080})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    start = time.perf_counter()
    page.goto(address)
    page.locator("h1, h2").first.wait_for()
    header = time.perf_counter()
    settle(page)
    drawn = time.perf_counter()
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    context.close()
    return {"first paint": painted, "header": 1000 * (header - start), "everything": 1000 * (drawn - start)}


def clicked(page: Any, address: str, query: str) -> Iterator[dict[str, float]]:
    """Click the classes that were not explained yet, on several pictures."""
    for picture in PICTURES:
        page.goto(f"{address}attribute?image={picture}&{query}")
        settle(page)
        for index in range(1, page.locator(BARS).count()):
            mark = page.locator(BARS).nth(index)
            mark.scroll_into_view_if_needed()
            box = mark.bounding_box()
            # Plotly's own layer lies over the bars and catches the mouse.
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.wait_for_timeout(200)  # the chart must have seen the mouse before it is pressed
            page.evaluate(CLOCK)
            page.mouse.down()
            page.mouse.up()
            page.wait_for_function("() => window.clock.still")
            yield page.evaluate("() => window.clock")
            settle(page)


def summary(rounds: list[dict[str, float]]) -> str:
    """The least and the median of each number."""
    parts = []
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        parts.append(f"{name} {min(values):.0f} / {statistics.median(values):.0f}")
    return f"{', '.join(parts)}  ({len(rounds)} rounds, load average {os.getloadavg()[0]:.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of opening the first page")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "log.txt", "-m", "plugin.explorer", "--model", LARGE) as address,
        launched() as browser,
    ):
        opened(browser, address)  # afterwards the server is warm
        print("opening:", summary([opened(browser, address) for _ in range(options.rounds)]), flush=True)
        page = browser.new_context(viewport={"width": 1400, "height": 1080}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        for name, query in VIEWS.items():
            print(f"{name}:", summary(list(clicked(page, address, query))), flush=True)


if __name__ == "__main__":
    main()
