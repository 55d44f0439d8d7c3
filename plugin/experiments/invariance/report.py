"""The findings of `plugin.experiments.invariance` for one or more networks, as one self-contained HTML file."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from ...files import write_text
from ...statistics import median_of_known
from ..report_page import embedded, page, table
from .figures import (
    firing_figure,
    invariance_figure,
    maximising_set_figure,
    short,
    sufficiency_figure,
)
from .firing import LayerInvariance
from .maximising_set import MaximisingSet
from .sufficiency import PictureResponse, response_quartiles


@dataclass
class Findings:
    """The findings for one network, by its state ("trained", "untrained"); parts that were not measured are empty.

    Attributes:
        name: name of the network.
        images: the number of images.
        invariance: figure A.
        sufficiency: figure B.
        sets: figure C, by generator, then state.
        pictures: drawn solutions, by a description.
    """

    name: str
    images: int
    invariance: dict[str, list[LayerInvariance]] = field(default_factory=dict)
    sufficiency: dict[str, list[PictureResponse]] = field(default_factory=dict)
    sets: dict[str, dict[str, list[MaximisingSet]]] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)


def write_report(findings: Sequence[Findings], folder: Path) -> Path:
    """Write `report.html`; returns its path."""
    body = f"<script>{get_plotlyjs()}</script>" + "".join(map(_section, findings))
    return write_text(folder / "report.html", page(_TITLE, _INTRODUCTION, body))


def invariance_table(
    states: Mapping[str, Sequence[LayerInvariance]], measure: Callable[[LayerInvariance, str], float]
) -> list[tuple[str, list[float]]]:
    """A by layer: for each family and state a measure, such as `LayerInvariance.median_score`."""
    lines: dict[str, list[float]] = {}
    for family in _families(states):
        for layers in states.values():
            for layer in layers:
                lines.setdefault(short(layer.layer), []).append(measure(layer, family))
    return list(lines.items())


def agreement_table(states: Mapping[str, Sequence[LayerInvariance]]) -> list[tuple[str, list[float]]]:
    """A by layer: for each state the median probability that two firing images belong to one class."""
    lines: dict[str, list[float]] = {}
    for layers in states.values():
        for layer in layers:
            lines.setdefault(short(layer.layer), []).append(median_of_known(layer.agreement))
    return list(lines.items())


def maximising_set_table(sets: Sequence[MaximisingSet]) -> list[tuple[str, list[float]]]:
    """C by layer: for each of the report's columns the median over the units."""
    layers: dict[str, list[MaximisingSet]] = {}
    for found in sets:
        layers.setdefault(short(found.layer), []).append(found)
    measures: tuple[Callable[[MaximisingSet], float], ...] = (
        lambda found: found.modes,
        lambda found: found.modes_of_best,
        lambda found: found.modes_of_random,
        lambda found: found.relative_modes,
        lambda found: found.barrier,
        lambda found: found.barrier_within,
        lambda found: found.barrier_between,
        MaximisingSet.islands,
        lambda found: median_of_known(found.responses) / found.best_responses[0],
    )
    return [(layer, [median_of_known(map(measure, group)) for measure in measures]) for layer, group in layers.items()]


def _section(found: Findings) -> str:
    parts = [f"<h2>{html.escape(found.name)}</h2><p>{found.images} images.</p>"]
    if found.invariance:
        columns = [f"{family}, {state}" for family in _families(found.invariance) for state in found.invariance]
        parts += ["<h3>A. Invariance by depth</h3>", _plot(invariance_figure(found.invariance))]
        parts += [_plot(firing_figure(layers)) for layers in list(found.invariance.values())[:1]]
        medians = invariance_table(found.invariance, LayerInvariance.median_score)
        parts.append(table("Score, median of the units", columns, medians, 100))
        best = invariance_table(found.invariance, LayerInvariance.top_score)
        parts.append(table("Score, mean of the top fifth of the units", columns, best, 100))
        if next(iter(found.invariance.values()))[0].agreement:
            lines = agreement_table(found.invariance)
            parts.append(table("Two images that fire are of one class (median)", list(found.invariance), lines))
    if found.sufficiency:
        parts += ["<h3>B. Does one picture suffice?</h3>", _plot(sufficiency_figure(found.sufficiency))]
        for state, responses in found.sufficiency.items():
            responses_of = response_quartiles(responses).items()
            caption = f"Response over best response, {state} (median, quartiles)"
            quartiles = [(short(layer), [*values.values()]) for layer, values in responses_of]
            parts.append(table(caption, list(responses[0].responses), quartiles))
    for generator, states in found.sets.items():
        parts += [f"<h3>C. Maximising sets in the codes of {html.escape(generator)}</h3>"]
        parts.append(_plot(maximising_set_figure(states)))
        for state, sets in states.items():
            parts.append(table(f"{state} (medians of the units)", _SET_COLUMNS, maximising_set_table(sets)))
    parts += [f"<h4>{html.escape(name)}</h4>{embedded(picture, name)}" for name, picture in found.pictures.items()]
    return "".join(parts)


def _families(states: Mapping[str, Sequence[LayerInvariance]]) -> list[str]:
    return list(next(iter(states.values()))[0].amounts)


def _plot(figure: go.Figure) -> str:
    text: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return text


_SET_COLUMNS = (
    "modes", "of best images", "of random codes", "over those of best images", "barrier", "within a branch",
    "between branches", "islands", "response over best",
)  # fmt: skip
_TITLE = "Invariant representation"
_INTRODUCTION = """
<p>A unit is invariant to transformations if its response hardly changes under them, while it still distinguishes
contents. Then a whole set of pictures excites it, and a deconvnet without an image must draw one picture for all of
them. Units lie in the middle of the picture, evenly over the channels; the untrained network has the same layers and
fresh weights.</p>
<p><b>A.</b> A unit fires on 1 % of the images. The score is the share of these that still make it fire once shifted,
rotated or scaled, over that 1 %: 100 is full invariance, 1 is chance. Each image is transformed in a random direction.
The probability that two firing images belong to one class shows whether the unit distinguishes contents.
<b>B.</b> The response to one picture of the unit, scaled to the norm of its best image on the pixels it sees, over its
best response to an image. <b>C.</b> Activation maximisation is run many times. Modes: the number of different solutions
(Vendi score of the pixels the unit sees). Barrier: the fall of the response between two of them, along the spherical
interpolation of their codes, as a share of the weaker end; within a branch of the generator, and between two. Islands:
groups connected by barriers of up to 0.1.</p>
"""
