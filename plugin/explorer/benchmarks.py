"""The Benchmarks page's numbers: what is stored, and a short measurement of one network on this machine."""

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import plotly.graph_objects as go

from plugin import figures
from plugin.measuring import cases, results, targets
from plugin.measuring.cases import IMPLEMENTATIONS, LABELS, LRP_METHODS, SIGNAL_METHODS, Row
from plugin.measuring.memory import FreshProcesses
from plugin.measuring.results import Measurement, Results
from plugin.measuring.timing import rounds_within, take_turns, warm_up

from .jobs import Task

BATCHES = (1, 16)
# Told apart by people who confuse red and green.
COLOURS = {"ours": "#2166ac", "compiled": "#5e3c99", "captum": "#e69f00", "zennit": "#7a7a7a"}
_PATTERNS = {"ours": "", "compiled": "/", "captum": "x", "zennit": "."}
_SYMBOLS = {"ours": "circle", "compiled": "diamond", "captum": "square", "zennit": "triangle-up"}
_ROW_SECONDS = 1.0
# Two measurements at once would measure each other.
_measuring = threading.Lock()


def chosen(found: Results, network: str, batch: int) -> list[Measurement]:
    """What was found of a network, in the order of the methods."""
    order = [(method, name) for method in LABELS for name in IMPLEMENTATIONS]
    rows = [m for m in found if (m.row.network, m.row.batch) == (network, batch) and m.row.method in LABELS]
    return sorted(rows, key=lambda m: order.index((m.row.method, m.row.implementation)))


def rows_to_measure(network: str, batch: int) -> list[Row]:
    """What a short measurement measures: ours, and of the peers that are installed what they can do."""
    methods = [*(SIGNAL_METHODS if network != "vit_b_16" else ()), *LRP_METHODS]
    rows = [Row(network, method, name, batch) for method in methods for name in cases.IMPLEMENTED[method]]
    return [row for row in rows if not cases.unsupported(row) and (row.implementation == "ours" or _installed(row))]


def _installed(row: Row) -> bool:
    return find_spec(row.implementation) is not None


def measure(task: Task, network: str, batch: int, small: bool = False) -> Results:
    """Measure a network on this machine's processor, for a `jobs.Job`; what was found so far is what is shown.

    Args:
        task: of the job.
        network: a key of `networks.NAMES`.
        batch: images per call.
        small: a stand-in for the network, to see whether everything runs.
    """
    while not _measuring.acquire(timeout=0.5):
        task.report(0.0, "Waiting for another measurement to end …")
    try:
        found = Results(results.machine_facts("cpu"))
        rows = rows_to_measure(network, batch)
        with FreshProcesses(small) as processes:
            for done, row in enumerate(rows):
                task.report(done / len(rows), f"{LABELS[row.method]}, {IMPLEMENTATIONS[row.implementation]} …", found)
                found = _with(found, row, _measured(task, row, small), _memory(processes, row))
        return found
    finally:
        _measuring.release()


def _measured(task: Task, row: Row, small: bool) -> dict[str, Any]:
    """The times of a row, or why there are none."""
    try:
        with cases.prepared(row, small) as case:
            _, round_seconds = warm_up(case.call, case.floor)
            pairs = list(take_turns(case.call, case.floor, rounds_within(_ROW_SECONDS, round_seconds)))
    except Exception as error:  # one that fails is a result like the others
        return {"error": f"{type(error).__name__}: {error}"}
    return {"floor_seconds": tuple(pair[0] for pair in pairs), "call_seconds": tuple(pair[1] for pair in pairs)}


def _memory(processes: FreshProcesses, row: Row) -> dict[str, Any]:
    try:
        return {"peak_bytes": processes.peak(row), "floor_peak_bytes": processes.floor_peak(row)}
    except RuntimeError as error:
        return {"memory_error": str(error)}


def _with(found: Results, row: Row, *parts: dict[str, Any]) -> Results:
    """A copy with one more row: the page may be drawing the other."""
    more = Results(found.machine, dict(found.measurements))
    more.put(row, results.commit(), **{name: value for part in parts for name, value in part.items()})
    return more


def time_figure(measurements: Sequence[Measurement]) -> go.Figure:
    """Bars of the times in floors, with quartiles; a line marks the floor."""
    figure = go.Figure()
    for name, label in IMPLEMENTATIONS.items():
        found = [(m, ratio) for m in measurements if m.row.implementation == name and (ratio := m.ratio)]
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
            hovertemplate="%{y}<br><b>%{x:.3f}</b> floors<extra>" + label + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=1, line_dash="dot", line_color="#7a7a7a")
    methods = list(dict.fromkeys(LABELS[m.row.method] for m in measurements))
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True, categoryarray=methods)
    figure.update_xaxes(title="time in floors", rangemode="tozero", fixedrange=True)
    return figure.update_layout(height=420, barmode="group", **_LAYOUT)


def trade_figure(measurements: Sequence[Measurement]) -> go.Figure:
    """Time against peak memory, both in floors; lines mark the floor."""
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
    figure.update_xaxes(title="time in floors")
    figure.update_yaxes(title="peak memory in floors", rangemode="tozero")
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
        line |= {"Floors": ratio.median if ratio else None, "Quartiles": _quartiles(measurement)}
        for peer in ("captum", "zennit"):
            against = targets.quotient(found, measurement, peer) if row.implementation in ("ours", "compiled") else None
            line[f"x {IMPLEMENTATIONS[peer]}"] = against.median if against else None
        line["Memory in floors"] = measurement.memory_ratio
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


def snippet(network: str, batch: int, stored: str) -> str:
    """A program that shows the stored results of a machine, named as in the list of machines."""
    lines = [
        "from plugin.explorer import benchmarks",
        "from plugin.measuring import results",
        "",
        f"found = results.Results.read(results.stored()[{stored!r}])",
        f"measurements = benchmarks.chosen(found, {network!r}, {batch})",
        "table = benchmarks.table(found, measurements)",
        "benchmarks.time_figure(measurements).show()",
        "benchmarks.trade_figure(measurements).show()",
    ]
    return "\n".join(lines) + "\n"


def spoken(measurements: Sequence[Measurement]) -> str:
    """The bars in words."""
    parts = [
        f"{LABELS[m.row.method]} by {IMPLEMENTATIONS[m.row.implementation]} {ratio.median:.2f}"
        for m in measurements
        if (ratio := m.ratio)
    ]
    return "Times in floors: " + (", ".join(parts) or "none")


def caption(found: Results) -> str:
    """Where it was measured."""
    facts = found.machine
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "captum", "zennit"))
    commits = ", ".join(sorted({measurement.commit for measurement in found if measurement.commit}))
    return f"{facts.get('gpu') or facts['cpu']}, {facts['threads']} threads; {versions}; commit {commits or 'unknown'}"


def _quartiles(measurement: Measurement) -> str:
    ratio = measurement.ratio
    return f"{ratio.low:.2f} to {ratio.high:.2f}, {len(measurement.ratios)} rounds" if ratio else ""
