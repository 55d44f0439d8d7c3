"""How long a person waits for the explorer, measured in a real browser: `python scripts/speed.py`.

Prints, in milliseconds, the least and the median over the rounds, and the limit beside those that have one:

* cold: of the first page that a server just started gives to a browser that has never been there, until its first
  paint, its header, and everything on it; and how long the server took to start.
* own: from the start of the server to the maps of a checkpoint and a photograph of one's own (a ResNet-18 with seven
  classes), with the clicks that it takes.
* opening: of the first page of a warm server in such a browser.
* pages: from a click on a page's title to its header, and until everything on it is drawn; with the samples, and with
  the network and the photograph of one's own. At the first visit a page computes its maps, at the second they are kept.
  Beside each page stands how long the server's processor was busy meanwhile, which other work on the machine does not
  change.
* classes: from a click on a class to its first map, to all maps, and until nothing moves any more. No click repeats a
  question, so every map is computed.

Other work on the machine shows in all times. State a limit as met or missed on an idle machine only.
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

from support.browser import PATIENCE_MS, launched, served, server, settle
from support.views import drawn

from plugin.explorer.app import PAGES

MEASURED = ("cold", "own", "opening", "pages", "classes")
# In milliseconds, on an idle machine with two cores; and a number of clicks.
LIMITS = {
    "first paint": 3000, "clicks": 5, "since the start of the server": 10_000, "everything": 1000, "all": 500,
}  # fmt: skip

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
# The pictures of the maps on the page.
MAPS = """(() => [...document.querySelectorAll("[class*='st-key-attribute-map'] .heatmaplayer image")]
    .map(image => image.getAttribute('href') ?? image.getAttribute('xlink:href')))"""
# From the release of the button on, looks at each frame of the browser whether the maps are other ones.
CLOCK = f"""() => {{
    const maps = {MAPS};
    const before = maps(), clock = window.clock = {{}};
    document.addEventListener('pointerup', () => {{
        const start = performance.now();
        const look = () => {{
            const now = maps(), passed = performance.now() - start;
            const changed = now.filter((map, index) => map !== before[index]).length;
            if (changed && !clock.first) clock.first = passed;
            if (changed && changed === before.length && !clock.all) clock.all = passed;
            const app = document.querySelector('[data-testid=stApp]');
            if (clock.all && app.dataset.testScriptState === 'notRunning'
                && !document.querySelector('[data-stale=true]')) clock.still = passed;
            else requestAnimationFrame(look);
        }};
        requestAnimationFrame(look);
    }}, {{capture: true, once: true}});
}}"""


def cold(browser: Any, folder: Path) -> dict[str, float]:
    """Start a server, and open its first page."""
    start = time.perf_counter()
    with served(folder / "log.txt", "-m", "plugin.explorer") as address:
        answers = time.perf_counter()
        return {"start of the server": 1000 * (answers - start), **opened(browser, address)}


def own(browser: Any, folder: Path) -> dict[str, float]:
    """Start a server, and open a checkpoint and a photograph."""
    start = time.perf_counter()
    with served(folder / "log.txt", "-m", "plugin.explorer") as address:
        answers = time.perf_counter()
        page = _new_page(browser)
        clicks = open_own(page, address, folder)
        shown = time.perf_counter()
        page.context.close()
        return {
            "clicks": clicks, "since the browser's first request": 1000 * (shown - answers),
            "since the start of the server": 1000 * (shown - start),
        }  # fmt: skip


def open_own(page: Any, address: str, folder: Path) -> int:
    """Open the checkpoint and the photograph on a page; with how many clicks."""
    page.goto(address)
    acts = (
        lambda: page.get_by_role("link", name="Attribute", exact=True).first.click(),
        lambda: page.get_by_text("Your own weights", exact=True).click(),
        lambda: page.set_input_files("[class*='st-key-attribute-weights'] input[type=file]", folder / "mine.pt"),
        lambda: page.get_by_role("button", name="Open as resnet18").click(),
        lambda: page.set_input_files(".st-key-attribute-file input[type=file]", folder / "koala.png"),
    )
    for act in acts:
        act()
    page.wait_for_url(lambda url: "network=resnet18" in url and "picture=" in url)
    page.wait_for_function(f"{MAPS}().length === 3")
    settle(page)
    return len(acts)


def files_of_ones_own(folder: Path) -> None:
    """The checkpoint and the photograph."""
    import torch
    from torchvision.models import resnet18

    from plugin import models

    torch.manual_seed(0)
    torch.save(resnet18(num_classes=7).state_dict(), folder / "mine.pt")
    models.sample_images()["astronaut"].save(folder / "koala.png")


def turned(page: Any, process: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Click the titles at the top, one after the other; from Attribute, where nothing is computed any more."""
    for each in (each for each in PAGES if each.path != "attribute"):
        link = page.get_by_role("link", name=each.title, exact=True).first
        start, busy = time.perf_counter(), processor_ms(process)
        link.click()
        # Two pages have one header: the title tells whose it is.
        page.wait_for_function(
            """title => document.title.startsWith(`${title} ·`)
                && [...document.querySelectorAll('h2')].some(header => !header.closest('[data-stale=true]'))""",
            arg=each.title,
        )
        header = time.perf_counter()
        drawn(page)
        everything = time.perf_counter()
        yield (
            each.title,
            {
                "header": 1000 * (header - start), "everything": 1000 * (everything - start),
                "processor of the server": processor_ms(process) - busy,
            },
        )  # fmt: skip


def processor_ms(process: int) -> float:
    """How long a process has kept processors busy since its start."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def opened(browser: Any, address: str) -> dict[str, float]:
    """Open the first page with a fresh profile."""
    page = _new_page(browser)
    start = time.perf_counter()
    page.goto(address)
    page.locator("h1, h2").first.wait_for()
    header = time.perf_counter()
    settle(page)
    everything = time.perf_counter()
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.context.close()
    return {"first paint": painted, "header": 1000 * (header - start), "everything": 1000 * (everything - start)}


def clicked_on_samples(page: Any, address: str, query: str) -> Iterator[dict[str, float]]:
    """Click the classes that were not explained yet, on several pictures."""
    for picture in PICTURES:
        page.goto(f"{address}attribute?image={picture}&{query}")
        settle(page)
        yield from clicked(page)


def clicked(page: Any) -> Iterator[dict[str, float]]:
    """Click the classes of the picture that is open, but the first one."""
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
        limit = f" (limit {LIMITS[name]})" if name in LIMITS else ""
        parts.append(f"{name} {min(values):.0f} / {statistics.median(values):.0f}{limit}")
    return f"{', '.join(parts)}  ({len(rounds)} rounds, load average {os.getloadavg()[0]:.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of starts and of opening the first page")
    parser.add_argument("--only", nargs="*", choices=MEASURED, default=MEASURED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, launched() as browser:
        folder = Path(name)
        files_of_ones_own(folder)
        for kind, measure in (("cold", cold), ("own", own)):
            if kind in options.only:
                rounds = [measure(browser, folder) for _ in range(options.rounds)]
                print(f"{kind}:", summary(rounds), flush=True)
        if {"opening", "pages", "classes"} & {*options.only}:
            with server(folder / "log.txt", "-m", "plugin.explorer", "--model", LARGE) as (address, process):
                _warm(browser, address, process, options, folder)


def _warm(browser: Any, address: str, process: int, options: argparse.Namespace, folder: Path) -> None:
    """Measure on a server that has served before."""
    opened(browser, address)
    if "opening" in options.only:
        print("opening:", summary([opened(browser, address) for _ in range(options.rounds)]), flush=True)
    page = _new_page(browser)
    if "pages" in options.only:
        page.goto(f"{address}attribute?methods=gradient")
        settle(page)
        _turn(page, process, "samples")
    if "classes" in options.only:
        for name, query in VIEWS.items():
            print(f"{name}:", summary(list(clicked_on_samples(page, address, query))), flush=True)
    if {"pages", "classes"} & {*options.only}:
        page = _new_page(browser)
        open_own(page, address, folder)
    if "classes" in options.only:
        print("ResNet-18 of one's own, three methods:", summary(list(clicked(page))), flush=True)
    if "pages" in options.only:
        _turn(page, process, "one's own")


def _turn(page: Any, process: int, opened_before: str) -> None:
    """Measure all pages twice, and print each of them and all together."""
    for visit in ("first visit", "second visit"):
        rounds = dict(turned(page, process))
        for title, each in rounds.items():
            numbers = ", ".join(f"{name} {value:.0f}" for name, value in each.items())
            print(f"  {opened_before}, {visit}, {title}: {numbers}", flush=True)
        print(f"pages, {opened_before}, {visit}:", summary([*rounds.values()]), flush=True)
        page.get_by_role("link", name="Attribute", exact=True).first.click()
        settle(page)


def _new_page(browser: Any) -> Any:
    page = browser.new_context(viewport={"width": 1400, "height": 1080}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


if __name__ == "__main__":
    main()
