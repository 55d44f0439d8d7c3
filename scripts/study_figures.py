"""The figures of docs/invariance.md, from the folder that its commands write: `python scripts/study_figures.py FOLDER`.

Charts are drawn in a real browser, which needs Playwright's Python package and Debian's chromium. The JSON files in the
folder hold the numbers; nothing is measured here.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, TypeVar

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from support.browser import ROOT, launched

from plugin.experiments.invariance import LayerInvariance, MaximisingSet, PictureResponse
from plugin.experiments.invariance.figures import invariance_figure, maximising_set_figure, sufficiency_figure

FIGURES = ROOT / "docs" / "figures"
STATES = ("trained", "untrained")
LAYERS = {
    "all-cnn-c": (*(f"conv{number}" for number in range(1, 9)), "class_conv", "output"),
    "mnist-classifier": ("conv1", "conv2", "conv3", "hidden", "output"),
}
WIDTH = 1088
Found = TypeVar("Found", LayerInvariance, PictureResponse, MaximisingSet)


def read(folder: Path, name: str, kind: type[Found]) -> list[Found]:
    """The findings in one part of a run."""
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [kind(**found) for found in content["results"]]


def of_layers(folder: Path, network: str, part: str, kind: type[Found]) -> dict[str, list[Found]]:
    """The findings of every layer, by the state of the network."""
    return {
        state: [found for layer in LAYERS[network] for found in read(folder, f"{network}-{state}-{part}-{layer}", kind)]
        for state in STATES
    }


def charts(folder: Path) -> dict[str, go.Figure]:
    """The charts by the names of their files."""
    by_depth = {state: read(folder, f"all-cnn-c-{state}-A", LayerInvariance) for state in STATES}
    return {
        "invariance-by-depth": invariance_figure(by_depth),
        "invariance-one-picture": sufficiency_figure(of_layers(folder, "all-cnn-c", "B", PictureResponse)),
        "invariance-sets": maximising_set_figure(of_layers(folder, "mnist-classifier", "C-gan-mnist", MaximisingSet)),
    }


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
