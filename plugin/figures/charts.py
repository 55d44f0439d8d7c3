"""Charts beside the maps: units as squares, classes and relevance as bars, ascents as curves."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

import numpy as np
import plotly.graph_objects as go

from .colours import SIGNED_COLOURS, Array, symmetric_limit

_BAR, _CHOSEN_BAR = "#b8c1cc", "#2166ac"
# Visible on white and on black.
_MARK, _RUN = "#7a7a7a", "#4a90d9"
# Distinguishable with red-green colour blindness, and different from the red and blue that stand for signs.
_PART_COLOURS = ("#b8c1cc", "#e69f00", "#5e3c99")
# Hatching distinguishes the parts without colour.
_PART_PATTERNS = ("", "/", "x")


def unit_squares(
    values: Array, names: Sequence[str], columns: int, chosen: int | None = None, width: int = 480
) -> go.Figure:
    """Units as squares in rows, coloured by their signed values, that can be clicked: a square's custom data is its
    index. The chosen one has a dot.

    Args:
        values: `(n,)`.
        names: names of the units, shown with the values while hovering.
        columns: squares in a row.
        chosen: the index of the explained unit.
        width: width of the figure in pixels.

    Raises:
        ValueError: there is no value, or the number of names differs from that of the values.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.unit_squares(np.array([1.0, -2.0, 0.5]), ["a", "b", "c"], columns=2, chosen=1)
    >>> figure.layout.width
    480
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
        # A chart that remembers a click would fade the other squares.
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    figure = go.Figure(squares)
    if chosen is not None and 0 <= chosen < len(values):
        # Visible on every shade: white in the middle of a dark rim.
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
        class_names: may be shorter than `probabilities`: the other classes are shown by their index.
        k: the number of bars.
        chosen: the class drawn in another colour, with a mark before its name; added as a last bar if it is not
            among the first k.
        height: height of the figure in pixels.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.top_k_bars(np.array([0.7, 0.1, 0.2]), ["cat", "dog", "frog"], k=2)
    >>> figure.data[0].x
    (0.7, 0.2)
    """
    probabilities = np.asarray(probabilities)
    order = [int(index) for index in np.argsort(-probabilities, kind="stable")[:k]]
    if chosen is not None and chosen not in order and 0 <= chosen < len(probabilities):
        order.append(chosen)
    names = [class_names[index] if index < len(class_names) else f"class {index}" for index in order]
    # Plotly would take a name from a file for markup.
    names = [escape(name, quote=False) for name in names]
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
    # One layout as a whole: updates of an existing figure take several times as long.
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
    """The relevance in each layer: a stacked bar per layer, in the order given, the first on top.

    The three parts of a layer sum to the relevance that entered it from above, which a short line marks. Parts of
    opposite sign are stacked on opposite sides of zero.

    Args:
        layers: names, from the output to the input; a name may occur twice.
        left: the relevance that each layer passed on below, in units of the output.
        to_bias: the relevance that its bias absorbed.
        to_stabiliser: the relevance that its stabiliser absorbed.
        height: height of the figure in pixels; by default it grows with the number of layers.

    Raises:
        ValueError: the four differ in length.

    >>> from plugin import figures
    >>> figure = figures.ledger_bars(["fc", "conv"], left=[1.0, 0.8], to_bias=[0.0, 0.2], to_stabiliser=[0.0, 0.0])
    >>> [trace.name for trace in figure.data]
    ['left below', 'to bias', 'to stabiliser', 'entered']
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
    shown = [_in_lines(name) for name in layers]
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


def _in_lines(name: str, longest: int = 30) -> str:
    """A name for an axis: a long one in two lines, each without its beginning where it is too long by itself."""
    lines = [name] if len(name) <= longest else name.rsplit(" ", 1)
    fitting = [line if len(line) <= longest else "… " + line[1 - longest :] for line in lines]
    return "<br>".join(escape(line, quote=False) for line in fitting)


def ascent_curves(scores: Array, names: Sequence[str], ends: Array, label: str, height: int = 300) -> go.Figure:
    """The value of each run of an ascent after each step, and their median.

    Args:
        scores: `(steps, n)`.
        names: names of the runs, shown while hovering.
        ends: the last step of each run `(n,)`, counted from 1: its line ends there with a dot.
        label: label of the value.
        height: height of the figure in pixels.

    Raises:
        ValueError: the numbers of runs differ, or there is no step.

    >>> import numpy as np
    >>> from plugin import figures
    >>> scores = np.array([[0.0, 1.0], [2.0, 1.5], [3.0, 1.5]])  # three steps of two runs
    >>> figure = figures.ascent_curves(scores, ["seed 0", "seed 1"], ends=np.array([3, 2]), label="logit")
    >>> figure.layout.height
    300
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


def score_curves(shares: Array, curves: Mapping[str, Array], label: str, height: int = 260) -> go.Figure:
    """A score against the share of a picture that was changed, a line each; lines differ in dashes too.

    Args:
        shares: from 0 to 1 `(n,)`.
        curves: scores `(n,)` by the name of the line.
        label: label of the score.
        height: height of the figure in pixels.

    Raises:
        ValueError: there is no curve, or one has another length than `shares`.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.score_curves(np.linspace(0, 1, 3), {"deletion": np.array([4.0, 1.0, 0.0])}, label="logit")
    >>> figure.data[0].name
    'deletion'
    """
    lengths = {name: len(values) for name, values in curves.items()}
    if not lengths or {*lengths.values()} != {len(shares)}:
        raise ValueError(f"{len(shares)} shares need curves of as many scores, not {lengths}")
    styles = ((_RUN, "solid"), (_PART_COLOURS[1], "dash"), (_MARK, "dot"), (_MARK, "dashdot"))
    figure = go.Figure()
    for (name, values), (colour, dash) in zip(curves.items(), cycle(styles), strict=False):
        figure.add_scatter(
            x=np.asarray(shares), y=np.asarray(values), name=name, mode="lines",
            line={"color": colour, "dash": dash, "width": 2.5},
            hovertemplate=f"{name}<br>%{{x:.0%}}: <b>%{{y:.4g}}</b><extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="share of the picture", tickformat=".0%", range=[0, 1], automargin=True, fixedrange=True)
    figure.update_yaxes(title=label, automargin=True, fixedrange=True)
    return figure.update_layout(
        height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0}, dragmode=False,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )  # fmt: skip
