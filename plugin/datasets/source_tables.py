"""Pictures in rows: of Parquet files, of tar files in WebDataset's layout, of a Hugging Face data set."""

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from ..extras import require
from ..models.pictures import EXTENSIONS
from . import paths
from .records import Record, UnreadablePicture

# Names of a column that holds pictures: bytes, or a structure with a field `bytes` as Hugging Face writes it.
_PICTURE_COLUMNS = ("image", "jpg", "png", "bytes", "img")
_LABEL_COLUMNS = ("label", "labels", "cls", "class")
_MISSING = "The row holds no picture."


class ParquetSource:
    """The rows of Parquet files, as `file.parquet#row`.

    Args:
        pattern: a path, a URL, or a glob of either.
        column: the column with the pictures; by default the first of `image`, `jpg`, `png`, `bytes`, `img`.
    """

    def __init__(self, pattern: str, column: str = "") -> None:
        require("pyarrow", extra="datasets", purpose="a Parquet source")
        self.pattern, self.column = pattern, column

    def records(self) -> Iterator[Record]:
        """The rows in the order of the files; see `plugin.datasets.sources.Source`."""
        for name, path in paths.named(self.pattern):
            file = _parquet_file(path)
            column, labels = self._columns(path, file.schema_arrow)
            stamp = paths.size_and_stamp(path)[1]
            row = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                found = file.read_row_group(group, [labels]).column(0).to_pylist() if labels else [None] * rows
                for within, label in enumerate(found):
                    known = None if label != label else label  # NaN, as pandas writes where there is none
                    yield Record(f"{name}#{row}", (path, column, group, within, stamp), -1, stamp, known)
                    row += 1

    def _columns(self, path: str, schema: Any) -> tuple[str, str]:
        wanted = (self.column,) if self.column else _PICTURE_COLUMNS
        kinds = {field.name: field.type for field in schema}
        column = next((name for name in wanted if name in kinds and _may_hold_pictures(kinds[name])), None)
        if column is None:
            found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise ValueError(
                f"{path} has no column {' or '.join(wanted)} with pictures, which are binary, but {found}: for paths "
                "write a list (.csv)"
            )
        return column, next((name for name in _LABEL_COLUMNS if name in kinds), "")

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.sources.Source`."""
        path, column, group, within, stamp = record.place
        return _picture_bytes(_row_group(path, column, group, stamp)[within].as_py())


def _may_hold_pictures(kind: Any) -> bool:
    """Whether a type of Arrow's is bytes, or a structure with a field for them or for a path."""
    types = require("pyarrow.types", extra="datasets", purpose="a Parquet source")
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    known = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary, types.is_null)
    return any(is_kind(kind) for is_kind in known)


def _parquet_file(path: str) -> Any:
    pyarrow = require("pyarrow", extra="datasets", purpose="a Parquet source")
    parquet = require("pyarrow.parquet", extra="datasets", purpose="a Parquet source")
    try:
        if not paths.is_url(path):
            return parquet.ParquetFile(path)
        system, inner = paths.file_system(path)
        return parquet.ParquetFile(system.open(inner, "rb"))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file that can be read: {error}") from error


@lru_cache(maxsize=2)  # rows are asked for in order
def _row_group(path: str, column: str, group: int, stamp: str) -> Any:
    return _parquet_file(path).read_row_group(group, [column]).column(0).combine_chunks()


def _picture_bytes(value: Any) -> bytes:
    """A picture of a row: its bytes, or a structure that holds them or the path of a file."""
    if isinstance(value, dict):
        value = paths.read(value["path"]) if value.get("bytes") is None and value.get("path") else value.get("bytes")
    if not isinstance(value, bytes):
        raise UnreadablePicture(_MISSING)
    return value


class TarSource:
    """The samples of tar files in WebDataset's layout, as `shard.tar/key`.

    Files that follow each other and differ in their endings only are a sample: `0001.jpg`, `0001.cls`. The label is
    the text of `.cls`.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def records(self) -> Iterator[Record]:
        """The samples in the order of the files; see `plugin.datasets.sources.Source`."""
        for shard, path in paths.named(self.pattern):
            stamp = paths.size_and_stamp(path)[1]
            with _open_binary(path) as file, _tar_errors(path), tarfile.open(fileobj=file, mode="r:") as tar:
                members = (member for member in tar if member.isfile() and not _is_hidden(member.name))
                for key, sample in groupby(members, lambda member: _key(member.name)):
                    yield _sample(path, stamp, f"{shard}/{key}", tar, list(sample))
                _require_end(tar, file)

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.sources.Source`."""
        path, offset, length = record.place
        if offset is None:
            raise UnreadablePicture("The sample holds no picture.")
        if paths.is_url(path):
            system, inner = paths.file_system(path)
            return bytes(system.cat_file(inner, offset, offset + length))
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)


def _sample(path: str, stamp: str, name: str, tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo]) -> Record:
    picture = next((member for member in members if _ending(member.name) in EXTENSIONS), None)
    label = next((member for member in members if _ending(member.name) == "cls"), None)
    text = None
    if label is not None:
        content = tar.extractfile(label)
        text = content.read().decode("utf-8", "replace").strip() if content is not None else None
    if picture is None:
        return Record(name, (path, None, 0), -1, stamp, text)
    return Record(name, (path, picture.offset_data, picture.size), picture.size, f"{stamp}/{picture.mtime}", text)


def _open_binary(path: str) -> Any:
    if not paths.is_url(path):
        return open(path, "rb")
    system, inner = paths.file_system(path)
    return system.open(inner, "rb")


@contextmanager
def _tar_errors(path: str) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar file that can be read: {error}") from error


def _require_end(tar: tarfile.TarFile, file: Any) -> None:
    """Refuse a tar file whose rest cannot be read: Python takes any block that is no header for the file's end.

    Raises:
        tarfile.ReadError: it is cut off, or damaged in the middle.
    """
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"it is cut off or damaged after {tar.offset} bytes; copy it again")


def _key(name: str) -> str:
    """A name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _ending(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


class HuggingFaceSource:
    """The rows of a data set of the package `datasets`, by their numbers.

    Args:
        dataset: a `datasets.Dataset` with a column of pictures.
    """

    def __init__(self, dataset: Any) -> None:
        # An object of another package is refused without the library.
        is_known = any(kind.__module__.partition(".")[0] == "datasets" for kind in type(dataset).__mro__)
        library = require("datasets", extra="huggingface", purpose="a Hugging Face data set") if is_known else None
        if library is None or not isinstance(dataset, library.Dataset):
            raise ValueError(
                f"a {type(dataset).__name__} is no source of pictures: pass a path, a URL, a datasets.Dataset, or an "
                "object with the methods of plugin.datasets.Source; write many paths into a list (.txt)"
            )
        features = dataset.features
        columns = [name for name, feature in features.items() if isinstance(feature, library.Image)]
        if not columns:
            raise ValueError(f"the data set has no column of pictures, but {', '.join(features)}")
        self.column = columns[0]
        self.label_column = next((name for name in _LABEL_COLUMNS if name in features), "")
        # Every operation on a data set changes its fingerprint; reading its rows as they are stored is no change.
        self.fingerprint = dataset._fingerprint
        self.dataset = dataset.cast_column(self.column, library.Image(decode=False))

    @classmethod
    def by_name(cls, text: str) -> "HuggingFaceSource":
        """The data set `hf:NAME:SPLIT`, which is downloaded."""
        library = require("datasets", extra="huggingface", purpose="a Hugging Face data set")
        name, _, split = text.removeprefix("hf:").partition(":")
        return cls(library.load_dataset(name, split=split or "train"))

    @staticmethod
    def is_saved(text: str) -> bool:
        """Whether a path is a folder of `Dataset.save_to_disk`."""
        return not paths.is_url(text) and all(
            (Path(text) / name).is_file() for name in ("dataset_info.json", "state.json")
        )

    @classmethod
    def from_disk(cls, text: str) -> "HuggingFaceSource":
        """The data set that `Dataset.save_to_disk` wrote."""
        library = require("datasets", extra="huggingface", purpose="a Hugging Face data set")
        return cls(library.load_from_disk(text))

    def records(self) -> Iterator[Record]:
        """The rows; see `plugin.datasets.sources.Source`."""
        if not len(self.dataset):
            raise ValueError("the data set holds no rows")
        labels = self.dataset[self.label_column] if self.label_column else None
        names = getattr(self.dataset.features.get(self.label_column), "names", None)
        for row in range(len(self.dataset)):
            label = None if labels is None else labels[row]
            known = names[label] if names and isinstance(label, int) and label >= 0 else label
            yield Record(f"{row:09d}", row, -1, self.fingerprint, known)

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.sources.Source`."""
        return _picture_bytes(self.dataset[record.place][self.column])
