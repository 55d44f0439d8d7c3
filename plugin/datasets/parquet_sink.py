"""Rows in Parquet files, a file for each block, in a folder or under a URL.

A file is there wholly or not at all. Its name, as `block-00000012-0123456789abcdef-01234567.parquet`, says which
pictures it holds, by hashes of their names and sizes and of their modification times. A run therefore goes on with the
blocks that have no file, without reading any; only the names of files are held in memory. Nothing has to be merged.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..files import is_partial, remove_left_over
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
from .summaries import Summary
from .summary_parts import SummaryParts, as_npz

FORMAT = "captum-simplicity rows, version 1"
# The description of the output; readers of Parquet folders leave out names that begin with an underscore.
DESCRIPTION = "_attribution.json"
FINISHED = "_finished.json"
SUMMARY = "_summary.npz"
_SHORTEST = 12  # bytes of a Parquet file without anything
_NAME = re.compile(r"block-(\d{8,})-[0-9a-f]{16}-[0-9a-f]{8}\.parquet")


class ParquetSink:
    """Rows in Parquet files; see `plugin.datasets.records.Sink`."""

    def __init__(self, out: str, summary: Summary | None = None) -> None:
        """
        Args:
            out: the folder, a path or a URL.
            summary: the summary to keep instead of all maps; None keeps all.
        """
        self.out = out
        self.parts = None if summary is None else SummaryParts(out, summary)
        self.rows = self.blocks = self.found = 0
        self.started = time()
        require("pyarrow.parquet", extra="datasets", purpose="an output of Parquet files")

    def begin(self, plan: Plan, source: Source) -> Iterator[Block]:
        """The blocks that have no file, one at a time: nothing is held in memory but the names of files."""
        settings = dict(plan.settings) | {"keep": self.parts.summary.kind if self.parts else "maps"}
        block_rows = self._open(settings, plan)
        return self._missing(source, block_rows)

    def _open(self, settings: dict[str, Any], plan: Plan) -> int:
        """Begin or go on; returns the number of rows in a block."""
        path = paths.join(self.out, DESCRIPTION)
        if not paths.exists(path):
            # Another process may be writing the description at this moment, or was killed over it.
            others = [name for name in paths.names_in(self.out) if not is_partial(name)]
            if others or (not paths.is_url(self.out) and Path(self.out).is_file()):
                raise ValueError(f"{self.out} exists and holds no rows of this package: give another --out")
            about = {"format": FORMAT, "settings": settings, "block_rows": plan.block_rows, **plan.about}
            paths.create(path, json.dumps(about, indent=1).encode())
        described = json.loads(paths.read(path))
        if described.get("format") != FORMAT:
            raise ValueError(f"{self.out} was written by another version of this package: give another --out")
        refuse_other_settings(self.out, described["settings"], settings)
        return int(described["block_rows"])

    def _missing(self, source: Source, block_rows: int) -> Iterator[Block]:
        written = self._written()
        self.rows = self.blocks = self.found = 0
        for block in blocks_of(source.records(), block_rows):
            self.rows, self.blocks = self.rows + len(block.records), self.blocks + 1
            name = written.get(block.number)
            if name is None:
                yield block
            else:
                self._check(name, block, source)
                self.found += len(block.records)
        beyond = [name for number, name in written.items() if number >= self.blocks]
        if beyond:
            gone = self._known(beyond[0])[0][0].id
            raise ValueError(
                f"{self.out} was begun with other files: {gone} is gone. "
                "Go on with the same files, or give another --out"
            )

    def _written(self) -> dict[int, str]:
        """The names of the files of blocks, by number; files that are too short to be whole do not count."""
        found = ((_NAME.fullmatch(name), size) for name, size in paths.names_in(self.out).items())
        return {int(match[1]): match[0] for match, size in found if match and size > _SHORTEST}

    def _check(self, name: str, block: Block, source: Source) -> None:
        """Refuse a file that holds other pictures than those of its number now."""
        if name == _name(block):
            return
        known, hashes = self._known(name)
        refuse_other_pictures(self.out, known, block.records)
        refuse_other_content(self.out, source, known, hashes, block.records)

    def _known(self, name: str) -> tuple[list[Record], list[str]]:
        columns = ["id", "bytes", "modified", "sha256"]
        table = read_table(paths.join(self.out, name), columns).to_pydict()
        rows = zip(*(table[column] for column in columns), strict=True)
        records = [(Record(name, None, size, stamp), digest) for name, size, stamp, digest in rows]
        return [record for record, _ in records], [digest for _, digest in records]

    def write(self, block: Block, rows: Rows) -> None:
        """Write a block as one file, and before it the part of its maps in the summary, if there is one."""
        path = paths.join(self.out, _name(block))
        content = _as_parquet(block, rows, with_maps=self.parts is None)
        if self.parts is None:
            paths.write(path, content)
            return
        if _is_whole(path):  # written by another run, or by an actor that was taken for dead
            return
        if paths.exists(path):
            paths.remove_file(path)  # a power cut left it
        self.parts.write(block.number, self.parts.summary.of_block(rows))
        if paths.create(path, content):  # if two processes write a block at once, one of them counts it
            self.parts.count(block.number)

    def errors_of(self, block: Block) -> int | None:
        """How many pictures of a block have no map; None if it has no file."""
        path = paths.join(self.out, _name(block))
        if not _is_whole(path):
            return None
        reasons: list[str] = read_table(path, ["error"]).column("error").to_pylist()
        return len(reasons) - reasons.count("")

    def finish(self) -> Report:
        """The state of the output; its summary is written if nothing is left."""
        errors, rows, maps = self._errors()
        left = self.rows - rows
        if not left and self.parts is not None:
            self._summarise(self.parts)
        if not left:
            if not paths.is_url(self.out):
                remove_left_over(Path(self.out).glob(".*.partial.*"), self.started)
            counts = {"rows": rows, "maps": maps, "skipped": rows - maps}
            paths.write(paths.join(self.out, FINISHED), json.dumps(counts).encode())
        where = self.out if paths.is_url(self.out) else Path(self.out)
        return Report(where, maps, errors, left, self.found)

    def _errors(self) -> tuple[dict[str, str], int, int]:
        """Why pictures have no map, by name; how many rows there are, and how many maps."""
        errors: dict[str, str] = {}
        rows = maps = 0
        for name in self._written().values():
            table = read_table(paths.join(self.out, name), ["id", "error"])
            rows += table.num_rows
            reasons = table.column("error").to_pylist()
            maps += reasons.count("")
            errors |= {name: reason for name, reason in zip(table["id"].to_pylist(), reasons, strict=True) if reason}
        return errors, rows, maps

    def _summarise(self, parts: SummaryParts) -> None:
        """Write the summary, and remove its parts, unless another process that finds nothing left is faster."""
        path = paths.join(self.out, SUMMARY)
        while not paths.exists(path):
            try:
                paths.write(path, as_npz(parts.finish(self._written())))
            except FileNotFoundError:  # another process has joined or removed a part that was about to be read
                continue
            except ValueError:
                if not paths.exists(path):
                    raise
        parts.remove()


def _name(block: Block) -> str:
    return f"block-{block.number:08d}-{block.sha256()[:16]}-{block.sha256(with_times=True)[:8]}.parquet"


def _is_whole(path: str) -> bool:
    """Whether a block's file is there, and longer than the remains of one after a power cut."""
    return paths.exists(path) and paths.size_and_stamp(path)[0] > _SHORTEST


def read_table(path: str, columns: Sequence[str] | None = None) -> Any:
    """Columns of a Parquet file, at a path or a URL."""
    parquet = require("pyarrow.parquet", extra="datasets", purpose="an output of Parquet files")
    if not paths.is_url(path):
        return parquet.ParquetFile(path).read(columns)
    system, inner = paths.file_system(path)
    with system.open(inner, "rb") as file:
        return parquet.ParquetFile(file).read(columns)


def _as_parquet(block: Block, rows: Rows, with_maps: bool) -> bytes:
    pyarrow, parquet = require("pyarrow", "datasets", "Parquet"), require("pyarrow.parquet", "datasets", "Parquet")
    columns = {
        "id": pyarrow.array([record.id for record in block.records], pyarrow.string()),
        "bytes": pyarrow.array([record.bytes for record in block.records], pyarrow.int64()),
        "modified": pyarrow.array([record.modified for record in block.records], pyarrow.string()),
        "sha256": pyarrow.array(rows["sha256"].tolist(), pyarrow.string()),
        "error": pyarrow.array(rows["error"].tolist(), pyarrow.string()),
    }
    columns |= {name: pyarrow.array(rows[name]) for name in ("target", "predicted", "probability")}
    columns["logits"] = _tensors(rows["logits"], ["class"])
    if with_maps:
        columns["map"] = _tensors(rows["map"], ["channel", "row", "column"])
    # Columns that cannot be null, and maps without their extremes, are written in a quarter of the time.
    schema = pyarrow.schema([pyarrow.field(name, values.type, nullable=False) for name, values in columns.items()])
    target = pyarrow.BufferOutputStream()
    parquet.write_table(
        pyarrow.table(columns, schema=schema),
        target,
        # Maps are noise to a compressor.
        compression={_leaf(name): "NONE" if name == "map" else "ZSTD" for name in columns},
        use_dictionary=["error"],
        write_statistics=[name for name in columns if name not in ("map", "logits")],
    )
    return bytes(target.getvalue())


def _leaf(column: str) -> str:
    """Parquet's name for the values of a column."""
    return f"{column}.list.element" if column in ("map", "logits") else column


def _tensors(values: NDArray[Any], names: Sequence[str]) -> Any:
    """A column of tensors of one shape, which pyarrow, Ray Data and Hugging Face's `datasets` know."""
    pyarrow = require("pyarrow", extra="datasets", purpose="Parquet")
    kind = pyarrow.fixed_shape_tensor(pyarrow.from_numpy_dtype(values.dtype), values.shape[1:], dim_names=names)
    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    storage = pyarrow.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
    return pyarrow.ExtensionArray.from_storage(kind, storage)
