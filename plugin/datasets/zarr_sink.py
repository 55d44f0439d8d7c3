"""A zarr store of attribution maps that a run can be killed over at any moment.

Row i of every array belongs to picture i. A block of rows is a chunk of each array, so that processes which write
different blocks never write the same file; zarr replaces a chunk's file as a whole. `finished` is written after the
block's other chunks are on the disk: a block whose mark is missing or cannot be read is computed again, and gives the
same bytes.
"""

import gc
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..files import remove_left_over, to_disk, unwritable, write_json
from . import paths
from .explain import Rows
from .records import (
    Block,
    Plan,
    Record,
    Report,
    Source,
    blocks_of,
    refuse_other_content,
    refuse_other_pictures,
    refuse_other_settings,
)

_KIND = "captum-simplicity maps"
FORMAT = f"{_KIND}, version 2"
_STRING = np.dtypes.StringDType()
# The arrays to which each block is written, in this order, with their types and their values before.
COLUMNS: dict[str, tuple[str, Any]] = {
    "maps": ("float32", np.nan),
    "logits": ("float32", np.nan),
    "target": ("int64", -1),
    "predicted": ("int64", -1),
    "probability": ("float32", np.nan),
    "sha256": ("str", ""),
    "error": ("str", ""),
    "finished": ("bool", False),
}
_DIMENSIONS = {"maps": ("channel", "row", "column"), "logits": ("class",)}


def require_zarr() -> Any:
    """The package zarr.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("zarr", extra="datasets", purpose="a store of maps")


class ZarrSink:
    """Maps in a zarr store, at a path or a URL; see `plugin.datasets.records.Sink`."""

    def __init__(self, out: str) -> None:
        require_zarr()
        self.out = out
        self.started = time()

    def begin(self, plan: Plan, source: Source) -> list[Block]:
        """The blocks that are not finished; the names of all pictures are held in memory."""
        with _without_collection():
            records = list(source.records())
        is_own = _create_if_missing(self.out, plan, records)
        self.store = MapStore(self.out)
        if not is_own:
            self.store.check(plan.settings, source, records)
        finished = self.store.finished()
        self.found = int(finished.sum())
        return [block for block in blocks_of(iter(records), self.store.block) if not finished[block.start]]

    def write(self, block: Block, rows: Rows) -> None:
        """Write a block as one chunk of each array."""
        self.store.write(block.start, {"maps" if name == "map" else name: values for name, values in rows.items()})

    def errors_of(self, block: Block) -> int | None:
        """How many pictures of a block have no map; None if it is not marked as finished."""
        return self.store.errors_of(block.start)

    def finish(self) -> Report:
        """The state of the store, which is marked as finished if nothing is left."""
        finished, errors = self.store.finished(), self.store.column("error")
        if finished.all():
            self.store.finish(self.started)
        skipped = errors != ""
        names = self.store.column("file")[skipped].tolist()
        return Report(
            self.out if paths.is_url(self.out) else Path(self.out),
            int((finished & ~skipped).sum()),
            dict(zip(names, errors[skipped].tolist(), strict=True)),
            int((~finished).sum()),
            self.found,
        )


class MapStore:
    """An open store.

    Attributes:
        path: where it lies, a path or a URL.
        block: the rows that are written together.
    """

    def __init__(self, path: str) -> None:
        """
        Raises:
            ValueError: there is no store of maps at this path.
        """
        self.path, self._is_local = path, not paths.is_url(path)
        if not paths.exists(paths.join(path, "zarr.json")):
            raise ValueError(f"{path} exists and is no store of maps: give another --out")
        self._group = require_zarr().open_group(_zarr_store(path), mode="r+")
        stored = str(self._group.attrs.get("format"))
        if stored != FORMAT:
            what = "a store of another version of this package" if _KIND in stored else "a zarr store of something else"
            raise ValueError(f"{path} is {what}: give another --out")
        self._arrays = dict(self._group.arrays())
        self.block = int(self._arrays["finished"].chunks[0])

    def column(self, name: str) -> NDArray[Any]:
        """All rows of an array, `(N, ...)`; rows that cannot be read have the values of unwritten ones."""
        return self._read(name)[0]

    def _read(self, name: str) -> tuple[NDArray[Any], list[int]]:
        """All rows of an array, and the first rows of the chunks that cannot be read, as after a power cut."""
        array, torn = self._arrays[name], list[int]()
        values = np.full(array.shape, array.fill_value, array.dtype)
        for rows in self._written(name):
            try:
                values[rows] = array[rows]
            except OSError:
                raise
            except Exception:  # whatever the codec of a torn chunk raises
                torn += self._read_by_chunks(array, rows, values)
        return values, torn

    def _written(self, name: str) -> Iterator[slice]:
        """Rows of an array whose chunks are there; zarr would look for each of the others, too."""
        array = self._arrays[name]
        chunk, folder = array.chunks[0], paths.join(self.path, f"{name}/c")
        there = sorted(int(entry) for entry in paths.names_in(folder) if entry.isdecimal())
        for _, run in groupby(enumerate(there), lambda pair: pair[1] - pair[0]):  # runs of consecutive numbers
            numbers = [number for _, number in run]
            yield slice(numbers[0] * chunk, min((numbers[-1] + 1) * chunk, array.shape[0]))

    def _read_by_chunks(self, array: Any, rows: slice, values: NDArray[Any]) -> list[int]:
        torn = []
        for start in range(rows.start, rows.stop, array.chunks[0]):
            try:
                values[start : start + array.chunks[0]] = array[start : start + array.chunks[0]]
            except OSError:
                raise
            except Exception:
                torn.append(start)
        return torn

    def finished(self) -> NDArray[np.bool_]:
        """Which rows are final, `(N,)`."""
        values = self.column("finished").astype(bool)
        for name in ("error", "sha256"):
            for start in self._read(name)[1]:
                values[start : start + self.block] = False
        return values

    def errors_of(self, start: int) -> int | None:
        """How many rows of the block from row `start` on have no map; None if they are not final."""
        rows = slice(start, start + self.block)
        if not self._arrays["finished"][start]:
            return None
        try:
            self._arrays["sha256"][rows]
            return int((self._arrays["error"][rows] != "").sum())
        except OSError:
            raise
        except Exception:  # whatever the codec of a torn chunk raises
            return None

    def check(self, settings: Mapping[str, Any], source: Source, records: Sequence[Record]) -> None:
        """Refuse to go on with other settings or pictures than the store was begun with.

        Raises:
            ValueError: a setting or a picture differs; the message names it.
        """
        begun_with: Any = self._group.attrs["settings"]
        refuse_other_settings(self.path, begun_with, settings)
        columns = [self.column(name) for name in ("file", "bytes", "modified")]
        if all(map(np.array_equal, columns, _listed(records).values())):
            return  # the usual case, without an object for each picture
        names, sizes, stamps = (column.tolist() for column in columns)
        known = [Record(name, None, *rest) for name, *rest in zip(names, sizes, stamps, strict=True)]
        refuse_other_pictures(self.path, known, records)
        rows = np.flatnonzero(self.finished()).tolist()
        hashes = self.column("sha256")
        chosen = ([known[row] for row in rows], [str(hashes[row]) for row in rows], [records[row] for row in rows])
        refuse_other_content(self.path, source, *chosen)

    def write(self, start: int, rows: Mapping[str, NDArray[Any]]) -> None:
        """Write a block from row `start` on: the rows of every column but "finished", which are marked as such.

        Raises:
            OSError: the disk is full or fails; blocks that were written before are kept.
        """
        try:
            self._write_columns(start, rows)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _write_columns(self, start: int, rows: Mapping[str, NDArray[Any]]) -> None:
        stop = start + len(rows["error"])
        for name in COLUMNS:
            if name == "finished":
                self._synchronise(start, [other for other in COLUMNS if other != name])
            self._write(name, slice(start, stop), rows[name] if name != "finished" else True)
        self._synchronise(start, ["finished"])

    def _write(self, name: str, rows: slice, values: Any) -> None:
        """Write one chunk. It replaces the one that is there, which another run may have marked as finished."""
        try:
            self._arrays[name][rows] = values
        except OSError:
            raise
        except Exception:  # zarr first reads the last, shorter chunk, which a power cut may have torn
            if not self._is_local:
                raise
            self._chunk(name, rows.start).unlink()
            self._arrays[name][rows] = values

    def _chunk(self, name: str, start: int) -> Path:
        array = self._arrays[name]
        return Path(self.path, name, "c", str(start // self.block), *["0"] * (array.ndim - 1))

    def _synchronise(self, start: int, names: Sequence[str]) -> None:
        """Wait until a block's chunks are on the disk, with the folders that they stand in."""
        if not self._is_local:
            return
        for name in names:
            path = self._chunk(name, start)
            if path.exists():  # zarr leaves out a chunk of nothing but fill values
                array = Path(self.path, name)
                for entry in (path, *(parent for parent in path.parents if parent.is_relative_to(array))):
                    to_disk(entry)

    def finish(self, started: float) -> None:
        """Mark the store as finished, and remove the files that killed processes were writing.

        Args:
            started: when this process began; see `plugin.files.remove_left_over`.
        """
        if not self._group.attrs["finished"]:
            self._mark_finished()
        if self._is_local:
            path = Path(self.path)
            remove_left_over(path.glob("*/c/**/*.partial"), started)
            remove_left_over(path.parent.glob(_partial(path, "*").name), started)

    def _mark_finished(self) -> None:
        if not self._is_local:
            self._group.attrs["finished"] = True
            return
        description = Path(self.path, "zarr.json")
        value = json.loads(description.read_text())
        value["attributes"]["finished"] = True
        write_json(description, value)  # zarr would not wait until it is on the disk


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from looking for garbage among a million records again and again, which takes as long as they do."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _zarr_store(path: str) -> Any:
    if not paths.is_url(path):
        return path
    require("fsspec", extra="datasets", purpose=f"the URL {path}")
    return require_zarr().storage.FsspecStore.from_url(path)


def _create_if_missing(path: str, plan: Plan, records: Sequence[Record]) -> bool:
    """Create a store unless the path holds something; whether this process is certain to have created it."""
    if paths.is_url(path):
        if not paths.names_in(path):
            _create_remote(path, plan, records)
        return False
    if not Path(path).exists() or (Path(path).is_dir() and not any(Path(path).iterdir())):
        return _create_local(Path(path), plan, records)
    return False


def _create_local(path: Path, plan: Plan, records: Sequence[Record]) -> bool:
    partial = _partial(path, uuid.uuid4().hex)
    try:
        _create(partial, plan, records)
        for entry in (*partial.rglob("*"), partial):
            to_disk(entry)
    except OSError as error:  # as on a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise unwritable(path, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        os.rename(partial, path)
        to_disk(path.parent)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)
        if not path.exists():
            raise
        return False
    return True


def _create_remote(url: str, plan: Plan, records: Sequence[Record]) -> None:
    """Object by object, the group's own last: without it there is no store."""
    with tempfile.TemporaryDirectory() as folder:
        _create(Path(folder, "store"), plan, records)
        files = sorted(path for path in Path(folder, "store").rglob("*") if path.is_file())
        names = [path.relative_to(Path(folder, "store")).as_posix() for path in files]
        for name in sorted(names, key="zarr.json".__eq__):
            paths.write(paths.join(url, name), Path(folder, "store", name).read_bytes())


def _listed(records: Sequence[Record]) -> dict[str, NDArray[Any]]:
    """The columns of a store for pictures that are not read yet."""
    return {
        "file": np.array([record.id for record in records], _STRING),
        "bytes": np.array([record.bytes for record in records]),
        "modified": np.array([record.modified for record in records], _STRING),
    }


def _partial(path: Path, key: str) -> Path:
    return path.with_name(f".{path.name}.{key}.partial")


def _create(path: Path, plan: Plan, records: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"format": FORMAT, "finished": False, "settings": dict(plan.settings), **plan.about}
    group = require_zarr().create_group(path, attributes=attributes)
    count = len(records)
    for name, values in _listed(records).items():
        array = group.create_array(name, shape=(count,), dtype=values.dtype, chunks=(count,), dimension_names=("file",))
        array[:] = values
    for name, (dtype, fill) in COLUMNS.items():
        row = plan.row_shapes.get("map" if name == "maps" else name, ())
        group.create_array(
            name,
            shape=(count, *row),
            chunks=(min(plan.block_rows, count), *row),
            dtype=plan.settings["dtype"] if name == "maps" else dtype,
            fill_value=fill,
            # Maps are noise to a compressor: it saves eight percent and is slower than the attribution on a GPU.
            compressors=None if name == "maps" else "auto",
            dimension_names=("file", *_DIMENSIONS.get(name, ())),
        )
