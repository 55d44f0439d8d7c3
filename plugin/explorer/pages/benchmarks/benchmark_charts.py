"""Views of measurements: charts, sentences, a table, a file and a program."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from plugin import figures
from plugin.measuring import required_values
from plugin.measuring.cases import COLOURS, IMPLEMENTATIONS, LABELS
from plugin.measuring.stored_results import Measurement, Results
from plugin.measuring.timing import Spread

_PATTERNS = {"ours": "", "compiled": "/", "captum": "x", "zennit": "."}
_SYMBOLS = {"ours": "circle", "compiled": "diamond", "captum": "square", "zennit": "triangle-up"}


def chosen(found: Results, network: str, batch: int) -> list[Measurement]:
    """The measurements of a network and a batch size, in the order of the methods."""
    order = [(method, name) for method in LABELS for name in IMPLEMENTATIONS]
    rows = [m for m in found if (m.row.network, m.row.batch) == (network, batch) and m.row.method in LABELS]
    return sorted(rows, key=lambda m: order.index((m.row.method, m.row.implementation)))


def is_compiled(measurement: Measurement) -> bool:
    """Whether it measures compiled calls, which are shown apart, over a baseline of their own."""
    return measurement.row.implementation == "compiled"


def over_baseline(measurement: Measurement) -> Spread | None:
    """The time over that of the baseline, one forward pass and one gradient."""
    return measurement.ratio


def over_compiled_baseline(found: Results, measurement: Measurement) -> Spread | None:
    """The time over that of the compiled baseline, LRP-0; None if that was not measured."""
    return required_values.quotient(found, measurement, "compiled floor")


def of_compiled(found: Results, compiled: Sequence[Measurement]) -> tuple[Callable[[Measurement], Spread | None], str]:
    """The quotient for the times of compiled calls, and its unit: the baseline if no compiled one was measured."""
    if any(over_compiled_baseline(found, measurement) for measurement in compiled):
        return partial(over_compiled_baseline, found), "x compiled baseline"
    return over_baseline, "x baseline"


def time_figure(
    measurements: Sequence[Measurement],
    time: Callable[[Measurement], Spread | None] = over_baseline,
    unit: str = "x baseline",
) -> go.Figure:
    """Bars of the times, with quartiles; a line marks the unit.

    Args:
        measurements: those to show.
        time: how long one took, in the unit.
        unit: its name.
    """
    figure = go.Figure()
    for name, label in IMPLEMENTATIONS.items():
        found = [(m, ratio) for m in measurements if m.row.implementation == name and (ratio := time(m))]
        if not found:
            continue
        figure.add_bar(
            orientation="h", name=label,
            marker={"color": COLOURS[name], "pattern": {"shape": _PATTERNS[name], "size": 6, "solidity": 0.3}},
            y=[LABELS[m.row.method] for m, _ in found], x=[ratio.median for _, ratio in found],
            error_x={
                "array": [ratio.high - ratio.median for _, ratio in found],
                "arrayminus": [ratio.median - ratio.low for _, ratio in found],
            },
            hovertemplate="%{y}<br><b>%{x:.3f}</b> " + unit + "<extra>" + label + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=1, line_dash="dot", line_color="#7a7a7a")
    methods = list(dict.fromkeys(LABELS[m.row.method] for m in measurements))
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True, categoryarray=methods)
    figure.update_xaxes(title=f"time, {unit}", rangemode="tozero", fixedrange=True)
    return figure.update_layout(height=420, barmode="group", **_LAYOUT)


def trade_figure(measurements: Sequence[Measurement]) -> go.Figure:
    """Time against peak memory, both over the baseline; lines mark the baseline."""
    figure = go.Figure()
    for name, label in IMPLEMENTATIONS.items():
        found = [
            (m, ratio.median, memory)
            for m in measurements
            if m.row.implementation == name and (ratio := m.ratio) and (memory := m.memory_ratio)
        ]
        if found:
            figure.add_scatter(
                mode="markers", name=label, text=[LABELS[m.row.method] for m, _, _ in found],
                x=[time for _, time, _ in found], y=[memory for _, _, memory in found],
                marker={"size": 12, "color": COLOURS[name], "symbol": _SYMBOLS[name]},
                hovertemplate="%{text}<br>time <b>%{x:.3f}</b>, memory <b>%{y:.3f}</b><extra>" + label + "</extra>",
            )  # fmt: skip
    figure.add_vline(x=1, line_dash="dot", line_color="#7a7a7a")
    figure.add_hline(y=1, line_dash="dot", line_color="#7a7a7a")
    figure.update_xaxes(title="time, x baseline")
    figure.update_yaxes(title="peak memory, x baseline", rangemode="tozero")
    return figure.update_layout(height=420, **_LAYOUT)


_LAYOUT: dict[str, Any] = {
    "margin": {"l": 0, "r": 0, "t": 30, "b": 0},
    "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
}


def table(found: Results, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """One line per row, with the quotients in which it is compared."""
    lines = []
    for measurement in measurements:
        row, ratio = measurement.row, measurement.ratio
        line: dict[str, Any] = {"Method": LABELS[row.method], "By": IMPLEMENTATIONS[row.implementation]}
        line |= {"x baseline": ratio.median if ratio else None, "Quartiles": _quartiles(measurement)}
        for peer in ("captum", "zennit"):
            ours = row.implementation in ("ours", "compiled")
            against = required_values.quotient(found, measurement, peer) if ours else None
            line[f"x {IMPLEMENTATIONS[peer]}"] = against.median if against else None
        compiled = over_compiled_baseline(found, measurement) if is_compiled(measurement) else None
        line["x compiled baseline"] = compiled.median if compiled else None
        line["Memory x baseline"] = measurement.memory_ratio
        line["Remark"] = measurement.error or measurement.memory_error or measurement.remark
        lines.append(line)
    return lines


def npz(found: Results, measurements: Sequence[Measurement]) -> bytes:
    """An NPZ file with the columns of `table`, and with the machine and its versions."""
    lines = table(found, measurements)
    columns = {name: [line[name] for line in lines] for name in (lines[0] if lines else ())}
    arrays = {
        name.replace(" ", "_"): np.array(values, dtype=str if any(isinstance(v, str) for v in values) else float)
        for name, values in columns.items()
    }
    facts = {name: value for name, value in found.machine.items() if name != "versions"}
    return figures.to_npz(arrays, {"machine": facts}, found.machine["versions"])


def program(network: str, batch: int, stored: str) -> str:
    """A program that shows the stored results of a machine, named as in the list of machines."""
    lines = [
        f"from {__package__} import benchmark_charts",
        "from plugin.measuring import stored_results",
        "",
        f"found = stored_results.Results.read(stored_results.stored()[{stored!r}])",
        f"measurements = benchmark_charts.chosen(found, {network!r}, {batch})",
        "table = benchmark_charts.table(found, measurements)",
        "benchmark_charts.time_figure(measurements).show()",
        "benchmark_charts.trade_figure(measurements).show()",
    ]
    return "\n".join(lines) + "\n"


def spoken(
    measurements: Sequence[Measurement],
    time: Callable[[Measurement], Spread | None] = over_baseline,
    unit: str = "x baseline",
) -> str:
    """The bars in words; arguments as for `time_figure`."""
    parts = [
        f"{LABELS[m.row.method]} by {IMPLEMENTATIONS[m.row.implementation]} {ratio.median:.2f}"
        for m in measurements
        if (ratio := time(m))
    ]
    return f"Times, {unit}: " + (", ".join(parts) or "none")


def caption(found: Results) -> str:
    """The machine, the versions and the commits of the measurements."""
    facts = found.machine
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "captum", "zennit"))
    commits = ", ".join(sorted({measurement.commit for measurement in found if measurement.commit}))
    return f"{facts.get('gpu') or facts['cpu']}, {facts['threads']} threads; {versions}; commit {commits or 'unknown'}"


def _quartiles(measurement: Measurement) -> str:
    ratio = measurement.ratio
    return f"{ratio.low:.2f} to {ratio.high:.2f}, {len(measurement.ratios)} rounds" if ratio else ""
