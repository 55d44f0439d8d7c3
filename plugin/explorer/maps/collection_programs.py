"""Python that reads the pictures of a collection, for the programs of pages about many pictures."""

from collections.abc import Iterable

from ..inputs import picture_collections
from ..inputs.folder_predictions import FolderPredictions
from ..inputs.picture_collections import ImageSetSource, OwnFolder, SampleSource
from ..inputs.subject import Subject
from .map_programs import opening

# The imports of `DECODED`.
_IMPORTS = {
    "from plugin.datasets.source_files import MAX_FILE_BYTES",
    "from plugin.models.pictures import decode",
}
# The picture of a `record` of `collection`; raises OSError or ValueError where there is none.
DECODED = "decode(collection.source.read(record), MAX_FILE_BYTES)"


def header(predictions: FolderPredictions, standard: Iterable[str], imports: Iterable[str]) -> list[str]:
    """The imports of a program, torch among them, and the lines that open `model` and `collection`.

    Args:
        predictions: the network and the pictures; uploads are taken from a folder.
        standard: imports from the standard library.
        imports: all others that the program needs.
    """
    subject = predictions.subject
    collection, own = _collection(predictions)
    others = {*_IMPORTS, *imports, *subject.imports, own}
    if "models." in subject.source:
        others.add("from plugin import models")
    path = "from pathlib import Path"
    first = sorted({*standard, *([path] if "Path(" in collection or "Path(" in subject.source else [])})
    return [
        *first,
        *([""] if first else []),
        "import torch",
        *sorted(others - {path}),
        "",
        *opening(subject)[0],
        f"collection = {collection}",
    ]


def there(subject: Subject) -> str:
    """The end of an expression for inputs that moves them to the network's device."""
    return opening(subject)[1]


def _collection(predictions: FolderPredictions) -> tuple[str, str]:
    """The Python expression for the pictures, and its import."""
    source = predictions.collection.source
    if isinstance(source, SampleSource):
        call, arguments = "of_samples", f"grey={predictions.subject.channels == 1}"
    elif isinstance(source, ImageSetSource):
        call, arguments = "of_image_set", f"{source.name!r}, labelled={source.labelled}"
    else:
        call = "of_folder"
        arguments = f"Path({source.folder if isinstance(source, OwnFolder) else 'folder of the uploads'!r})"
    return f"{call}({arguments})", f"from {picture_collections.__name__} import {call}"
