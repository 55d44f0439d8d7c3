"""A sheet to draw a digit on: with the mouse or a finger as strokes, with the keyboard as cells of a table."""

from functools import partial

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from ..inputs import drawn_digit
from ..server.kept_files import digest
from .callbacks import uninterrupted
from .page_state import change, key

_WIDTH = 336


def draw(text: str) -> None:
    """The sheet with its drawing, a text of `drawn_digit.encode`."""
    # A new name for each state of the sheet forgets the last stroke, which is in the drawing now.
    state = digest(text.encode())[:12]
    strokes, cells = st.columns([1, 1])
    with strokes:
        st.caption("Draw with the mouse or a finger, stroke by stroke")
        sheet = key(f"sheet.{state}")
        st.plotly_chart(
            figure(text), width="content", theme=None, key=sheet, selection_mode=("lasso",),
            on_select=partial(_add_strokes, text, sheet), config={"displayModeBar": False},
            alt="A sheet to draw on; the table beside it does the same with the keyboard",
        )  # fmt: skip
        st.button("Clear the sheet", on_click=_clear, disabled=not text)
    with cells:
        st.caption("Or with the keyboard: arrow keys, then Enter or Space to fill a cell")
        table = key(f"cells.{state}")
        filled = drawn_digit.to_cells(drawn_digit.decode(text))
        names = [str(column + 1) for column in range(drawn_digit.CELLS)]
        st.data_editor(
            [dict(zip(names, map(bool, row), strict=True)) for row in filled],
            width="content", hide_index=True, row_height=24, key=table,
            on_change=_change_cells, args=(text, table),
            column_config={name: st.column_config.CheckboxColumn(name, width=28) for name in names},
            alt="The drawing as a table of cells that are filled or empty",
        )  # fmt: skip
    if not text:
        st.info("The sheet is empty: draw a digit.")


def figure(text: str) -> go.Figure:
    """The sheet as a chart with a lasso, whose path is the stroke of the pen; the surrounded pixels do not matter."""
    grey = np.asarray(drawn_digit.picture(text))[..., 0].ravel()
    index = np.arange(grey.size)
    pixels = go.Scatter(
        x=index % drawn_digit.SIDE, y=index // drawn_digit.SIDE, mode="markers", hoverinfo="none",
        marker={"symbol": "square", "size": _WIDTH / drawn_digit.SIDE, "color": grey, "colorscale": "gray", "cmin": 0,
                "cmax": 255},
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    sheet = go.Figure(pixels)
    sheet.update_xaxes(visible=False, fixedrange=True, range=[-0.5, drawn_digit.SIDE - 0.5])
    sheet.update_yaxes(visible=False, fixedrange=True, range=[drawn_digit.SIDE - 0.5, -0.5])
    return sheet.update_layout(
        width=_WIDTH, height=_WIDTH, margin={"l": 0, "r": 0, "t": 0, "b": 0}, dragmode="lasso", plot_bgcolor="black",
        newselection={"line": {"color": "#e69f00", "width": 4, "dash": "solid"}},
    )  # fmt: skip


@uninterrupted
def _clear() -> None:
    """Callback: draw nothing."""
    change(drawing="")


@uninterrupted
def _add_strokes(text: str, sheet: str) -> None:
    ink = drawn_digit.decode(text)
    for stroke in st.session_state[sheet].selection.lasso:
        ink = drawn_digit.with_stroke(ink, stroke["x"], stroke["y"])
    change(drawing=drawn_digit.encode(ink))


@uninterrupted
def _change_cells(text: str, table: str) -> None:
    edited = st.session_state[table]["edited_rows"]
    changes = [(int(row), int(name) - 1, bool(on)) for row, cells in edited.items() for name, on in cells.items()]
    change(drawing=drawn_digit.encode(drawn_digit.with_cells(drawn_digit.decode(text), changes)))
