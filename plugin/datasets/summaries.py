"""Summaries to look at instead of every map: means, means of each class, the clearest pictures of each class.

>>> summary = Summary("per-class")
>>> summary.merge(summary.of_block(rows) for rows in blocks)["mean"]                      # (classes, C, H, W)

A summary is the same whether it is made of blocks while they are explained or of a full output afterwards.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .explain import Rows

KINDS = ("mean", "per-class", "top-k")
Part: TypeAlias = dict[str, NDArray[Any]]
_SUMS = ("sum", "sum_of_absolutes")


@dataclass(frozen=True)
class Summary:
    """How maps are summarised; pictures without a map do not count.

    Attributes:
        kind: "mean" of all maps; "per-class", the same for each target; "top-k", the maps of the pictures whose target
            has the largest probability, for each target.
        count: the pictures of each target that "top-k" keeps.
    """

    kind: str
    count: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown summary {self.kind!r}: choose {', '.join(KINDS)}")

    def of_block(self, rows: Rows) -> Part:
        """The part of the summary that comes from the rows of a block."""
        good = np.flatnonzero(rows["error"] == "")
        if self.kind == "top-k":
            return self._clearest({name: rows[name][good] for name in ("id", "target", "probability", "map")})
        targets = rows["target"][good] if self.kind == "per-class" else np.zeros(len(good), np.int64)
        maps = rows["map"][good]
        present, place = np.unique(targets, return_inverse=True)
        part = {"target": present, "count": np.bincount(place, minlength=len(present))}
        for name, values in zip(_SUMS, (maps, np.abs(maps)), strict=True):
            part[name] = np.zeros((len(present), *maps.shape[1:]))
            for row in range(len(present)):
                part[name][row] = values[place == row].sum(0, dtype=np.float64)
        return part

    def merge(self, parts: Iterable[Part]) -> Part:
        """The summary of all parts.

        Returns:
            For "mean" and "per-class": `target` `(n,)`, the classes that were explained (0 for "mean"), and for each
            `count`, `mean` and `mean_of_absolutes` `(n, C, H, W)`, float32. For "top-k": rows of `id`, `target`,
            `probability`, `map`, by target and from the largest probability on.
        """
        whole = self.joined(parts)
        if self.kind == "top-k":
            return whole
        count = whole["count"].reshape(-1, 1, 1, 1)
        means = {f"mean{name}": (whole[f"sum{name}"] / count).astype(np.float32) for name in ("", "_of_absolutes")}
        return {"target": whole["target"], "count": whole["count"]} | means

    def joined(self, parts: Iterable[Part]) -> Part:
        """One part that stands for several."""
        names = {"top-k": ("id", "target", "probability", "map")}.get(self.kind, ("target", "count", *_SUMS))
        chosen = ({name: part[name] for name in names} for part in parts)
        return _reduced(chosen, self._join if self.kind == "top-k" else _add)

    def _join(self, first: Part, second: Part) -> Part:
        return self._clearest({name: np.concatenate([first[name], second[name]]) for name in first})

    def _clearest(self, rows: Part) -> Part:
        names = np.array(rows["id"], str)
        order = np.lexsort((names, -rows["probability"], rows["target"]))
        targets = rows["target"][order]
        # The place of each row among those of its target.
        rank = np.arange(len(order)) - np.searchsorted(targets, targets)
        chosen = order[rank < self.count]
        return {name: (names if name == "id" else values)[chosen] for name, values in rows.items()}


def _reduced(parts: Iterable[Part], merge: Callable[[Part, Part], Part]) -> Part:
    whole: Part | None = None
    for part in parts:
        whole = part if whole is None else merge(whole, part)
    if whole is None:
        raise ValueError("there are no rows to summarise")
    return whole


def _add(first: Part, second: Part) -> Part:
    present = np.union1d(first["target"], second["target"])
    whole = {"target": present, "count": np.zeros(len(present), np.int64)}
    for name in _SUMS:
        whole[name] = np.zeros((len(present), *first[name].shape[1:]))
    for part in (first, second):
        place = np.searchsorted(present, part["target"])
        for name in ("count", *_SUMS):
            whole[name][place] += part[name]
    return whole
