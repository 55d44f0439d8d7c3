"""Maps as plotly figures, over the photograph if one is given."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from .colours import SIGNED_COLOURS, ZERO_MESSAGE, Array, as_image, chosen_limit, colour_bar_labels, symmetric_limit
from .encoding import checked_opacity, png


def signed_map(
    values: Array,
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    limit: float | None = None,
    title: str = "",
    height: int = 360,
    quantity: str = "",
) -> go.Figure:
    """A zero-centred heatmap, over the photograph if one is given. Hovering shows the values before clipping.

    Args:
        values: `(H, W)`, signed. Values that are not finite are left out.
        image: drawn beneath, stretched over the map.
        opacity: opacity of the map over the image, 0 to 1.
        clip_percentile: percentile of the magnitudes at which the colours end, unless `limit` is given.
        limit: the magnitude of the deepest red and blue, for maps that share a scale.
        title: title above the map.
        height: height of the figure in pixels.
        quantity: the name of the values, for the colour bar.

    Raises:
        ValueError: the map has another shape, or an opacity, percentile or limit is out of range.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.signed_map(np.random.randn(8, 8), title="relevance")
    >>> figure.layout.title.text  # figure.show() opens it
    'relevance'
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"a map is (H, W), this one has shape {values.shape}")
    limit = chosen_limit(values, clip_percentile, limit)
    figure = _canvas(values.shape, image, title, height)
    reached = bool(np.nanmax(np.abs(values), initial=0.0) <= limit)
    figure.add_trace(
        go.Heatmap(
            z=values,
            zmid=0,
            zmin=-(limit or 1.0),
            zmax=limit or 1.0,
            colorscale=SIGNED_COLOURS,
            opacity=checked_opacity(opacity),
            colorbar=_colour_bar(limit, not reached, quantity),
            showscale=limit > 0,
            hoverongaps=False,
            hovertemplate="row %{y}, column %{x}<br><b>%{z:.5g}</b><extra></extra>",
        )
    )
    return _say_if_zero(figure, limit)


def colour_map(
    attribution: Array,
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    limit: float | None = None,
    title: str = "",
    height: int = 360,
) -> go.Figure:
    """`as_image` as a figure; hovering shows the three values before clipping.

    Args:
        attribution: `(3, H, W)`, signed.
        image: drawn beneath, stretched over the map.
        opacity: opacity of the map over the image, 0 to 1.
        clip_percentile: percentile of the magnitudes that becomes full colour, unless `limit` is given.
        limit: the magnitude that becomes full colour.
        title: title above the map.
        height: height of the figure in pixels.

    Raises:
        ValueError: the attribution has another shape, or an opacity, percentile or limit is out of range.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.colour_map(np.random.randn(3, 8, 8), title="guided backprop")
    >>> figure.layout.height
    360
    """
    picture = as_image(attribution, clip_percentile, limit)
    raw = np.asarray(attribution, dtype=np.float32).transpose(1, 2, 0)
    figure = _canvas(picture.shape[:2], image, title, height)
    figure.add_trace(
        go.Image(
            z=picture,
            opacity=checked_opacity(opacity),
            customdata=raw,
            hovertemplate=(
                "row %{y}, column %{x}<br>red <b>%{customdata[0]:.5g}</b>"
                "<br>green <b>%{customdata[1]:.5g}</b><br>blue <b>%{customdata[2]:.5g}</b><extra></extra>"
            ),
        )
    )
    return _say_if_zero(figure, chosen_limit(raw, clip_percentile, limit))


def image_figure(image: Image.Image, title: str = "", height: int = 360) -> go.Figure:
    """A picture alone, framed like the maps beside it.

    Args:
        image: the picture.
        title: title above it.
        height: height of the figure in pixels.

    >>> from plugin import figures, models
    >>> figures.image_figure(models.sample_images()["cat"], title="cat").layout.title.text
    'cat'
    """
    return _canvas((image.height, image.width), image, title, height)


def side_by_side(
    maps: Mapping[str, Array],
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    shared: bool = True,
    height: int = 360,
) -> go.Figure:
    """Several signed maps in one row.

    Args:
        maps: `(H, W)` by name.
        image: drawn beneath each map, stretched over it.
        opacity: opacity of the maps over the image, 0 to 1.
        clip_percentile: percentile of the magnitudes at which the colours end.
        shared: one scale for all maps, instead of one for each.
        height: height of the figure in pixels.

    Raises:
        ValueError: there is no map, or one that `signed_map` would refuse.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.side_by_side({"gradient": np.random.randn(8, 8), "LRP": np.random.randn(8, 8)})
    >>> len(figure.data)
    2
    """
    if not maps:
        raise ValueError("there is no map to draw")
    limit = symmetric_limit(maps.values(), clip_percentile) if shared else None
    figure = make_subplots(rows=1, cols=len(maps), subplot_titles=list(maps), horizontal_spacing=0.03)
    for column, values in enumerate(maps.values(), start=1):
        for trace in signed_map(values, image, opacity, clip_percentile, limit).data:
            # One colour bar serves a shared scale; bars of separate scales would lie over the neighbouring map.
            trace.update(showscale=shared and column == len(maps)) if trace.type == "heatmap" else None
            figure.add_trace(trace, row=1, col=column)
        anchor = "x" if column == 1 else f"x{column}"
        figure.update_yaxes(autorange="reversed", scaleanchor=anchor, visible=False, row=1, col=column)
        figure.update_xaxes(visible=False, constrain="domain", row=1, col=column)
    return figure.update_layout(height=height, margin={"l": 0, "r": 0, "t": 30, "b": 0})


def focused(figure: go.Figure, rows: tuple[int, int], columns: tuple[int, int]) -> go.Figure:
    """The figure of a map, zoomed to some of its pixels. The figure itself is changed and returned.

    Args:
        figure: a figure of one map.
        rows: the first row, and the one after the last.
        columns: the first column, and the one after the last.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.focused(figures.signed_map(np.random.randn(8, 8)), rows=(2, 6), columns=(0, 4))
    >>> figure.layout.xaxis.range
    (-0.5, 3.5)
    """
    figure.update_xaxes(range=[columns[0] - 0.5, columns[1] - 0.5])
    return figure.update_yaxes(range=[rows[1] - 0.5, rows[0] - 0.5])


def _canvas(shape: tuple[int, ...], image: Image.Image | None, title: str, height: int) -> go.Figure:
    """Square pixels, row 0 on top, no axes; the image, if any, is stretched over `shape` = (H, W)."""
    rows, columns = shape
    traces = []
    if image is not None:
        step_x, step_y = columns / image.width, rows / image.height
        source = "data:image/png;base64," + base64.b64encode(png(image.convert("RGB"), level=1)).decode()
        corner = {"x0": step_x / 2 - 0.5, "y0": step_y / 2 - 0.5, "dx": step_x, "dy": step_y}
        traces.append(go.Image(source=source, hoverinfo="skip", **corner))
    # One layout as a whole: updates of an existing figure take several times as long.
    layout = {
        "xaxis": {"visible": False, "constrain": "domain", "constraintoward": "left", "range": [-0.5, columns - 0.5]},
        "yaxis": {
            "visible": False, "constrain": "domain", "constraintoward": "top", "range": [rows - 0.5, -0.5],
            "scaleanchor": "x",
        },
        "title": {"text": title, "x": 0}, "height": height, "margin": {"l": 0, "r": 0, "t": 30 if title else 0, "b": 0},
    }  # fmt: skip
    return go.Figure(traces, layout)


def _colour_bar(limit: float, clipped: bool, quantity: str) -> dict[str, Any]:
    """Three labels; if values were clipped, those at the ends show that they stand for more. The quantity below."""
    return {
        "orientation": "h", "thickness": 8, "outlinewidth": 0, "y": 0, "yanchor": "top", "ypad": 6, "len": 0.84,
        "tickvals": [-limit, 0, limit], "ticktext": colour_bar_labels(limit, clipped), "ticklabeloverflow": "allow",
        "title": {"text": quantity, "side": "bottom", "font": {"size": 12}},
    }  # fmt: skip


def _say_if_zero(figure: go.Figure, limit: float) -> go.Figure:
    if limit == 0:
        figure.add_annotation(
            text=ZERO_MESSAGE, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False,
            bgcolor="white", bordercolor="#666", borderpad=6, font={"color": "#333", "size": 14},
        )  # fmt: skip
    return figure
