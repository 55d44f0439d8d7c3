"""The findings of `plugin.experiments.invariance` as plotly figures and pictures, for the report and the explorer.

Every function is pure. The first state of a network (trained) has solid lines, the second dotted ones.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from torch import Tensor

from ...statistics import median_of_known, quartiles
from ..units import OUTPUT
from .firing import LayerInvariance
from .maximising_set import MaximisingSet
from .sufficiency import PictureResponse
from .transformations import UNITS

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_DASHES = ("solid", "dot", "dash")
_NAMES = {"no image": "deconvnet, no image"}
_BARRIERS: tuple[tuple[str, str, Callable[[MaximisingSet], float]], ...] = (
    ("barrier", _COLOURS[2], lambda found: found.barrier),
    ("within a branch of the generator", _COLOURS[3], lambda found: found.barrier_within),
)
_MARGIN = {"l": 60, "r": 10, "t": 40, "b": 10}


def short(layer: str) -> str:
    """The last part of a layer's name, or "output"."""
    return "output" if layer == OUTPUT else layer.rpartition(".")[2]


def invariance_figure(states: Mapping[str, Sequence[LayerInvariance]]) -> go.Figure:
    """A: by layer the median score for each family, and of the agreement if there are labels, with the quartiles as a
    band; a line per state of the network.
    """
    first = next(iter(states.values()))[0]
    families = list(first.amounts)
    titles = [*families, "class agreement"] if first.agreement else families
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.06)
    for (state, layers), colour, dash in zip(states.items(), _COLOURS, _DASHES, strict=False):
        known = [layer for layer in layers if layer.channels]
        for column, title in enumerate(titles, start=1):
            values = [layer.scores(title) if title in layer.amounts else layer.agreement for layer in known]
            bands = np.array([quartiles(units) for units in values]).T
            _line_with_band(figure, [short(layer.layer) for layer in known], bands, state, colour, dash, column)
    figure.update_yaxes(title="local over global firing rate", col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.2})
    return _finished(figure, 400)


def firing_figure(layers: Sequence[LayerInvariance]) -> go.Figure:
    """A: for each family, the share of firing units that still fire, by amount of transformation; a line per layer.

    The grey line is the rate on all images, for the layer with the largest deviation from the global rate.
    """
    families = list(layers[0].amounts)
    figure = make_subplots(rows=1, cols=len(families), subplot_titles=families, shared_yaxes=True)
    known = [layer for layer in layers if layer.channels]
    colours = sample_colorscale("Viridis", np.linspace(0, 0.9, len(known)).tolist())
    for column, family in enumerate(families, start=1):
        for layer, colour in zip(known, colours, strict=True):
            figure.add_trace(
                go.Scatter(
                    x=layer.amounts[family], y=layer.rate_at(family), mode="lines+markers", line_color=colour,
                    name=short(layer.layer), legendgroup=layer.layer, showlegend=column == 1,
                ),
                row=1, col=column,
            )  # fmt: skip
        strays = max(known, key=lambda layer: max(abs(rate - layer.rate) for rate in layer.rate_at(family, True)))
        figure.add_trace(
            go.Scatter(
                x=strays.amounts[family], y=strays.rate_at(family, overall=True), mode="lines", line_color="#888",
                name="on all images", legendgroup="all", showlegend=column == 1,
                hovertemplate=f"{short(strays.layer)}, all images<br>%{{y:.3f}}<extra></extra>",
            ),
            row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(title=UNITS[family], tickvals=known[0].amounts[family], type="log", row=1, col=column)
    figure.update_yaxes(title="firing rate", col=1)
    figure.update_yaxes(range=[0, 1])
    figure.update_layout(legend={"font": {"size": 11}, "tracegroupgap": 0})
    return _finished(figure, 400)


def sufficiency_figure(states: Mapping[str, Sequence[PictureResponse]]) -> go.Figure:
    """B: by layer the median response to a picture of the unit over its best response, a line per method and state."""
    figure = go.Figure()
    figure.add_hline(1, line={"color": "#888", "width": 1})
    for (state, responses), dash in zip(states.items(), _DASHES, strict=False):
        layers = list(dict.fromkeys(response.layer for response in responses))
        for method, colour in zip(responses[0].responses, _COLOURS, strict=False):
            values = [[unit.responses[method] for unit in responses if unit.layer == layer] for layer in layers]
            figure.add_trace(
                go.Scatter(
                    x=[short(layer) for layer in layers], y=[statistics.median(units) for units in values],
                    mode="lines+markers", line={"color": colour, "dash": dash},
                    name=f"{_NAMES.get(method, method)}, {state}",
                )
            )  # fmt: skip
    figure.update_yaxes(title="response over best response", zeroline=True, zerolinecolor="#444")
    return _finished(figure, 420)


def maximising_set_figure(states: Mapping[str, Sequence[MaximisingSet]]) -> go.Figure:
    """C: by layer modes and barriers, a point per unit and a line through the medians; and for the first state the
    response along the paths, over that of the weaker end.
    """
    titles = ("modes (Vendi score)", "barrier between two", f"along the path, {next(iter(states))}")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles)
    for index, ((state, sets), dash) in enumerate(zip(states.items(), _DASHES, strict=False)):
        layers = list(dict.fromkeys(found.layer for found in sets))
        groups = [[found for found in sets if found.layer == layer] for layer in layers]
        for name, colour, measure in (
            ("solutions", _COLOURS[0], lambda found: found.modes),
            ("best images", _COLOURS[1], lambda found: found.modes_of_best),
            ("random codes", _COLOURS[4], lambda found: found.modes_of_random),
        ):
            _by_layer(figure, groups, measure, f"{name}, {state}", colour, dash, 1)
        in_branches = any(found.branches for found in sets)
        for name, colour, measure in _BARRIERS if in_branches else _BARRIERS[:1]:
            _by_layer(figure, groups, measure, f"{name}, {state}", colour, dash, 2)
        colours = sample_colorscale("Viridis", np.linspace(0.25, 0.85, len(groups)).tolist())
        for group, colour in zip(groups if index == 0 else (), colours, strict=False):
            profiles = np.array([found.profile for found in group if found.profile])
            if len(profiles):
                figure.add_trace(
                    go.Scatter(
                        x=np.linspace(0, 1, profiles.shape[1]), y=np.median(profiles, axis=0), mode="lines",
                        line_color=colour, name=f"{short(group[0].layer)}, {state}",
                    ),
                    row=1, col=3,
                )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return _finished(figure, 420)


def draw_solutions(
    sets: Sequence[MaximisingSet], generate: Callable[[list[list[float]]], Tensor], count: int = 12
) -> Image.Image:
    """One row per unit: its first solutions, then the path between the two solutions with the highest barrier.

    Args:
        sets: sets of the units of a layer.
        generate: from codes to images `(n, C, H, W)` in [0, 1].
        count: the number of solutions, and of points of the path.
    """
    tile, gap, margin, header = 56, 3, 78, 20
    left_of_path = margin + count * (tile + gap) + 18
    sheet = Image.new("RGB", (left_of_path + count * (tile + gap), header + len(sets) * (tile + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    draw.text((margin, 3), "solutions", fill="#222", font=font)
    draw.text((left_of_path, 3), "path over the highest barrier", fill="#222", font=font)
    for row, found in enumerate(sets):
        top = header + row * (tile + gap)
        label = f"{short(found.layer)} {found.unit[0]}" + (f"\n{max(found.barriers):.2f}" if found.barriers else "")
        draw.text((3, top + 12), label, fill="#222", font=font)
        for codes, left in ((found.codes[:count], margin), (found.path_over_the_highest_barrier(count), left_of_path)):
            for column, image in enumerate(generate(codes) if codes else ()):
                sheet.paste(_tile(image, tile), (left + column * (tile + gap), top))
    return sheet


def _tile(image: Tensor, side: int) -> Image.Image:
    pixels = np.rint(255 * image.clamp(0, 1).numpy()).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    return picture.resize((side, side), Image.Resampling.NEAREST)


def _by_layer(
    figure: go.Figure,
    groups: Sequence[Sequence[MaximisingSet]],
    measure: Callable[[MaximisingSet], float],
    name: str,
    colour: str,
    dash: str,
    column: int,
) -> None:
    layers = [short(group[0].layer) for group in groups]
    medians = [median_of_known(measure(found) for found in group) for group in groups]
    figure.add_trace(
        go.Scatter(x=layers, y=medians, mode="lines", name=name, line={"color": colour, "dash": dash}),
        row=1, col=column,
    )  # fmt: skip
    points = [(layer, measure(found)) for layer, group in zip(layers, groups, strict=True) for found in group]
    figure.add_trace(
        go.Scatter(
            x=[layer for layer, _ in points], y=[value for _, value in points], mode="markers",
            marker={"color": colour, "opacity": 0.5, "symbol": "circle" if dash == "solid" else "circle-open"},
            showlegend=False,
        ),
        row=1, col=column,
    )  # fmt: skip


def _line_with_band(
    figure: go.Figure, layers: list[str], quartiles: np.ndarray, name: str, colour: str, dash: str, column: int
) -> None:
    low, middle, high = quartiles
    shade = f"rgba({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:], 16)}, 0.15)"
    band = go.Scatter(
        x=[*layers, *layers[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=shade, line={"width": 0},
        mode="lines", hoverinfo="skip", showlegend=False, legendgroup=name,
    )  # fmt: skip
    line = go.Scatter(
        x=layers, y=middle, mode="lines+markers", line={"color": colour, "dash": dash},
        name=name, legendgroup=name, showlegend=column == 1,
    )  # fmt: skip
    for trace in (band, line):
        figure.add_trace(trace, row=1, col=column)


def _finished(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(height=height, margin=_MARGIN, template="plotly_white", hovermode="closest")
