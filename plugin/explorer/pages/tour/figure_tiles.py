"""The figures of the guided tour: pure functions of arrays, a few panels wide, so that they fit a phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from plugin import figures

Array = NDArray[Any]

# Heights in pixels: of a panel, by the number of columns, and of the titles above a row.
_PANEL, _TITLE = {2: 250, 3: 190, 4: 150}, 44
# The lines can also be told apart without their colours.
_LINES = (("#2166ac", "solid", "circle"), ("#e69f00", "dash", "square"))


@dataclass(frozen=True)
class FigureTile:
    """One panel.

    Attributes:
        title: HTML of plotly; `<br>` breaks the line.
        values: a signed map `(H, W)`, or a picture `(H, W, 3)` of bytes.
        printed: whether each value of a map is printed on it.
    """

    title: str
    values: Array
    printed: bool = False


def tiles(
    panels: Sequence[FigureTile], columns: int = 2, zoom: tuple[tuple[int, int], tuple[int, int]] | None = None
) -> go.Figure:
    """Panels in rows. Each map has a scale of its own, white at zero.

    Args:
        panels: at least one.
        columns: panels in a row, 2 to 4.
        zoom: the shown rows and columns, each as a start and an end, which is excluded; None shows all.
    """
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[panel.title for panel in panels], horizontal_spacing=0.04,
        vertical_spacing=_TITLE / (rows * (_PANEL[columns] + _TITLE)),
    )  # fmt: skip
    for index, panel in enumerate(panels):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        height, width = panel.values.shape[:2]
        (top, bottom), (left, right) = zoom or ((0, height), (0, width))
        figure.add_trace(_trace(panel), **place)
        figure.update_xaxes(visible=False, constrain="domain", range=[left - 0.5, right - 0.5], **place)
        anchor = "x" if index == 0 else f"x{index + 1}"
        figure.update_yaxes(
            visible=False, constrain="domain", range=[bottom - 0.5, top - 0.5], scaleanchor=anchor, **place
        )
    figure.update_annotations(font_size=13)
    return figure.update_layout(
        height=rows * (_PANEL[columns] + _TITLE),
        margin={"l": 0, "r": 0, "t": _TITLE, "b": 0},
        dragmode=False,
        showlegend=False,
    )


def _trace(panel: FigureTile) -> go.Heatmap | go.Image:
    if panel.values.ndim == 3:
        return go.Image(z=panel.values, hoverinfo="skip")
    limit = figures.symmetric_limit([panel.values], 100 if panel.printed else 99) or 1.0
    printed = {"text": [[f"{v:g}" for v in row] for row in panel.values], "texttemplate": "%{text}"}
    return go.Heatmap(
        z=panel.values, zmid=0, zmin=-limit, zmax=limit, colorscale=figures.SIGNED_COLOURS, showscale=False,
        xgap=2 * panel.printed, ygap=2 * panel.printed,
        hovertemplate="row %{y}, column %{x}: <b>%{z:.4g}</b><extra></extra>",
        **(printed | {"textfont": {"size": 17}} if panel.printed else {}),
    )  # fmt: skip


def lines(layers: Sequence[str], values: Mapping[str, Sequence[float]], label: str) -> go.Figure:
    """A line per state of a network over its layers, told apart by dashes and marks as well as by colour.

    Args:
        layers: names, in order.
        values: by state, one per layer.
        label: of the values.
    """
    figure = go.Figure()
    for (state, numbers), (colour, dash, symbol) in zip(values.items(), _LINES, strict=False):
        figure.add_scatter(
            x=list(layers), y=list(numbers), name=state, mode="lines+markers+text",
            text=[f"{number:.0f}" for number in numbers], textposition="top center",
            line={"color": colour, "dash": dash, "width": 3}, marker={"symbol": symbol, "size": 11},
            hovertemplate=f"{state}, %{{x}}<br><b>%{{y:.3g}}</b><extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title=label, rangemode="tozero", automargin=True, fixedrange=True)
    figure.update_xaxes(automargin=True, fixedrange=True)
    return figure.update_layout(
        height=380, margin={"l": 0, "r": 0, "t": 30, "b": 0}, dragmode=False,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )  # fmt: skip
