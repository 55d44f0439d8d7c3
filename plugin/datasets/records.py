"""Records of pictures that are not read yet, and the protocols of their sources and of the sinks of their rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from .explain import Rows
from .network_identity import MEASURED, is_rounded


@dataclass(frozen=True, slots=True)
class Record:
    """A picture that is not read yet.

    Attributes:
        id: its name; no other of the source has it.
        place: where the source finds it; can be pickled.
        bytes: how long it is, or -1 where only reading would tell.
        modified: changes when the content may have changed: a modification time or an ETag; empty if it is not known.
        label: its class, by name or number, where the source knows it.

    >>> from plugin.datasets import Record
    >>> Record("cat/01.png", place="/photos/cat/01.png", bytes=2048, label="cat")
    Record(id='cat/01.png', place='/photos/cat/01.png', bytes=2048, modified='', label='cat')
    """

    id: str
    place: Any
    bytes: int = -1
    modified: str = ""
    label: str | int | None = None


class UnreadablePicture(ValueError):
    """A picture of which there is no content; the message is one sentence. Others can be read.

    `Source.read` raises it: the picture is then listed with the sentence as its error, and the run goes on.

    >>> from plugin.datasets import UnreadablePicture
    >>> def content(record, frames={"1": b"..."}):  # the `read` of a source of frames
    ...     if record.place not in frames:
    ...         raise UnreadablePicture("The camera was off.")
    ...     return frames[record.place]
    """


@runtime_checkable
class Source(Protocol):
    """Pictures under names. Instances can be pickled, and are shared by threads.

    >>> from plugin.datasets import Record, Source
    >>> class Pictures:
    ...     def __init__(self, content):
    ...         self.content = content
    ...
    ...     def records(self):
    ...         return (Record(name, name, len(data)) for name, data in self.content.items())
    ...
    ...     def read(self, record):
    ...         return self.content[record.place]
    >>> isinstance(Pictures({"a.png": b"..."}), Source)  # attribute_dataset takes it in place of a folder
    True
    """

    def records(self) -> Iterator[Record]:
        """Every picture, in an order that stays the same.

        Raises:
            OSError: the source cannot be read, or is not there.
            ValueError: it is empty, damaged or of another format.
        """

    def read(self, record: Record) -> bytes:
        """The content of a picture.

        Args:
            record: one of `records`.

        Raises:
            UnreadablePicture: this one has none, or may not be read.
            OSError: the source fails, which says nothing about the picture.
        """


@dataclass(frozen=True)
class Block:
    """Pictures that are computed and written together.

    Attributes:
        number: from 0, in the order of the source.
        start: the row of its first picture.
        records: the pictures.
    """

    number: int
    start: int
    records: tuple[Record, ...]

    def sha256(self, with_times: bool = False) -> str:
        """A hash of the names and sizes of its pictures, or of their modification times, in hexadecimal."""
        digest = sha256()
        for record in self.records:
            digest.update(f"{record.id}\0{record.modified if with_times else record.bytes}\n".encode())
        return digest.hexdigest()


def blocks_of(records: Iterator[Record], rows: int) -> Iterator[Block]:
    """Blocks of so many pictures, one at a time."""
    number = 0
    while chosen := tuple(islice(records, rows)):
        yield Block(number, number * rows, chosen)
        number += 1


@dataclass(frozen=True)
class Plan:
    """The settings and the layout of an output.

    Attributes:
        settings: JSON values that decide every number; going on with others is refused.
        about: further JSON values.
        row_shapes: the shapes of a row of `map` and of `logits`.
        block_rows: rows that are written together, of a new output.
    """

    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    row_shapes: Mapping[str, tuple[int, ...]]
    block_rows: int


@dataclass(frozen=True)
class Report:
    """The state of an output.

    Attributes:
        path: where it lies, a path or a URL.
        maps: how many maps it holds.
        skipped: why a picture has no map, by its name.
        left: pictures that are not finished.
        found: pictures that were finished before this call.
        seconds: how long the steps took, summed over threads and processes, by name.
        actors: how many pictures each process of a cluster explained, by its host and number.

    >>> from plugin.datasets import Report
    >>> report = Report("maps.zarr", maps=98, skipped={"notes.txt": "no picture"}, left=0, found=0)
    >>> f"{report.maps} maps, {len(report.skipped)} without one, {report.left} not finished"
    '98 maps, 1 without one, 0 not finished'
    """

    path: Any
    maps: int
    skipped: dict[str, str]
    left: int
    found: int
    seconds: dict[str, float] = field(default_factory=dict)
    actors: dict[str, int] = field(default_factory=dict)


class Sink(Protocol):
    """Where rows go. Instances can be pickled when they have begun; blocks may be written by several processes.

    Ray repeats the blocks that a killed actor had begun. A sink that also has the method `errors_of(block)` is asked
    before: it returns how many pictures of a written block have no map, and None for any other block.

    >>> from plugin.datasets import Report, Sink
    >>> class Counted:  # keeps no map
    ...     def begin(self, plan, source):
    ...         self.rows = 0
    ...         return []
    ...
    ...     def write(self, block, rows):
    ...         self.rows += len(rows["id"])
    ...
    ...     def finish(self):
    ...         return Report("nowhere", self.rows, {}, 0, 0)
    >>> sink: Sink = Counted()
    """

    def begin(self, plan: Plan, source: Source) -> Iterable[Block]:
        """Begin an output, or continue it. Returns the unfinished blocks, in order; a list if all are known.

        Args:
            plan: the settings and shapes of the rows.
            source: the pictures.

        Raises:
            ValueError: there is something else, or an output that was begun with other settings or pictures. Nothing
                was changed.
        """

    def write(self, block: Block, rows: Rows) -> None:
        """Write the rows of a block; once it returns they are there whatever happens.

        Args:
            block: one that `begin` gave.
            rows: the columns that `plugin.datasets.explain.Explain` returns, and `sha256` of each content.
        """

    def finish(self) -> Report:
        """Report the state of the output after all blocks of `begin`, and mark it as finished if nothing is left."""


@runtime_checkable
class LookupSink(Protocol):
    """A sink that knows which blocks it holds, so that none is explained once more after an actor was killed."""

    def errors_of(self, block: Block) -> int | None:
        """How many pictures of a block have no map; None if the block is not written."""


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, with both values, by dotted name; measured ones may differ by rounding."""
    before, after = _flat(stored), _flat(now)
    measured = before.pop(MEASURED, None), after.pop(MEASURED, None)
    found = [
        f"{name} was {before.get(name)!r} and is now {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return found if is_rounded(*measured) else [*found, "the network's outputs for a test picture are others"]


def refuse_other_settings(path: object, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than an output was begun with.

    Raises:
        ValueError: one differs; the message names it.
    """
    found = differences(stored, now)
    if found:
        raise ValueError(
            f"{path} was begun with other settings: {'; '.join(found)}. "
            "Go on with the same settings, or give another --out"
        )


def refuse_other_pictures(path: object, known: Sequence[Record], now: Sequence[Record]) -> None:
    """Refuse to go on with other pictures, by name and size.

    Raises:
        ValueError: one differs; the message names it.
    """
    before, after = ({record.id: record.bytes for record in records} for records in (known, now))
    changed = sorted({name for name, _ in before.items() ^ after.items()})
    if changed:
        name = changed[0]
        what = "changed" if name in before and name in after else "new" if name in after else "gone"
        raise other_pictures(path, name, what, len(changed))
    if len(known) != len(now):  # a name that a list holds twice
        raise ValueError(
            f"{path} was begun with other files: {len(known)} instead of {len(now)}, of the same names. Go on with the "
            "same files, or give another --out"
        )
    moved = next((b.id for a, b in zip(known, now, strict=True) if a.id != b.id), None)
    if moved is not None:
        raise other_pictures(path, moved, "in another place", 1)


def refuse_other_content(
    path: object, source: Source, known: Sequence[Record], hashes: Sequence[str], now: Sequence[Record]
) -> None:
    """Refuse to go on where a picture's content has changed since its map was stored.

    Only pictures whose modification times differ are read.

    Raises:
        ValueError: one differs; the message names it.
    """
    for before, stored, record in zip(known, hashes, now, strict=True):
        if before.modified != record.modified and content_sha256(source, record)[1] != stored:
            raise other_pictures(path, record.id, "changed", 1)


def other_pictures(path: object, name: str, what: str, count: int) -> ValueError:
    """The error of a picture that is new, gone or changed."""
    more = f", and {count - 1} more differ" if count > 1 else ""
    return ValueError(
        f"{path} was begun with other files: {name} is {what}{more}. Go on with the same files, or give another --out"
    )


def content_sha256(source: Source, record: Record) -> tuple[bytes | str, str]:
    """The content of a picture, or why there is none, and the content's SHA-256, in hexadecimal; empty without."""
    try:
        data = source.read(record)
    except UnreadablePicture as error:
        return str(error), ""
    return data, sha256(data).hexdigest()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, tuples as lists, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
