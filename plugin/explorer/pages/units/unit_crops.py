"""The parts of pictures that units see, cut out of the pictures as the network sees them."""

import threading
from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeAlias

from PIL import Image

from plugin.experiments.unit_survey import UnitSurvey, receptive_fields

from ...inputs.folder_predictions import FolderPredictions, thumbnail
from ...inputs.layer_outputs import unit_axis
from ...inputs.subject import Subject
from ...widgets import kept_results
from .layer_surveys import asking

# A picture's row, and a position in the layer's output.
Spot: TypeAlias = tuple[int, tuple[int, ...]]


class FieldsOfLayer:
    """The receptive fields of a layer's positions, each found when it is first asked for. Threads share it.

    Each takes a pass through the network. In almost all networks the rows that a position sees depend on its row alone,
    and the columns on its column: where three positions confirm this, a pass finds the rows of one row and the columns
    of one column, and a layer needs as many passes as it has rows.
    """

    def __init__(self, subject: Subject, layer: str) -> None:
        self._subject, self._layer = subject, layer
        shape, axis = subject.layers[layer], unit_axis(subject.layers[layer])
        self._sides = (*shape[:axis], *shape[axis + 1 :])
        self._known: dict[tuple[int, ...], tuple[slice, slice]] = {}
        self._rows: dict[int, slice] = {}
        self._columns: dict[int, slice] = {}
        self._is_crossed: bool | None = None
        self._lock = threading.Lock()

    def of(self, positions: Sequence[tuple[int, ...]]) -> list[tuple[slice, slice]]:
        """Rows and columns of the input for each position.

        Raises:
            ValueError: no signal goes back through the network; the message is one sentence.
        """
        with self._lock:
            if self._is_crossed is None:
                self._is_crossed = self._crossed()
            if self._is_crossed:
                rows = [row for row in dict.fromkeys(row for row, _ in positions) if row not in self._rows]
                columns = [each for each in dict.fromkeys(each for _, each in positions) if each not in self._columns]
                self._find([*zip_longest(rows, columns, fillvalue=0)])
                return [(self._rows[row], self._columns[column]) for row, column in positions]
            self._find([position for position in dict.fromkeys(positions) if position not in self._known])
            return [self._known[position] for position in positions]

    def _crossed(self) -> bool:
        """Whether rows depend on rows alone, and columns on columns."""
        if len(self._sides) != 2 or min(self._sides) < 2:
            return False
        row, column = (side // 2 for side in self._sides)
        self._find([(0, 0), (row, column), (0, column)])
        seen = self._known
        return seen[0, 0][0] == seen[0, column][0] and seen[row, column][1] == seen[0, column][1]

    def _find(self, positions: list[tuple[int, ...]]) -> None:
        channel = unit_axis(self._subject.layers[self._layer]) + 1
        network, shape = self._subject.model.network, self._subject.input_shape
        with asking(self._subject, self._layer):
            # One at a time: the network runs once for all, and it runs the faster the fewer copies it looks at.
            found = receptive_fields(network, self._layer, shape, positions, channel, batch_size=1)
        for position, (rows, columns) in zip(positions, found, strict=True):
            self._known[position] = rows, columns
            if len(position) == 2:
                self._rows[position[0]], self._columns[position[1]] = rows, columns


def spot(found: UnitSurvey, unit: int, place: int = 0) -> Spot:
    """The spot at which a unit responds to one of its pictures."""
    return int(found.pictures[unit, place]), tuple(found.positions[unit, place].tolist())


@kept_results.kept(8, lambda subject, layer: (subject.identity, layer))
def _fields(subject: Subject, layer: str) -> FieldsOfLayer:
    return FieldsOfLayer(subject, layer)


@kept_results.kept(
    64,
    lambda predictions, layer, spots: (predictions.collection.state, predictions.subject.identity, layer, spots),
    "Cutting out the parts that the units see …",
)
def crops(predictions: FolderPredictions, layer: str, spots: tuple[Spot, ...]) -> list[bytes | None]:
    """The part of the picture that each spot sees, as an image file; None if the picture cannot be read any more.

    Raises:
        ValueError: see `FieldsOfLayer.of`.
    """
    fields = _fields(predictions.subject, layer).of([position for _, position in spots])
    pixels = dict(predictions.read(dict.fromkeys(row for row, _ in spots)))
    files: list[bytes | None] = []
    for (row, _), field in zip(spots, fields, strict=True):
        seen = pixels[row]
        files.append(None if seen is None else thumbnail(Image.fromarray(seen[field].squeeze()).convert("RGB")))
    return files
