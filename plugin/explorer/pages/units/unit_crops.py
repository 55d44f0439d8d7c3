"""The parts of pictures that units see, cut out of what the network sees."""

import threading
from collections.abc import Sequence
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
    """The receptive fields of a layer's positions, each found when it is first asked for. Threads share it."""

    def __init__(self, subject: Subject, layer: str) -> None:
        self._subject, self._layer = subject, layer
        self._known: dict[tuple[int, ...], tuple[slice, slice]] = {}
        self._lock = threading.Lock()

    def of(self, positions: Sequence[tuple[int, ...]]) -> list[tuple[slice, slice]]:
        """Rows and columns of the input for each position.

        Raises:
            ValueError: no signal goes back through the network; the message is one sentence.
        """
        with self._lock:
            missing = [position for position in dict.fromkeys(positions) if position not in self._known]
            channel = unit_axis(self._subject.layers[self._layer]) + 1
            network, shape = self._subject.model.network, self._subject.input_shape
            with asking(self._subject, self._layer):
                found = receptive_fields(network, self._layer, shape, missing, channel)
            self._known.update(zip(missing, found, strict=True))
            return [self._known[position] for position in positions]


def spot(found: UnitSurvey, unit: int, place: int = 0) -> Spot:
    """Where a unit responds to one of its pictures."""
    return int(found.pictures[unit, place]), tuple(found.positions[unit, place].tolist())


@kept_results.kept(8, lambda subject, layer: (subject.identity, layer))
def _fields(subject: Subject, layer: str) -> FieldsOfLayer:
    return FieldsOfLayer(subject, layer)


@kept_results.kept(
    64,
    lambda predictions, layer, spots: (predictions.collection.state, predictions.subject.identity, layer, spots),
    "Cutting out what the units see …",
)
def crops(predictions: FolderPredictions, layer: str, spots: tuple[Spot, ...]) -> list[bytes | None]:
    """What is seen from each spot, as an image file; None where the picture cannot be read any more.

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
