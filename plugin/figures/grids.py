"""Maps in rows and columns, each with its title and its own colour bar."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from .colours import ZERO_MESSAGE, Array
from .maps import signed_map

# Between two columns, as a share of the width.
_GAP = 0.03
# In pixels: a line of a title, a colour bar with its numbers, and the quantity above it.
_LINE, _BAR, _QUANTITY = 19, 38, 20


def map_grid(
    rows: Sequence[Mapping[str, Array]],
    images: Sequence[Sequence[Image.Image | None]] = (),
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    height: int = 380,
    quantities: Sequence[str] = (),
) -> go.Figure:
    """Maps in rows and columns, each on its own scale, with its title and its colour bar above it.

    Args:
        rows: maps `(H, W)` by title, which is HTML of plotly: `<br>` breaks the line.
        images: drawn beneath the maps of each row; None, or an end before the last map or row, leaves them out.
        opacity: of the maps that have an image, 0 to 1.
        clip_percentile: percentile of the magnitudes at which the colours of each map end.
        height: of a row in pixels.
        quantities: the quantity of the values, by column.

    Raises:
        ValueError: there is no map, or one that `signed_map` would refuse.

    >>> import numpy as np
    >>> from plugin import figures
    >>> maps = {name: np.random.randn(8, 8) for name in ("gradient", "relevance")}
    >>> figure = figures.map_grid([maps, maps], quantities=("logit per unit of input", "share of the logit"))
    >>> len(figure.data), figure.layout.height
    (4, 760)
    """
    if not rows or not all(rows):
        raise ValueError("there is no map to draw")
    above = _BAR + bool(quantities) * _QUANTITY
    above += _LINE * max(1 + title.count("<br>") for maps in rows for title in maps)
    figure, number = go.Figure(), 0
    for row, maps in enumerate(rows):
        beneath = [*(images[row] if row < len(images) else ()), *[None] * len(maps)]
        named = [*quantities, *[""] * len(maps)]
        for column, (title, values) in enumerate(maps.items()):
            number += 1
            box = _box(row, column, len(rows), len(maps), above / height)
            drawn = signed_map(
                values, beneath[column], opacity if beneath[column] else 1.0, clip_percentile, quantity=named[column]
            )
            _add(figure, drawn, number, box, title, above)
    return figure.update_layout(height=height * len(rows), margin={"l": 8, "r": 8, "t": 0, "b": 0})


def _box(row: int, column: int, rows: int, columns: int, above: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a map, as shares of the figure; `above` is the share of its row above it."""
    width = (1 - _GAP * (columns - 1)) / columns
    left = column * (width + _GAP)
    return left, left + width, 1 - (row + 1) / rows, 1 - (row + above) / rows


def _add(
    figure: go.Figure, drawn: go.Figure, number: int, box: tuple[float, float, float, float], title: str, above: int
) -> None:
    """Add the figure of one map on axes of its own."""
    left, right, bottom, top = box
    middle, axis = (left + right) / 2, "" if number == 1 else str(number)
    for trace in drawn.data:
        if trace.type == "heatmap":
            # Above the map: below it there is room that depends on the width of the page.
            trace.colorbar.update(x=middle, xanchor="center", len=0.7 * (right - left), y=top, yanchor="bottom", ypad=2)
            trace.colorbar.title.side = "top"
        figure.add_trace(trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}"))
    across, down = drawn.layout.xaxis, drawn.layout.yaxis
    figure.layout[f"xaxis{axis}"] = across.update(domain=(left, right), anchor=f"y{axis}", constraintoward="center")
    figure.layout[f"yaxis{axis}"] = down.update(domain=(bottom, top), anchor=f"x{axis}", scaleanchor=f"x{axis}")
    place = {"x": middle, "xref": "paper", "yref": "paper", "showarrow": False}
    figure.add_annotation(text=title, y=top, yanchor="top", yshift=above, font={"size": 14}, **place)
    if not np.any(drawn.data[-1].z):
        figure.add_annotation(text=ZERO_MESSAGE, y=(bottom + top) / 2, font={"color": "#333", "size": 14},
                              bgcolor="white", bordercolor="#666", borderpad=6, **place)  # fmt: skip
