"""A program that finds the pictures on the Units page again."""

from ...choices.settings import Settings
from ...inputs.folder_predictions import BATCH, FolderPredictions
from ...inputs.layer_outputs import unit_axis
from ...maps import collection_programs
from ...maps.collection_programs import DECODED
from .layer_surveys import COUNT

_IMPORTS = ("from plugin.experiments.unit_survey import PictureBatch, receptive_fields, survey_units",)


def program(settings: Settings, predictions: FolderPredictions) -> str:
    """A program whose `survey` and `fields` are those of the page, for valid settings."""
    subject = predictions.subject
    axis = unit_axis(subject.layers[settings.layer])
    layer, there = f"model.network, {settings.layer!r}", collection_programs.there(subject)
    return "\n".join(
        [
            *collection_programs.header(predictions, ["from contextlib import suppress"], _IMPORTS),
            "",
            "",
            "def batches():",
            f"    for start in range(0, len(collection.records), {BATCH}):",
            "        found = {}",
            f"        for number, record in enumerate(collection.records[start : start + {BATCH}], start):",
            "            with suppress(OSError, ValueError):  # those that cannot be read",
            f"                found[number] = model.preprocess({DECODED})",
            "        if found:",
            f"            yield PictureBatch(torch.cat([*found.values()]){there}, [*found])",
            "",
            "",
            f"survey = survey_units({layer}, batches(), {COUNT}, channel={axis + 1})",
            f"unit = {settings.neuron[axis]}",
            "where = [tuple(position) for position in survey.positions[unit].tolist()]",
            f"fields = receptive_fields({layer}, {subject.input_shape}, where, channel={axis + 1})",
            "for value, number, field in zip(survey.values[unit].tolist(), survey.pictures[unit].tolist(), fields):",
            "    print(collection.records[number].id, value, *field)",
            "",
        ]
    )
