"""The table of measures of maximised images and of their baselines."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from plugin.extras import require

if TYPE_CHECKING:
    import plotly.graph_objects as go

OWN, BEST, PIXEL, REAL = "maximised", "best_of_n", "pixel", "real"
MEASURES = {
    "reached": "runs that reached stop_at",
    "median_steps": "median steps",
    "agreement": "judge's first choice is the target",
    "judge_probability": "judge's probability of the target",
    "diversity": "distance between two images / between two real ones",
    "distance": "distance to nearest real one / from real one to real one",
    "precision": "precision (k = 3)",
    "distinct": "different nearest real ones per target",
    "least_distinct": "the same, of the worst target",
    "score": "value of the unit",
    "gain": "value of the unit / that of the best random code",
    "beats_real": "units at least as large as at their best real image",
    "speedup": "times faster in one batch than one by one",
    "fid_ratio": "Fréchet distance to test images / that of training images",
}


@dataclass(frozen=True)
class ScorecardRow:
    """One measure.

    Attributes:
        measure: a key of `MEASURES`.
        label: its meaning in words.
        values: one per method; methods without the measure are missing.
    """

    measure: str
    label: str
    values: dict[str, float]


@dataclass(frozen=True)
class Scorecard:
    """Measures by method: "maximised", the baselines, and "real" for as many real images.

    Attributes:
        rows: one per measure.
        images: those of each method.
        random_codes: number of random codes per run for `best_of_n`; 0 without this baseline.
    """

    rows: tuple[ScorecardRow, ...]
    images: dict[str, Tensor]
    random_codes: int

    def __iter__(self) -> Iterator[ScorecardRow]:
        return iter(self.rows)

    def __getitem__(self, measure: str) -> dict[str, float]:
        return next(row.values for row in self.rows if row.measure == measure)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.images)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Measure, method, value."""
        return {row.measure: dict(row.values) for row in self.rows}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with one row per measure and one column per method; needs the extra `tables`."""
        pandas = require("pandas", extra="tables", purpose="a table for pandas")
        return pandas.DataFrame([row.values for row in self.rows], [row.measure for row in self.rows], self.methods)

    def __str__(self) -> str:
        width = max(len(row.label) for row in self.rows)
        lines = [" " * width + "".join(f"{method:>12}" for method in self.methods)]
        lines += [
            f"{row.label:{width}}" + "".join(_cell(row.values, name) for name in self.methods) for row in self.rows
        ]
        return "\n".join(lines)

    def figure(self) -> "go.Figure":
        """Bars by method, one panel per measure."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        rows = [row for row in self.rows if len(row.values) > 1]
        columns = 2
        lines = math.ceil(len(rows) / columns)
        figure = make_subplots(rows=lines, cols=columns, subplot_titles=[row.label for row in rows])
        colours = {OWN: "#2166ac", BEST: "#e69f00", PIXEL: "#5e3c99", REAL: "#b8c1cc"}
        for index, row in enumerate(rows):
            names = [name for name in reversed(self.methods) if name in row.values]
            figure.add_trace(
                go.Bar(
                    x=[row.values[name] for name in names],
                    y=names,
                    orientation="h",
                    marker_color=[colours[name] for name in names],
                    text=[f"{row.values[name]:.3g}" for name in names],
                    hovertemplate="%{y} <b>%{x:.4g}</b><extra></extra>",
                ),
                row=index // columns + 1,
                col=index % columns + 1,
            )
        figure.update_annotations(font_size=12)
        return figure.update_layout(
            height=60 + 130 * lines, showlegend=False, margin={"l": 0, "r": 10, "t": 30, "b": 10}, bargap=0.25
        )


def _cell(values: dict[str, float], name: str) -> str:
    return f"{values[name]:12.3f}" if name in values else f"{'-':>12}"
