"""The results as a figure for the documentation: time and memory in floors, a panel for each network."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plugin.measuring.cases import COLOURS, IMPLEMENTATIONS, LABELS
from plugin.measuring.measured_networks import NAMES
from plugin.measuring.stored_results import Measurement, Results

_MARKERS = {"ours": "o", "compiled": "D", "captum": "s", "zennit": "^"}


def draw(found: Results, path: Path) -> None:
    """Write an SVG file: batch 1 above, below the largest other batch that was measured on more than one network."""
    rows = [(batch, measure) for measure in ("time", "memory") for batch in _batches(found, measure)]
    methods = [name for name in LABELS if any(measurement.row.method == name for measurement in found)]
    # Text stays text, and the file is the same for the same results.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 9}):
        figure = Figure(figsize=(11, 0.6 + 2.1 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(NAMES), sharey=True, squeeze=False)
        for line, (batch, measure) in zip(grid, rows, strict=True):
            for axes, network in zip(line, NAMES, strict=True):
                here = [m for m in found if m.row.network == network and m.row.batch == batch]
                chosen = [m for m in here if _is_measured(m, measure)]
                axes.set_visible(bool(chosen))
                _panel(axes, chosen, methods, measure)
                axes.set_title(f"{NAMES[network]}, batch {batch}", fontsize=9)
                axes.set_xlabel(f"{measure}, x baseline")
        handles = {artist.get_label(): artist for axes in grid.flat for artist in axes.get_legend_handles_labels()[0]}
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _batches(found: Results, measure: str) -> list[int]:
    """The smallest and the largest batch that there is something to compare for."""
    networks: dict[int, set[str]] = {}
    for measurement in found:
        if _is_measured(measurement, measure) and measurement.row.network in NAMES:
            networks.setdefault(measurement.row.batch, set()).add(measurement.row.network)
    batches = sorted(networks)
    return batches[:1] + [batch for batch in batches[1:] if len(networks[batch]) > 1][-1:]


def _is_measured(measurement: Measurement, measure: str) -> bool:
    return (measurement.memory_ratio if measure == "memory" else measurement.ratio) is not None


def _panel(axes: Axes, measurements: list[Measurement], methods: list[str], measure: str) -> None:
    for measurement in measurements:
        implementation = measurement.row.implementation
        colour, marker = COLOURS[implementation], _MARKERS[implementation]
        place = methods.index(measurement.row.method) + 0.16 * (list(_MARKERS).index(implementation) - 1.5)
        value = measurement.memory_ratio if measure == "memory" else None
        spread = measurement.ratio if measure == "time" else None
        if spread:
            axes.plot([spread.low, spread.high], [place, place], color=colour, linewidth=1.5)
            value = spread.median
        if value is not None:
            axes.plot(value, place, marker, color=colour, markersize=5, label=IMPLEMENTATIONS[implementation])
    axes.axvline(1, color="#222", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(methods)), [LABELS[method] for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 2.5))
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
