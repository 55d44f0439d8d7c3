"""The confusion table as a figure whose cells can be clicked, and as a list."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from ...choices.settings import Settings
from .picture_choice import Confusion

_CELL, _LARGEST, _LONGEST_NAME = 34, 64, 22
_COLOURS = [[0, "#deebf7"], [1, "#2166ac"]]
# Share of the scale up to which black text is easier to read than white.
_DARK_FROM = 0.85


def figure(found: Confusion, class_names: Sequence[str], settings: Settings) -> go.Figure:
    """A row for each label and a column for each prediction; a cell's custom data is its number, row by row.

    Args:
        found: the counts.
        class_names: of the network.
        settings: with the chosen label and prediction; the cells that fit them have a frame.
    """
    count = len(found.classes)
    place = np.arange(count)
    columns, rows = (values.ravel() for values in np.meshgrid(place, place))
    names = [_name(class_names, index) for index in found.classes]
    # Square roots, so that a few errors are seen beside many right answers.
    shades = np.sqrt(found.counts / max(1, found.counts.max(initial=0)))
    colours = go.Heatmap(
        z=np.where(shades > 0, shades, np.nan), colorscale=_COLOURS, zmin=0, zmax=1, showscale=False, hoverinfo="skip",
        xgap=1, ygap=1,
    )  # fmt: skip
    texts = [str(value) if value else "" for value in found.counts.ravel()]
    # Streamlit reports clicks on markers, but none on a heatmap.
    marks = go.Scatter(
        x=columns, y=rows, mode="markers+text", text=texts, customdata=np.arange(count * count),
        hovertext=[
            f"label {names[row]}, prediction {names[column]}: <b>{found.counts[row, column]}</b>"
            for row, column in zip(rows, columns, strict=True)
        ],
        hoverinfo="text", marker={"symbol": "square", "size": _CELL - 4, "color": "rgba(0, 0, 0, 0)"},
        textfont={"color": ["#fff" if shade > _DARK_FROM else "#111" for shade in shades.ravel()]},
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    table = go.Figure([colours, marks])
    for row in place if settings.labelled is not None or settings.predicted is not None else ():
        for column in place:
            if _is_chosen(settings, found.classes[row], found.classes[column]):
                table.add_shape(type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
                                line={"width": 2, "color": "#e69f00"})  # fmt: skip
    axis = {"tickmode": "array", "tickvals": place, "ticktext": names, "fixedrange": True, "range": [-0.5, count - 0.5],
            "showgrid": False, "zeroline": False}  # fmt: skip
    table.update_xaxes(title="Prediction", tickangle=-45, **axis)
    table.update_yaxes(title="Label", **axis | {"range": [count - 0.5, -0.5]})
    height = count * max(_CELL, min(_LARGEST, 320 // max(1, count))) + 150
    return table.update_layout(
        height=height, margin={"l": 10, "r": 10, "t": 10, "b": 10}, showlegend=False, dragmode=False,
        clickmode="event+select", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip


def pairs(found: Confusion, class_names: Sequence[str]) -> list[dict[str, str | int]]:
    """The cells that are not empty, the errors first, then by their number."""
    rows, columns = np.nonzero(found.counts)
    order = sorted(
        zip(rows.tolist(), columns.tolist(), strict=True),
        key=lambda cell: (cell[0] == cell[1], -int(found.counts[cell])),
    )
    return [
        {
            "Label": class_names[found.classes[row]],
            "Prediction": class_names[found.classes[column]],
            "Pictures": int(found.counts[row, column]),
        }
        for row, column in order
    ]


def spoken(found: Confusion, class_names: Sequence[str]) -> str:
    """The table in words."""
    errors = [pair for pair in pairs(found, class_names) if pair["Label"] != pair["Prediction"]][:3]
    told = ", ".join(f"{pair['Label']} taken for {pair['Prediction']}: {pair['Pictures']}" for pair in errors)
    return f"Confusion table of {len(found.classes)} classes. " + (f"Most often {told}" if told else "No errors")


def _is_chosen(settings: Settings, label: int, prediction: int) -> bool:
    return settings.labelled in (None, label) and settings.predicted in (None, prediction)


def _name(class_names: Sequence[str], index: int) -> str:
    name = class_names[index]
    return escape(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…", quote=False)
