"""Views of the Invariance page's findings: figures, sentences and files."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from plugin import figures
from plugin.experiments.invariance import LayerInvariance, MaximisingSet, PictureResponse, median_responses
from plugin.experiments.invariance import figures as drawn

from ...maps.rendering import versions
from .figure_findings import FigureFindings

_METHODS = {"no image": "the deconvnet without an image", "guided": "guided backprop", "gradient": "the gradient"}


def figure(findings: FigureFindings) -> go.Figure:
    """The figure of the findings."""
    draw: dict[str, Callable[..., go.Figure]] = {
        "A": drawn.invariance_figure,
        "B": drawn.sufficiency_figure,
        "C": drawn.maximising_set_figure,
    }
    # The page has a theme, light or dark.
    return draw[findings.question.figure](findings.states).update_layout(template=None)


def panels(findings: FigureFindings) -> list[go.Figure]:
    """A figure for each panel of it; a page puts them side by side or, on a phone, below each other."""
    whole = figure(findings)
    titles = [annotation.text for annotation in whole.layout.annotations]
    if not titles:
        return [_panel(whole, "", 480)]
    return [
        _panel(go.Figure([_alone(trace) for trace in whole.data if (trace.xaxis or "x") == axis]), title, 360)
        for axis, title in zip(["x", *(f"x{index}" for index in range(2, len(titles) + 1))], titles, strict=True)
    ]


def _alone(trace: Any) -> Any:
    """A trace of a panel on the axes of a figure of its own, with an entry in its legend if it has a name."""
    return type(trace)(trace).update(xaxis="x", yaxis="y", showlegend=bool(trace.name))


def _panel(panel: go.Figure, title: str, height: int) -> go.Figure:
    if title:
        panel.update_yaxes(rangemode="tozero")
    return panel.update_layout(
        title={"text": title, "font": {"size": 14}}, height=height, template=None,
        margin={"l": 0, "r": 0, "t": 36 if title else 0, "b": 0},
        legend={"orientation": "h", "x": 0, "y": -0.15, "yanchor": "top"},
    )  # fmt: skip


def statement(findings: FigureFindings) -> str:
    """The figure in words, as sentences of plain text."""
    say: dict[str, Callable[[str, Any], str]] = {"A": _firing, "B": _pictures, "C": _sets}
    parts = [say[findings.question.figure](state, found) for state, found in findings.states.items()]
    return " ".join([*parts, _chosen(findings)]).strip()


def _firing(state: str, layers: Sequence[LayerInvariance]) -> str:
    known = [layer for layer in layers if layer.channels]
    if not known:
        return f"{state.capitalize()}: no unit fires."
    ends = []
    for layer in (known[0], known[-1]):
        rates = {family: layer.median_score(family) * layer.rate for family in layer.amounts}
        ends.append(f"{drawn.short(layer.layer)} " + ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items()))
    return (
        f"{state.capitalize()}, the median unit that fires still does on this share of the moved images: "
        f"{'; '.join(ends)}; chance is {known[0].rate:.0%}."
    )


def _pictures(state: str, responses: Sequence[PictureResponse]) -> str:
    medians = median_responses(responses)
    names = list(medians)
    first, last = names[0], names[-1]
    values = [
        f"{_METHODS.get(method, method)} {medians[first][method]:.2f} and {medians[last][method]:.2f}"
        for method in medians[first]
    ]
    return (
        f"{state.capitalize()}, the median response over the best one in {drawn.short(first)} and in "
        f"{drawn.short(last)}: {', '.join(values)}."
    )


def _sets(state: str, sets: Sequence[MaximisingSet]) -> str:
    parts = [
        f"{drawn.short(found.layer)} {found.unit[0]}: {len(found.codes)} of {found.runs} runs, {found.modes:.1f} modes"
        f" (best images {found.modes_of_best:.1f}), {_barriers(found)}"
        for found in sets
    ]
    return f"{state.capitalize()}, solutions of one unit per layer: {'; '.join(parts)}."


def _barriers(found: MaximisingSet) -> str:
    if not found.branches:
        return f"barrier {found.barrier:.2f}"
    kinds = {"within a branch": found.barrier_within, "between branches": found.barrier_between}
    known = [f"{value:.2f} {name}" for name, value in kinds.items() if not math.isnan(value)]
    return f"barrier {' and '.join(known) or 'unknown'}"


def _chosen(findings: FigureFindings) -> str:
    """A sentence on the chosen unit, where it was measured."""
    question = findings.question
    unit = f"The chosen unit, {drawn.short(question.layer)} {question.channel}:"
    if question.figure == "B" and findings.chosen is not None:
        values = findings.chosen.responses.items()
        return f"{unit} " + ", ".join(f"{_METHODS.get(name, name)} {value:.2f}" for name, value in values) + "."
    if question.figure == "A":
        for layer in findings.states.get("trained", ()):
            if layer.layer == question.layer and question.channel in layer.channels:
                place = layer.channels.index(question.channel)
                rates = {family: statistics.fmean(rates[place]) for family, rates in layer.local.items()}
                return f"{unit} " + ", ".join(f"{family} {rate:.0%}" for family, rate in rates.items()) + "."
    return ""


def npz(findings: FigureFindings) -> bytes:
    """An NPZ file with the numbers behind the figure, by state, layer and measure; settings and versions."""
    arrays: dict[str, NDArray[Any]] = {}
    for state, found in findings.states.items():
        if findings.question.figure == "B":
            arrays |= _response_arrays(state, found)
            continue
        for result in found:
            layer = f"{state}.{result.layer or 'output'}"
            arrays |= _firing_arrays(layer, result) if findings.question.figure == "A" else _set_arrays(layer, result)
    recorded = asdict(findings.question) | {"seconds": findings.seconds, "peak_bytes": findings.peak_bytes}
    return figures.to_npz(arrays, recorded, versions())


def _firing_arrays(name: str, layer: LayerInvariance) -> dict[str, NDArray[Any]]:
    """Firing rates `(units, amounts)` on the images that make a unit fire, and on all."""
    arrays = {f"{name}.channels": np.array(layer.channels)}
    for family in layer.amounts:
        arrays[f"{name}.{family}.local"] = np.array(layer.local[family])
        arrays[f"{name}.{family}.overall"] = np.array(layer.overall[family])
    return arrays


def _response_arrays(state: str, responses: Sequence[PictureResponse]) -> dict[str, NDArray[Any]]:
    """Responses over the best `(units,)` by layer and method."""
    arrays = {}
    for layer in dict.fromkeys(response.layer for response in responses):
        units = [response for response in responses if response.layer == layer]
        name = f"{state}.{layer or 'output'}"
        arrays[f"{name}.channels"] = np.array([unit.unit[0] for unit in units])
        for method in units[0].responses:
            arrays[f"{name}.{method}"] = np.array([unit.responses[method] for unit in units])
    return arrays


def _set_arrays(name: str, found: MaximisingSet) -> dict[str, NDArray[Any]]:
    """A unit's codes `(solutions, d)`, their responses and branches, the barriers of their pairs, the median path."""
    measures = ("codes", "responses", "best_responses", "barriers", "branches", "profile", "modes", "modes_of_best")
    return {f"{name}.{found.unit[0]}.{measure}": np.array(getattr(found, measure)) for measure in measures}
