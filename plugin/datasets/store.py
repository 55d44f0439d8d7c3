"""A zarr store of attribution maps that a run can be killed over at any moment.

Row i of every array belongs to file i. A batch of rows is a chunk of each array, so that processes which write
different batches never write the same file; zarr replaces a chunk's file as a whole. `finished` is written after the
batch's other chunks: a batch whose mark is missing is computed again, and gives the same bytes.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require

FORMAT = "captum-simplicity maps, version 1"
STRING = np.dtypes.StringDType()
# What is written of each batch, in this order, and what stands there before.
COLUMNS: dict[str, tuple[str, Any]] = {
    "maps": ("float32", np.nan),
    "logits": ("float32", np.nan),
    "target": ("int64", -1),
    "predicted": ("int64", -1),
    "probability": ("float32", np.nan),
    "error": ("str", ""),
    "finished": ("bool", False),
}


def require_zarr() -> Any:
    """The package zarr.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("zarr", extra="datasets", purpose="a store of maps")


class MapStore:
    """An open store.

    Attributes:
        path: where it lies.
        batch: the rows that are written together.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ValueError: what lies there is no store of maps.
        """
        self.path = path
        if not (path / "zarr.json").is_file():
            raise ValueError(f"{path} exists and is no store of maps: give another --out")
        self._group = require_zarr().open_group(path, mode="r+")
        if self._group.attrs.get("format") != FORMAT:
            raise ValueError(f"{path} is a zarr store of something else: give another --out")
        self._arrays = dict(self._group.arrays())
        self.batch = int(self._arrays["finished"].chunks[0])

    def column(self, name: str) -> NDArray[Any]:
        """All rows of an array, `(N, ...)`."""
        return np.asarray(self._arrays[name][:])

    @property
    def is_finished(self) -> bool:
        """Whether every file has its map, or the reason why it has none."""
        return bool(self._group.attrs["finished"])

    def check(self, settings: Mapping[str, Any], files: Mapping[str, int]) -> None:
        """Refuse to go on with anything but what the store was begun with.

        Raises:
            ValueError: a setting or a file differs; the message names it.
        """
        begun_with: Any = self._group.attrs["settings"]
        stored, now = _flat(begun_with), _flat(settings)
        differences = [
            f"{name} was {stored.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(stored.keys() | now.keys())
            if stored.get(name) != now.get(name)
        ]
        if differences:
            raise ValueError(
                f"{self.path} was begun with other settings: {'; '.join(differences)}. "
                "Go on with the same settings, or give another --out"
            )
        known = dict(zip(self.column("file").tolist(), self.column("bytes").tolist(), strict=True))
        changed = sorted({name for name, _ in known.items() ^ files.items()})
        if changed:
            name = changed[0]
            what = "changed" if name in known and name in files else "new" if name in files else "gone"
            raise ValueError(
                f"{self.path} was begun with other files: {name} is {what}"
                f"{f', and {len(changed) - 1} more differ' if len(changed) > 1 else ''}. "
                "Go on with the same files, or give another --out"
            )

    def open_batches(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of each batch that is not finished."""
        finished = self.column("finished")
        for start in range(0, len(finished), self.batch):
            if not finished[start]:
                yield start, min(start + self.batch, len(finished))

    def blank(self, count: int) -> dict[str, NDArray[Any]]:
        """Rows of every column but "finished", as they are before anything is written."""
        arrays = {name: self._arrays[name] for name in COLUMNS if name != "finished"}
        return {name: np.full((count, *a.shape[1:]), a.fill_value, a.dtype) for name, a in arrays.items()}

    def write(self, start: int, rows: Mapping[str, NDArray[Any]]) -> None:
        """Write a batch from row `start` on: the rows of every column but "finished", which are marked as such."""
        stop = start + len(rows["error"])
        for name in COLUMNS:
            self._arrays[name][start:stop] = rows[name] if name != "finished" else True

    def finish(self) -> None:
        """Say that nothing is left to do, and remove what killed processes were writing."""
        self._group.attrs["finished"] = True
        for left_over in self.path.glob("*/c/**/*.partial"):
            left_over.unlink(missing_ok=True)
        for left_over in self.path.parent.glob(_partial(self.path, "*").name):
            shutil.rmtree(left_over, ignore_errors=True)


def open_or_create(
    path: Path,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
    files: Mapping[str, int],
    row_shapes: Mapping[str, tuple[int, ...]],
    batch: int,
) -> MapStore:
    """The store at a path, begun now or before, by this process or another.

    Args:
        path: the store, a folder.
        settings: JSON values that decide every number in it; a store with others is refused.
        about: further JSON values.
        files: names and sizes in bytes.
        row_shapes: the shapes of a row of `maps` and of `logits`.
        batch: rows that are written together, of a new store.

    Raises:
        ValueError: there is something else, or a store that was begun with other settings or files.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        attributes = {"format": FORMAT, "finished": False, "settings": dict(settings), **about}
        partial = _partial(path, uuid.uuid4().hex)
        _create(partial, attributes, files, row_shapes, batch)
        try:
            os.rename(partial, path)
        except OSError:  # another process was faster
            shutil.rmtree(partial, ignore_errors=True)
            if not path.exists():
                raise
    store = MapStore(path)
    store.check(settings, files)
    return store


def _partial(path: Path, key: str) -> Path:
    return path.with_name(f".{path.name}.{key}.partial")


def _create(
    path: Path,
    attributes: Mapping[str, Any],
    files: Mapping[str, int],
    row_shapes: Mapping[str, tuple[int, ...]],
    batch: int,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    group = require_zarr().create_group(path, attributes=dict(attributes))
    count = len(files)
    for name, values in (("file", np.array(list(files), STRING)), ("bytes", np.array(list(files.values())))):
        array = group.create_array(name, shape=(count,), dtype=values.dtype, chunks=(count,), dimension_names=("file",))
        array[:] = values
    for name, (dtype, fill) in COLUMNS.items():
        row = row_shapes.get(name, ())
        group.create_array(
            name,
            shape=(count, *row),
            chunks=(min(batch, count), *row),
            dtype=attributes["settings"]["dtype"] if name == "maps" else dtype,
            fill_value=fill,
            # Maps are noise to a compressor: it saves eight percent and is slower than the attribution on a GPU.
            compressors=None if name == "maps" else "auto",
            dimension_names=("file", *_DIMENSIONS.get(name, ())),
        )


_DIMENSIONS = {"maps": ("channel", "row", "column"), "logits": ("class",)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, tuples as lists, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
