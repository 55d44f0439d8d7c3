"""Figures of attributions: plotly for looking, Pillow for PNG, NPZ for the numbers.

Every function is pure: NumPy arrays and Pillow images in, a figure or bytes out. A signed map is always drawn with
white at zero, red for positive and blue for negative (the colour-blind-safe scale RdBu), and limits that are symmetric,
so that the same shade means the same magnitude on both sides.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import diverging, unlabel_rgb
from plotly.subplots import make_subplots

Array = NDArray[Any]

SIGNED_COLOURS: list[str] = list(diverging.RdBu_r)
ZERO_MESSAGE = "zero everywhere"
_BAR, _CHOSEN_BAR = "#b8c1cc", "#2166ac"
# Seen on white and on black.
_MARK, _RUN = "#7a7a7a", "#4a90d9"
# Told apart by people who confuse red and green, and none of them the red and blue that stand for signs.
_PART_COLOURS = ("#b8c1cc", "#e69f00", "#5e3c99")
# For those who see no colours: what is hatched is not what is plain.
_PART_PATTERNS = ("", "/", "x")
# The ends between which `reduce_channels` clips a sum.
_PARTS: dict[str | int, tuple[float | None, float | None]] = {
    "sum": (None, None), "positive": (0, None), "negative": (None, 0),
}  # fmt: skip


def reduce_channels(attribution: Array, how: str | int = "sum") -> Array:
    """One signed value per pixel.

    Args:
        attribution: `(C, H, W)`.
        how: "sum" over the channels; of this sum the "positive" or the "negative" part, which can be told apart
            without their colours; or the index of one channel.

    Returns:
        `(H, W)`.

    Raises:
        ValueError: another shape, or no such channel or reduction.
    """
    values = np.asarray(attribution)
    if values.ndim != 3:
        raise ValueError(f"an attribution is (C, H, W), this one has shape {values.shape}")
    if how in _PARTS:
        return np.asarray(values.sum(axis=0).clip(*_PARTS[how]))
    if isinstance(how, int) and 0 <= how < values.shape[0]:
        return np.asarray(values[how])
    names = ", ".join(map(repr, _PARTS))
    raise ValueError(f"channels are reduced by {names} or an index from 0 to {values.shape[0] - 1}, not by {how!r}")


def symmetric_limit(maps: Iterable[Array], percentile: float = 99.0) -> float:
    """The magnitude at which the colours of maps that share one scale end.

    Args:
        maps: arrays of any shape; values that are not finite are passed over.
        percentile: of the magnitudes of all maps together, in (0, 100]. A map that is zero almost everywhere may have
            this percentile at zero: then it is the largest magnitude instead.

    Returns:
        The limit, > 0; or 0.0 where all maps are wholly zero.

    Raises:
        ValueError: the percentile is out of range.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"the percentile lies above 0 and at most at 100, not at {percentile}")
    flat = [np.abs(np.asarray(values, dtype=np.float64)).ravel() for values in maps]
    magnitudes = np.concatenate(flat) if flat else np.zeros(0)
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    if not magnitudes.size:
        return 0.0
    return float(np.percentile(magnitudes, percentile)) or float(magnitudes.max())


def signed_map(
    values: Array,
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    limit: float | None = None,
    title: str = "",
    height: int = 360,
) -> go.Figure:
    """A zero-centred heatmap, over the photograph if one is given. Hovering shows the values as they are, not clipped.

    Args:
        values: `(H, W)`, signed. Values that are not finite are left out.
        image: drawn beneath, stretched over the map.
        opacity: of the map over the image, 0 to 1.
        clip_percentile: where the colours end, unless `limit` says it.
        limit: the magnitude of the deepest red and blue, for maps that share a scale.
        title: above the map.
        height: of the figure in pixels.

    Raises:
        ValueError: another shape, or an opacity, percentile or limit out of range.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"a map is (H, W), this one has shape {values.shape}")
    limit = _chosen_limit(values, clip_percentile, limit)
    figure = _canvas(values.shape, image, title, height)
    reached = bool(np.nanmax(np.abs(values), initial=0.0) <= limit)
    figure.add_trace(
        go.Heatmap(
            z=values,
            zmid=0,
            zmin=-(limit or 1.0),
            zmax=limit or 1.0,
            colorscale=SIGNED_COLOURS,
            opacity=_checked_opacity(opacity),
            colorbar=_colour_bar(limit, clipped=not reached),
            showscale=limit > 0,
            hoverongaps=False,
            hovertemplate="row %{y}, column %{x}<br><b>%{z:.5g}</b><extra></extra>",
        )
    )
    return _say_if_zero(figure, limit)


def as_image(attribution: Array, clip_percentile: float = 99.0, limit: float | None = None) -> NDArray[np.uint8]:
    """An attribution of the three colour channels as a picture, as papers print guided backprop: grey where it is zero.

    Args:
        attribution: `(3, H, W)`, signed.
        clip_percentile: the percentile of the magnitudes that becomes full colour, unless `limit` says it.
        limit: the magnitude that becomes full colour.

    Returns:
        `(H, W, 3)`; 128 stands for zero.

    Raises:
        ValueError: another shape, or a percentile or limit out of range.
    """
    values = np.asarray(attribution, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] != 3:
        raise ValueError(f"a colour picture needs an attribution (3, H, W), this one has shape {values.shape}")
    limit = _chosen_limit(values, clip_percentile, limit)
    scaled = np.nan_to_num(values) / (limit or 1.0)
    return np.rint(128 + 127 * np.clip(scaled, -1, 1)).astype(np.uint8).transpose(1, 2, 0)


def colour_map(
    attribution: Array,
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    limit: float | None = None,
    title: str = "",
    height: int = 360,
) -> go.Figure:
    """`as_image` as a figure; hovering shows the three values as they are. The arguments are those of `signed_map`.

    Args:
        attribution: `(3, H, W)`, signed.

    Raises:
        ValueError: another shape, or an opacity, percentile or limit out of range.
    """
    picture = as_image(attribution, clip_percentile, limit)
    raw = np.asarray(attribution, dtype=np.float32).transpose(1, 2, 0)
    figure = _canvas(picture.shape[:2], image, title, height)
    figure.add_trace(
        go.Image(
            z=picture,
            opacity=_checked_opacity(opacity),
            customdata=raw,
            hovertemplate=(
                "row %{y}, column %{x}<br>red <b>%{customdata[0]:.5g}</b>"
                "<br>green <b>%{customdata[1]:.5g}</b><br>blue <b>%{customdata[2]:.5g}</b><extra></extra>"
            ),
        )
    )
    return _say_if_zero(figure, _chosen_limit(raw, clip_percentile, limit))


def image_figure(image: Image.Image, title: str = "", height: int = 360) -> go.Figure:
    """A picture alone, framed like the maps that stand beside it."""
    return _canvas((image.height, image.width), image, title, height)


def side_by_side(
    maps: Mapping[str, Array],
    image: Image.Image | None = None,
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    shared: bool = True,
    height: int = 360,
) -> go.Figure:
    """Several signed maps `(H, W)` in one row, named by their keys, on one scale unless `shared` is false.

    Raises:
        ValueError: no map, or one that `signed_map` would refuse.
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
    """The figure of a map with its axes set to rows and columns from the first up to, without, the second of a pair."""
    figure.update_xaxes(range=[columns[0] - 0.5, columns[1] - 0.5])
    return figure.update_yaxes(range=[rows[1] - 0.5, rows[0] - 0.5])


def unit_squares(
    values: Array, names: Sequence[str], columns: int, chosen: int | None = None, width: int = 480
) -> go.Figure:
    """Units as squares in rows, coloured by their signed values, that can be clicked: a square's custom data is its
    index. The chosen one wears a dot.

    Args:
        values: `(n,)`.
        names: of the units, shown with the values while hovering.
        columns: squares in a row.
        chosen: the index of the unit that is explained.
        width: of the figure in pixels.

    Raises:
        ValueError: as many names as values are needed, and at least one.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(names) or not len(values):
        raise ValueError(f"{len(names)} units need as many values, not an array of shape {values.shape}")
    limit = symmetric_limit([values], 100) or 1.0
    index = np.arange(len(values))
    rows, step = -(-len(values) // columns), width / columns
    squares = go.Scatter(
        x=index % columns,
        y=index // columns,
        mode="markers",
        customdata=index,
        text=list(names),
        hovertemplate="%{text}<br>response <b>%{marker.color:.4g}</b><extra></extra>",
        marker={
            "symbol": "square", "size": max(2.0, 0.86 * step), "color": values, "colorscale": SIGNED_COLOURS,
            "cmid": 0, "cmin": -limit, "cmax": limit, "line": {"width": 0.5, "color": "#888"},
        },
        # A chart that remembers a click would fade the squares that were not clicked.
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    figure = go.Figure(squares)
    if chosen is not None and 0 <= chosen < len(values):
        # Seen on every shade: white in the middle of a dark rim.
        dot = {"size": max(6.0, 0.5 * step), "color": "white", "line": {"width": 2, "color": "#111"}}
        figure.add_scatter(x=[chosen % columns], y=[chosen // columns], mode="markers", marker=dot, hoverinfo="skip")
    figure.update_xaxes(visible=False, fixedrange=True, range=[-0.5, columns - 0.5])
    figure.update_yaxes(visible=False, fixedrange=True, range=[rows - 0.5, -0.5])
    return figure.update_layout(
        width=width, height=max(40, round(rows * step)), margin={"l": 0, "r": 0, "t": 0, "b": 0}, showlegend=False,
        dragmode=False, clickmode="event+select", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip


def top_k_bars(
    probabilities: Array,
    class_names: Sequence[str],
    k: int = 5,
    chosen: int | None = None,
    height: int = 220,
) -> go.Figure:
    """The most probable classes as horizontal bars, the first on top; each bar's custom data is its class index.

    Args:
        probabilities: `(classes,)`, 0 to 1.
        class_names: may be shorter than that: the other classes are shown by their index.
        k: how many bars.
        chosen: the class drawn in another colour, with a mark before its name; added as a last bar where it is not
            among the first k.
        height: of the figure in pixels.
    """
    probabilities = np.asarray(probabilities)
    order = [int(index) for index in np.argsort(-probabilities, kind="stable")[:k]]
    if chosen is not None and chosen not in order and 0 <= chosen < len(probabilities):
        order.append(chosen)
    names = [class_names[index] if index < len(class_names) else f"class {index}" for index in order]
    names = [f"▸ {name}" if index == chosen else name for index, name in zip(order, names, strict=True)]
    shares = [float(probabilities[index]) for index in order]
    # Positions, not names, on the axis: two classes of ImageNet may share a name and would share a bar.
    positions = list(range(len(order)))
    bars = go.Bar(
        x=shares,
        y=positions,
        orientation="h",
        customdata=order,
        text=[f"{share:.1%}" for share in shares],
        textposition="outside",
        cliponaxis=False,
        marker_color=[_CHOSEN_BAR if index == chosen else _BAR for index in order],
        hovertemplate="%{text}<extra></extra>",
    )
    # One layout as a whole: updates of a figure that exists take several times as long.
    layout = {
        "xaxis": {"visible": False, "range": [0, 1.15], "fixedrange": True},
        "yaxis": {
            "tickvals": positions, "ticktext": names, "autorange": "reversed", "automargin": True, "fixedrange": True,
        },
        "height": height, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "bargap": 0.25, "showlegend": False,
        "dragmode": False,
    }  # fmt: skip
    return go.Figure(bars, layout)


def ledger_bars(
    layers: Sequence[str],
    left: Sequence[float],
    to_bias: Sequence[float],
    to_stabiliser: Sequence[float],
    height: int | None = None,
) -> go.Figure:
    """Where relevance went in each layer: a stacked bar per layer, in the order given, the first on top.

    The three parts of a layer sum to the relevance that entered it from above, which a short line marks. Parts of
    opposite sign are stacked on opposite sides of zero.

    Args:
        layers: names, from the output to the input; a name may occur twice.
        left: the relevance that each layer passed on below, in units of the output.
        to_bias: what its bias absorbed.
        to_stabiliser: what its stabiliser absorbed.
        height: of the figure in pixels; by default it grows with the number of layers.

    Raises:
        ValueError: the four are not of one length.
    """
    parts = {"left below": left, "to bias": to_bias, "to stabiliser": to_stabiliser}
    if any(len(values) != len(layers) for values in parts.values()):
        raise ValueError(f"{len(layers)} layers need as many numbers, not {[len(v) for v in parts.values()]}")
    positions = list(range(len(layers)))
    figure = go.Figure()
    for (name, values), colour, pattern in zip(parts.items(), _PART_COLOURS, _PART_PATTERNS, strict=True):
        figure.add_trace(
            go.Bar(
                x=list(values),
                y=positions,
                name=name,
                orientation="h",
                marker={"color": colour, "pattern": {"shape": pattern, "size": 6, "solidity": 0.3}},
                customdata=list(layers),
                hovertemplate=f"%{{customdata}}<br>{name} <b>%{{x:.5g}}</b><extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[sum(three) for three in zip(*parts.values(), strict=True)],
            y=positions,
            name="entered",
            mode="markers",
            marker={"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": _MARK}},
            customdata=list(layers),
            hovertemplate="%{customdata}<br>entered <b>%{x:.5g}</b><extra></extra>",
        )
    )
    shown = [name if len(name) <= 30 else "… " + name[-29:] for name in layers]
    figure.update_xaxes(title="relevance", zeroline=True, zerolinecolor="#444", automargin=True)
    figure.update_yaxes(
        tickvals=positions, ticktext=shown, range=[len(layers) - 0.5, -0.5], automargin=True, showgrid=False
    )
    return figure.update_layout(
        barmode="relative",
        bargap=0.3,
        height=height or 110 + 28 * len(layers),
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "traceorder": "normal"},
    )


def ascent_curves(scores: Array, names: Sequence[str], ends: Array, label: str, height: int = 300) -> go.Figure:
    """The value that each run of an ascent had after each step, and their median.

    Args:
        scores: `(steps, n)`.
        names: of the runs, shown while hovering.
        ends: the step at which each run ended `(n,)`, from 1 on: its line ends there with a dot.
        label: of the value.
        height: of the figure in pixels.

    Raises:
        ValueError: the numbers of runs differ, or there is no step.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(names) or len(names) != len(ends) or not scores.size:
        raise ValueError(f"{len(names)} runs with {len(ends)} ends need scores (steps, n), not {scores.shape}")
    figure = go.Figure()
    for values, name, end in zip(scores.T, names, np.asarray(ends).tolist(), strict=True):
        steps = np.arange(1, end + 1)
        figure.add_trace(
            go.Scatter(
                x=steps, y=values[:end], name=name, mode="lines+markers", showlegend=False,
                line={"color": _RUN, "width": 1.5}, opacity=0.6,
                marker={"size": np.where(steps == end, 6, 0), "line": {"width": 0}},
                hovertemplate=f"{name}<br>step %{{x}}<br><b>%{{y:.4g}}</b><extra></extra>",
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=np.arange(1, len(scores) + 1), y=np.median(scores, axis=1), name="median of the runs", mode="lines",
            line={"color": _PART_COLOURS[1], "width": 3}, hovertemplate="median <b>%{y:.4g}</b><extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="step", rangemode="tozero", automargin=True)
    figure.update_yaxes(title=label, automargin=True)
    return figure.update_layout(
        height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0}, showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )  # fmt: skip


def signed_colours(values: Array, limit: float) -> NDArray[np.uint8]:
    """The colours that `signed_map` shows for a map.

    Args:
        values: `(H, W)`.
        limit: the magnitude of the deepest colours; 0 makes the picture white.

    Returns:
        `(H, W, 3)`.
    """
    stops = np.array([unlabel_rgb(colour) for colour in SIGNED_COLOURS])
    scaled = np.nan_to_num(np.asarray(values, dtype=np.float64)) / (limit or 1.0)
    positions = (np.clip(scaled, -1, 1) + 1) / 2
    along = np.linspace(0, 1, len(stops))
    channels = [np.interp(positions, along, stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def to_png(
    picture: NDArray[np.uint8], image: Image.Image | None = None, opacity: float = 1.0, side: int = 512
) -> bytes:
    """A PNG file, drawn by Pillow: no browser is needed.

    Args:
        picture: `(H, W, 3)`, of `signed_colours` or `as_image`.
        image: drawn beneath, stretched over the picture.
        opacity: of the picture over the image, 0 to 1.
        side: small pictures are enlarged by a whole number, without smoothing, to at least this many pixels.
    """
    above = Image.fromarray(picture)
    if image is not None:
        beneath = image.convert("RGB").resize(above.size, Image.Resampling.BICUBIC)
        above = Image.blend(beneath, above, _checked_opacity(opacity))
    factor = max(1, -(-side // max(above.size)))
    above = above.resize((above.width * factor, above.height * factor), Image.Resampling.NEAREST)
    return _png(above)


def to_npz(arrays: Mapping[str, Array], settings: Mapping[str, Any], versions: Mapping[str, str]) -> bytes:
    """An NPZ file that `numpy.load` reads without pickle: the arrays, and `settings` and `versions` as JSON strings.

    Args:
        arrays: by name; the names `settings` and `versions` are taken.
        settings: JSON values, all that is needed to compute the arrays again.
        versions: of the packages that computed them.
    """
    file = io.BytesIO()
    content: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    content |= {"settings": np.array(json.dumps(settings)), "versions": np.array(json.dumps(versions))}
    np.savez_compressed(file, **content)
    return file.getvalue()


def _chosen_limit(values: Array, percentile: float, limit: float | None) -> float:
    if limit is None:
        return symmetric_limit([values], percentile)
    if not (np.isfinite(limit) and limit >= 0):
        raise ValueError(f"the limit is a magnitude, at least 0 and finite, not {limit}")
    # A wholly zero map on a scale that it shares with others is still wholly zero, and says so.
    return float(limit) if np.any(values) else 0.0


def _checked_opacity(opacity: float) -> float:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity lies between 0 and 1, not at {opacity}")
    return float(opacity)


def _canvas(shape: tuple[int, ...], image: Image.Image | None, title: str, height: int) -> go.Figure:
    """Square pixels, row 0 on top, no axes; the image, if any, is stretched over `shape` = (H, W)."""
    rows, columns = shape
    traces = []
    if image is not None:
        step_x, step_y = columns / image.width, rows / image.height
        source = "data:image/png;base64," + base64.b64encode(_png(image.convert("RGB"), level=1)).decode()
        corner = {"x0": step_x / 2 - 0.5, "y0": step_y / 2 - 0.5, "dx": step_x, "dy": step_y}
        traces.append(go.Image(source=source, hoverinfo="skip", **corner))
    # One layout as a whole: updates of a figure that exists take several times as long.
    layout = {
        "xaxis": {"visible": False, "constrain": "domain", "constraintoward": "left", "range": [-0.5, columns - 0.5]},
        "yaxis": {
            "visible": False, "constrain": "domain", "constraintoward": "top", "range": [rows - 0.5, -0.5],
            "scaleanchor": "x",
        },
        "title": {"text": title, "x": 0}, "height": height, "margin": {"l": 0, "r": 0, "t": 30 if title else 0, "b": 0},
    }  # fmt: skip
    return go.Figure(traces, layout)


def _colour_bar(limit: float, clipped: bool) -> dict[str, Any]:
    """Three labels; where values were clipped, the ends say that they stand for more."""
    end = f"{limit:.2g}"
    labels = [f"≤ -{end}", "0", f"≥ {end}"] if clipped else [f"-{end}", "0", end]
    return {
        "orientation": "h", "thickness": 8, "outlinewidth": 0, "y": 0, "yanchor": "top", "ypad": 6, "len": 0.84,
        "tickvals": [-limit, 0, limit], "ticktext": labels, "ticklabeloverflow": "allow",
    }  # fmt: skip


def _say_if_zero(figure: go.Figure, limit: float) -> go.Figure:
    if limit == 0:
        figure.add_annotation(
            text=ZERO_MESSAGE, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False,
            bgcolor="white", bordercolor="#666", borderpad=6, font={"color": "#333", "size": 14},
        )  # fmt: skip
    return figure


def _png(image: Image.Image, level: int = 6) -> bytes:
    """A PNG file; level 1 is a little larger than 6, and takes a fifth of the time."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=level)
    return file.getvalue()
