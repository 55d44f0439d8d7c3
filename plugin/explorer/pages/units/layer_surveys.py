"""The pictures of a collection that excite the units of a layer most, and the order in which the units are shown."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from plugin.experiments.unit_survey import PictureBatch, UnitSurvey, survey_units

from ...choices.settings import Settings
from ...inputs.folder_predictions import BATCH, FolderPredictions
from ...inputs.layer_outputs import unit_axis
from ...inputs.subject import Subject
from ...server.jobs import Task

logger = logging.getLogger(__name__)

# Pictures of each unit that are kept, and units on a page of the grid.
COUNT, PER_SHEET = 9, 24


def survey(
    predictions: FolderPredictions, layer: str, told: Callable[[UnitSurvey], None] = lambda found: None
) -> UnitSurvey:
    """Survey all pictures; the numbers of pictures are rows of `predictions`.

    Args:
        predictions: the network and the pictures. Broken ones are passed over.
        layer: one of the network's.
        told: called after each batch with the survey so far.

    Raises:
        ValueError: no picture can be read, or the network fails on them.
    """
    model, channel = predictions.subject.model, unit_axis(predictions.subject.layers[layer]) + 1
    labels = predictions.findings().labels
    classes = len(model.classes) if (labels >= 0).any() else 0
    with asking(predictions.subject, layer):
        batches = _batches(predictions, labels)
        return survey_units(model.network, layer, batches, COUNT, classes, channel, told, used_once=True)


@contextmanager
def asking(subject: Subject, layer: str) -> Iterator[None]:
    """A context in which any failure becomes a `ValueError` of one sentence."""
    try:
        yield
    except Exception as error:  # any network may fail in a way of its own
        logger.info("the units of %s of %s", layer, subject.name, exc_info=True)
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ValueError(f"The units of {layer} of {subject.name} cannot be looked at: {reason}.") from error


def survey_all(task: Task, predictions: FolderPredictions, layer: str) -> UnitSurvey:
    """Survey all pictures, for a `jobs.Job`. A stop keeps the survey so far."""
    total = len(predictions)

    def told(found: UnitSurvey) -> None:
        task.report(found.seen / total, f"{found.seen} of {total} pictures", found)

    task.report(0.0, f"0 of {total} pictures")
    return survey(predictions, layer, told)


def _batches(predictions: FolderPredictions, labels: np.ndarray) -> Iterator[PictureBatch]:
    for start in range(0, len(predictions), BATCH):
        rows = range(start, min(start + BATCH, len(predictions)))
        pixels = {row: seen for row, seen in predictions.read(rows) if seen is not None}
        if pixels:
            inputs = predictions.inputs(np.stack([*pixels.values()]))
            yield PictureBatch(inputs, [*pixels], labels[[*pixels]].tolist())


def neuron_at(found: UnitSurvey, shape: tuple[int, ...], unit: int, place: int = 0) -> tuple[int, ...]:
    """The index into the layer's output, of this shape, where a unit responds to one of its pictures."""
    position = found.positions[unit, place].tolist()
    axis = unit_axis(shape)
    return (*position[:axis], unit, *position[axis:])


def has_classes(found: UnitSurvey) -> bool:
    """Whether pictures of two classes were seen, so that a unit can be selective for one."""
    return int((found.class_counts > 0).sum()) > 1


def is_silent(found: UnitSurvey, unit: int) -> bool:
    """Whether no picture excites a unit: its response is zero everywhere, as after a ReLU, or not a number."""
    value = float(found.values[unit, 0])
    return value == 0 or not np.isfinite(value)


def preferred_classes(found: UnitSurvey, unit: int, count: int = 1) -> list[tuple[int, float]]:
    """The classes for which a unit is most selective, with their index from -1 to 1."""
    values = found.selectivity[:, unit].nan_to_num(nan=-torch.inf)
    best = values.sort(descending=True, stable=True)
    pairs = zip(best.indices[:count].tolist(), best.values[:count].tolist(), strict=True)
    return [(index, value) for index, value in pairs if np.isfinite(value)]


def ordered(found: UnitSurvey, settings: Settings) -> Sequence[int]:
    """All units, in the order that the settings ask for."""
    if settings.unit_order == "response":
        keys = found.values[:, 0]
    elif settings.unit_order == "selective" and has_classes(found):
        index = found.selectivity.nan_to_num(nan=-torch.inf)
        keys = index.amax(0) if settings.selective_for is None else index[settings.selective_for]
    else:
        return range(len(found.values))
    order: list[int] = keys.sort(descending=True, stable=True).indices.tolist()
    return order
