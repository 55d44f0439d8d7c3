"""Two maps beside each other: at one size, their difference, and their similarity."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from plugin import figures
from plugin.experiments.sanity import rank_correlation

from . import map_names, rendering
from .shown_maps import Shown

# The share of the pixels that counts as the strongest.
_STRONGEST = 0.1
NAME = "B minus A"


@dataclass(frozen=True)
class Comparison:
    """Two maps at one size, `(H, W)` each.

    Attributes:
        first, second: as they are drawn.
        difference: the second minus the first.
        scaled: whether each was divided by its own largest magnitude before: numbers of different methods or networks
            have different units.
        resized: whether the larger of the two had to be averaged.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    difference: NDArray[np.float64]
    scaled: bool
    resized: bool

    @property
    def equal(self) -> bool:
        """Whether the maps are the same number for number."""
        return bool(np.array_equal(self.first, self.second))


def compared(a: Shown, b: Shown) -> Comparison:
    """Two maps, each as its settings show it."""
    one, other = (rendering.signed(shown.result, shown.settings) for shown in (a, b))
    scaled = a.subject.identity != b.subject.identity or a.question.method != b.question.method
    first, second = figures.common_size(one, other)
    return Comparison(first, second, figures.difference(one, other, scaled), scaled, one.shape != other.shape)


def explanation(found: Comparison) -> str:
    """The meaning of the third map, in plain text."""
    rows, columns = found.first.shape
    scale = (
        "each map is divided by its own largest magnitude first, because the units of the two differ"
        if found.scaled
        else "in the unit of the maps"
    )
    size = f" Both are shown at {rows} x {columns} pixels, the larger one averaged." if found.resized else ""
    return f"B minus A: red where B is larger; {scale}.{size}"


def titled(found: Comparison, a: Shown, b: Shown, percentile: float) -> figures.TitledMap:
    """The difference with its title and its colour bar, for files."""
    limit = figures.symmetric_limit([found.difference], percentile)
    unit = "maps divided by their largest magnitudes" if found.scaled else map_names.quantity(a.question)
    return figures.TitledMap(
        figures.signed_colours(found.difference, limit),
        limit,
        NAME,
        tuple(_described(shown) for shown in (a, b)),
        f"difference: {unit}",
        clipped=bool(np.abs(found.difference).max() > limit),
    )


def _described(shown: Shown) -> str:
    return f"{shown.label}, {map_names.explained(shown.asked)}, {map_names.opened(shown.settings)}"


def file(a: Shown, b: Shown) -> str:
    """The name of the files of the difference without their ending."""
    return map_names.file_of_several("difference", a.asked, a.settings, [a.file, b.file])


def measures(found: Comparison) -> list[dict[str, str]]:
    """The similarity of the maps, as lines of a table."""
    signed, magnitude = (_rank_correlation(*pair) for pair in (
        (found.first, found.second), (np.abs(found.first), np.abs(found.second)),
    ))  # fmt: skip
    chance = f"the share of the strongest {_STRONGEST:.0%} of A's pixels that B has, too; {_STRONGEST:g} by chance"
    return [
        _row("Rank correlation of the maps", signed, "1 is the same order, 0 none, -1 the opposite (Spearman)"),
        _row("Rank correlation of their magnitudes", magnitude, "the same without the signs"),
        _row("Cosine", _cosine(found.first, found.second), "1 is the same map up to a factor"),
        _row("Pixels of one sign", _one_sign(found.first, found.second), "of those that are zero in neither map"),
        _row("Strongest tenth in common", _overlap(found.first, found.second), chance),
    ]


def _row(measure: str, value: float | None, meaning: str) -> dict[str, str]:
    # Without the minus of -0.000.
    written = "not defined" if value is None else f"{round(value, 3) + 0.0:.3f}"
    return {"Measure": measure, "A and B": written, "Meaning": meaning}


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(rank_correlation(torch.from_numpy(one)[None], torch.from_numpy(other)[None]))


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / lengths if lengths else None


def _one_sign(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    both = (one != 0) & (other != 0)
    return float((np.sign(one) == np.sign(other))[both].mean()) if both.any() else None


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    if not one.any() or not other.any():
        return None
    count = max(1, round(_STRONGEST * one.size))
    strongest = [{*np.argsort(-np.abs(values).ravel(), kind="stable")[:count].tolist()} for values in (one, other)]
    return len(strongest[0] & strongest[1]) / count
