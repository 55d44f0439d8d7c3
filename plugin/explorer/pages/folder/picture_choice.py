"""The choice of the pictures that are shown, their order and their pages; and the counts of confused classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...choices.settings import Settings
from ...inputs.folder_predictions import KnownPictures

PER_SHEET = 24
# The settings that leave pictures out.
FILTERS = ("correctness", "labelled", "predicted", "confidence")
# Classes that a confusion table has room for.
MOST_CLASSES = 24


def chosen_rows(settings: Settings, findings: KnownPictures) -> NDArray[np.int64]:
    """The rows that the settings choose, in their order.

    Pictures without a prediction are left out if the settings ask about predictions.
    """
    rows = np.ones(len(findings.labels), np.bool_)
    if settings.correctness == "wrong":
        rows &= findings.wrong
    if settings.labelled is not None:
        rows &= findings.labels == settings.labelled
    if settings.predicted is not None:
        rows &= findings.predicted == settings.predicted
    low, high = settings.confidence
    if (low, high) != Settings.confidence:
        # Links have two decimals, and 0.35 as a float32 is not equal to 0.35.
        rounded = np.round(findings.confidence.astype(np.float64), 6)
        rows &= findings.known & (rounded >= low) & (rounded <= high)
    if settings.order == "name":
        return np.flatnonzero(rows)
    found = np.flatnonzero(rows & findings.known)
    keys = findings.confidence[found] * (1 if settings.order == "least" else -1)
    return found[np.argsort(keys, kind="stable")]


def asks_for_predictions(settings: Settings) -> bool:
    """Whether pictures without a prediction are left out."""
    return settings.order != "name" or any(
        getattr(settings, name) != getattr(Settings, name) for name in ("correctness", "predicted", "confidence")
    )


def sheets(count: int) -> int:
    """The number of pages of the grid for so many pictures, at least one."""
    return max(1, -(-count // PER_SHEET))


def rows_on(sheet: int, rows: NDArray[np.int64]) -> list[int]:
    """The rows on a page of the grid, from 1 on."""
    return [int(row) for row in rows[(sheet - 1) * PER_SHEET : sheet * PER_SHEET]]


@dataclass(frozen=True)
class Confusion:
    """How often pictures of one class were taken for another.

    Attributes:
        classes: the classes that are labels or predictions, in order; those of most errors if there are too many.
        counts: `(n, n)`, a row for each label and a column for each prediction.
        left_out: the number of classes that there is no room for.
    """

    classes: tuple[int, ...]
    counts: NDArray[np.int64]
    left_out: int


def confusion(findings: KnownPictures, most: int = MOST_CLASSES) -> Confusion:
    """Count the pictures that have a label and a prediction, by both."""
    judged = findings.judged
    labels, predicted = findings.labels[judged], findings.predicted[judged]
    present, places = np.unique(np.stack([labels, predicted]), return_inverse=True)
    counts = np.zeros((len(present), len(present)), np.int64)
    np.add.at(counts, tuple(places.reshape(2, -1)), 1)
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = np.sort(np.lexsort((-counts.diagonal(), -errors))[:most])
    return Confusion(tuple(present[kept].tolist()), counts[np.ix_(kept, kept)], len(present) - len(kept))
