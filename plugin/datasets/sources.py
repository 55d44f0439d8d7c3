"""The source of pictures that a text or an object means.

>>> source = open_source("photos")
>>> record = next(source.records())
>>> source.read(record)                                                              # b"..."

A source names its pictures in a fixed order and reads any of them. To read from elsewhere, write a class with the two
methods of `plugin.datasets.records.Source` and pass an instance.
"""

from pathlib import Path
from typing import Any

from . import paths
from .records import Source
from .source_files import FileSource, FolderSource, ListSource
from .source_tables import HuggingFaceSource, ParquetSource, TarSource


def open_source(source: Any) -> Source:
    """The source that a text, a path or an object means.

    Args:
        source: a folder; a glob (`photos/**/*.jpg`); a list of pictures (`.txt`, `.csv`, `.tsv`); Parquet files
            (`.parquet`); tar files in WebDataset's layout (`.tar`); a Hugging Face data set, as an object, as a folder
            of `save_to_disk`, or as `hf:NAME:SPLIT`; a `Source`. Texts may be URLs of fsspec, and hold globs.

    Raises:
        ValueError: it is none of these.
        MissingExtraError: a package that reads it is not installed.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | Path):
        return HuggingFaceSource(source)
    text = paths.of_this_machine(str(source))
    if text.startswith("hf:"):
        return HuggingFaceSource.by_name(text)
    if HuggingFaceSource.is_saved(text):
        return HuggingFaceSource.from_disk(text)
    if text.endswith((".txt", ".csv", ".tsv")):
        return ListSource(text)
    if text.endswith(".parquet"):
        return ParquetSource(text)
    if text.endswith(".tar"):
        return TarSource(text)
    is_glob = paths.has_wildcard(text) and not Path(text).exists()
    return FileSource(text) if is_glob else FolderSource(text)
