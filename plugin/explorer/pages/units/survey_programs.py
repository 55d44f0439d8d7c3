"""A program that finds the pictures on the Units page again."""

from ...inputs import picture_collections
from ...inputs.folder_predictions import BATCH, FolderPredictions
from ...inputs.layer_outputs import unit_axis
from ...inputs.picture_collections import ImageSetSource, OwnFolder, SampleSource
from ...settings import Settings
from .layer_surveys import COUNT


def program(settings: Settings, predictions: FolderPredictions) -> str:
    """A program whose `survey` and `fields` are those of the page, for valid settings."""
    subject = predictions.subject
    shape = subject.layers[settings.layer]
    axis = unit_axis(shape)
    unit = settings.neuron[axis]
    collection, imports = _collection(predictions)
    imports |= {
        "from plugin.datasets.source_files import MAX_FILE_BYTES",
        "from plugin.experiments.unit_survey import PictureBatch, receptive_fields, survey_units",
        "from plugin.models.pictures import decode",
        *subject.imports,
    }
    if "models." in subject.source:
        imports.add("from plugin import models")
    needs_path = "Path(" in collection or "Path(" in subject.source
    layer = f"model.network, {settings.layer!r}"
    return "\n".join(
        [
            "from contextlib import suppress",
            *(["from pathlib import Path"] if needs_path else []),
            "",
            "import torch",
            *sorted(imports - {"from pathlib import Path"}),
            "",
            f"model = {subject.source}",
            f"collection = {collection}",
            "",
            "",
            "def batches():",
            f"    for start in range(0, len(collection.records), {BATCH}):",
            "        found = {}",
            f"        for number, record in enumerate(collection.records[start : start + {BATCH}], start):",
            "            with suppress(OSError, ValueError):  # those that cannot be read",
            "                picture = decode(collection.source.read(record), MAX_FILE_BYTES)",
            "                found[number] = model.preprocess(picture)",
            "        if found:",
            "            yield PictureBatch(torch.cat([*found.values()]), [*found])",
            "",
            "",
            f"survey = survey_units({layer}, batches(), {COUNT}, channel={axis + 1})",
            f"unit = {unit}",
            "where = [tuple(position) for position in survey.positions[unit].tolist()]",
            f"fields = receptive_fields({layer}, {subject.input_shape}, where, channel={axis + 1})",
            "for value, number, field in zip(survey.values[unit].tolist(), survey.pictures[unit].tolist(), fields):",
            "    print(collection.records[number].id, value, *field)",
            "",
        ]
    )


def _collection(predictions: FolderPredictions) -> tuple[str, set[str]]:
    """The Python expression for the pictures, and its imports; uploads are taken from a folder."""
    source = predictions.collection.source
    if isinstance(source, SampleSource):
        call, arguments = "of_samples", f"grey={predictions.subject.channels == 1}"
    elif isinstance(source, ImageSetSource):
        call, arguments = "of_image_set", f"{source.name!r}, labelled={source.labelled}"
    else:
        call = "of_folder"
        arguments = f"Path({source.folder if isinstance(source, OwnFolder) else 'folder of the uploads'!r})"
    return f"{call}({arguments})", {f"from {picture_collections.__name__} import {call}"}
