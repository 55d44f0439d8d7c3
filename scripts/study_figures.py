"""The figures of docs/invariance.md, from the folder that its commands write: `python scripts/study_figures.py FOLDER`.

Charts are drawn in a real browser, which needs Playwright's Python package and Debian's chromium. The JSON files in the
folder hold the numbers. The first figure draws the solutions in the folder, and the deconvnet's pictures of their
units; it reads CIFAR-10 from the folder `REAL_DATA`.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, TypeVar

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import plotly.graph_objects as go
import torch
from PIL import Image, ImageDraw, ImageFont
from plotly.offline import get_plotlyjs
from support.browser import ROOT, launched
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from gan import load
from plugin import models
from plugin.experiments.deconvnet import IMAGE_FREE, channel_responses, examine
from plugin.experiments.invariance import LayerInvariance, MaximisingSet, PictureResponse
from plugin.experiments.invariance.figures import invariance_figure, maximising_set_figure, sufficiency_figure
from plugin.figures import as_image
from plugin.models.data import cifar10, normalise

FIGURES = ROOT / "docs" / "figures"
STATES = ("trained", "untrained")
LAYERS = {
    "all-cnn-c": (*(f"conv{number}" for number in range(1, 9)), "class_conv", "output"),
    "mnist-classifier": ("conv1", "conv2", "conv3", "hidden", "output"),
}
WIDTH = 1088
DATA = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
TILE, GAP, LINE = 160, 12, 20
Found = TypeVar("Found", LayerInvariance, PictureResponse, MaximisingSet)


def read(folder: Path, name: str, kind: type[Found]) -> list[Found]:
    """The findings in one part of a run."""
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [kind(**found) for found in content["results"]]


def of_layers(folder: Path, network: str, part: str, kind: type[Found]) -> dict[str, list[Found]]:
    """The findings of every layer that was measured, by the state of the network."""
    found: dict[str, list[Found]] = {}
    for state in STATES:
        names = [f"{network}-{state}-{part}-{layer}" for layer in LAYERS[network]]
        found[state] = [one for name in names if (folder / f"{name}.json").exists() for one in read(folder, name, kind)]
        if not found[state]:
            raise FileNotFoundError(f"{folder} has no {names[0]}.json: run the commands of docs/invariance.md first")
    return found


def charts(folder: Path) -> dict[str, go.Figure]:
    """The charts by the names of their files."""
    by_depth = {state: read(folder, f"all-cnn-c-{state}-A", LayerInvariance) for state in STATES}
    return {
        "invariance-by-depth": invariance_figure(by_depth),
        "invariance-one-picture": sufficiency_figure(of_layers(folder, "all-cnn-c", "B", PictureResponse)),
        "invariance-sets": maximising_set_figure(of_layers(folder, "mnist-classifier", "C-gan-mnist", MaximisingSet)),
    }


def two_alike(folder: Path, generator: str = "dcgan-cifar10", layer: str = "output", count: int = 3) -> Image.Image:
    """A row for each unit: two solutions with the highest barrier between them, and the deconvnet's picture.

    Below each is the unit's response over its best response to an image. The deconvnet's picture has the contrast of
    the best image.
    """
    model, generate = models.load("all-cnn-c"), load(generator).generator
    images = normalise(cifar10(DATA, train=False)[0][:1000])
    sets = [one for one in read(folder, f"all-cnn-c-trained-C-{generator}-{layer}", MaximisingSet) if one.barriers]
    sheet = Image.new("RGB", (90 + 3 * (TILE + GAP), LINE + count * (TILE + 2 * LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    heads = ("one picture", "the deconvnet's, no image", "another picture")
    for column, head in enumerate(heads):
        pen.text((90 + column * (TILE + GAP), 2), head, fill="#222", font=font)
    for row, found in enumerate(sorted(sets, key=lambda one: one.barrier, reverse=True)[:count]):
        (unit,) = examine(model, images, [found.layer], [found.unit[0]]).units
        codes = torch.tensor(found.path_over_the_highest_barrier(2))
        with torch.no_grad():
            ends: Tensor = generate(codes)
        reached = channel_responses(model.network, found.layer, normalise(ends), [found.unit[0]] * 2) / unit.best
        deconvnet = Image.fromarray(as_image(unit.pictures[IMAGE_FREE].numpy()))
        first, last = map(to_pil_image, ends)
        shares = (float(reached[0]), unit.response[IMAGE_FREE], float(reached[1]))
        top = LINE + row * (TILE + 2 * LINE)
        pen.text((4, top + TILE // 2), unit.label, fill="#222", font=font)
        for column, (picture, share) in enumerate(zip((first, deconvnet, last), shares, strict=True)):
            left = 90 + column * (TILE + GAP)
            sheet.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
            pen.text((left, top + TILE + 2), f"response {share:.2f}", fill="#555", font=font)
    return sheet


def draw(page: Any, figure: go.Figure, path: Path) -> None:
    """Write a chart as a PNG."""
    page.set_content(f"<script>{get_plotlyjs()}</script>{figure.to_html(full_html=False, include_plotlyjs=False)}")
    page.wait_for_selector(".plotly-graph-div .main-svg")
    page.wait_for_timeout(500)
    page.locator(".plotly-graph-div").screenshot(path=path)


def main(arguments: list[str] | None = None) -> int:
    """Write the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="--out of plugin.experiments.invariance")
    folder = parser.parse_args(arguments).folder
    two_alike(folder).save(FIGURES / "invariance-two-pictures.png", optimize=True)
    with launched() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 600})
        for name, figure in charts(folder).items():
            draw(page, figure.update_layout(width=WIDTH - 16), FIGURES / f"{name}.png")
    for name, source in {
        "hidden": "trained-gan-mnist-hidden",
        "output": "trained-gan-mnist-output",
        "untrained": "untrained-gan-mnist-output",
    }.items():
        shutil.copy(folder / f"mnist-classifier-{source}.png", FIGURES / f"invariance-solutions-{name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
