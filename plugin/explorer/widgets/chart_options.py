"""The behaviour of plotly's charts on a page: their buttons, the effect of a drag, and the colour of their letters."""

from typing import Any

import plotly.graph_objects as go
from streamlit.elements.lib.streamlit_plotly_theme import GRAY_90  # the page puts its own colour in this one's place

from ..server.connection import comes_from_a_phone

# Maps have files of ours, and can be zoomed. Two clicks show all of a map again: "reset", since plotly's other ways to
# do so squeeze one of several maps that are linked.
MAP: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d", "select2d", "lasso2d"],
    "doubleClick": "reset",
}
# Charts that are no maps have no file of ours: their one button saves them as PNG.
SAVED: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
# Squares and bars are clicked, and have nothing to zoom.
CLICKED: dict[str, Any] = {"displayModeBar": False}

# In pixels: the buttons at the top right; one of them, and below it a legend, which has two lines in a narrow column.
_BUTTONS, _BUTTON_AND_LEGEND = 32, 73


def on_page(figure: go.Figure) -> go.Figure:
    """The figure, changed: a swipe on it scrolls the page, and its letters are as dark as others.

    Plotly would take every drag for a zoom, and a phone shows little beside a map; charts that can be zoomed have a
    button for it. Charts that can be clicked take the swipe all the same: Streamlit gives them a mode of dragging.
    A legend above a chart has room below the button.
    """
    font = {"color": GRAY_90}
    figure.update_layout(dragmode=False, font=font, hoverlabel_font=font)
    if figure.layout.legend.yanchor == "bottom":  # it stands above the chart, of one trace there is none
        figure.update_layout(margin={"t": _BUTTON_AND_LEGEND if len(figure.data) > 1 else _BUTTONS})
    for axis in (*figure.select_xaxes({"visible": None}), *figure.select_yaxes({"visible": None})):
        axis.update(tickfont=font, title_font=font)
    return figure


def map_on_page(figure: go.Figure) -> go.Figure:
    """The same for a map: on a phone, which always shows the buttons, they have room above it."""
    if comes_from_a_phone():
        margin, height = figure.layout.margin, figure.layout.height
        figure.update_layout(height=height + _BUTTONS, margin={"t": margin.t + _BUTTONS})
    return on_page(figure)
