"""The work of one process: pictures are read and decoded in threads while others are explained; one thread writes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..models import Preprocessing
from .explain import Explain, Rows, pixels_of
from .labels import Labels
from .records import Block, Record, Sink, Source, content_sha256

Item = TypeVar("Item")
Result = TypeVar("Result")


# The number of pictures from which a share is judged.
_JUDGED_FROM = 100


class TooManyErrors(ValueError):
    """More pictures have no map than `max_errors` allows. Finished pictures are kept, and the same call goes on.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin.datasets import TooManyErrors, attribute_dataset
    >>> photos, out = Path(mkdtemp()), Path(mkdtemp(), "maps.parquet")
    >>> (photos / "broken.png").write_bytes(b"no picture")
    10
    >>> try:
    ...     attribute_dataset("model-c", "gradient", photos, out, max_errors=0, device="cpu", progress=False)
    ... except TooManyErrors as error:
    ...     print(str(error).partition(",")[0])
    1 of 1 pictures have no map
    """


@dataclass
class ErrorLimit:
    """Stops a run in which too many pictures have no map.

    Attributes:
        limit: how many pictures may have no map: a number from 1 on, or below 1 a share, judged from 100 pictures on.
            None allows all.
    """

    limit: float | None = None
    seen: int = 0
    errors: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and not self.limit >= 0:  # as NaN is
            raise ValueError(f"max_errors = {self.limit} must be a number from 0 on, or a share below 1")

    def count(self, seen: int, errors: int) -> None:
        """Add pictures.

        Raises:
            TooManyErrors: the limit is passed.
        """
        self.seen, self.errors = self.seen + seen, self.errors + errors
        if self.limit is None or not self.errors:
            return
        is_share = 0 < self.limit < 1
        if is_share and self.seen < _JUDGED_FROM:
            return
        if self.errors > (self.limit * self.seen if is_share else self.limit):
            raise TooManyErrors(
                f"{self.errors} of {self.seen} pictures have no map, more than max_errors = {self.limit:g} allows. "
                "Finished pictures are kept: look at the errors, and go on with another limit"
            )


@dataclass(frozen=True)
class DecodedPicture:
    """A picture before it is explained: its pixels, or the reason why there are none, and the hash of its content."""

    pixels: NDArray[np.uint8] | str
    sha256: str
    read: float
    decode: float


Seconds: TypeAlias = dict[str, float]
# The title of a progress bar, empty for none; or a function that receives the number of finished pictures, and the
# number that were left (None where that is not known).
Progress: TypeAlias = str | Callable[[int, int | None], None]
STEPS = ("read", "decode", "forward", "backward", "write")


def read_picture(source: Source, preprocessing: Preprocessing, record: Record) -> DecodedPicture:
    """Read and decode a picture; any thread may call it."""
    started = perf_counter()
    data, digest = content_sha256(source, record)
    was_read = perf_counter()
    pixels = data if isinstance(data, str) else pixels_of(data, preprocessing)
    return DecodedPicture(pixels, digest, was_read - started, perf_counter() - was_read)


def rows_of(
    explain: Explain, block: Block, pictures: Sequence[DecodedPicture], labels: Labels | None, batch_size: int
) -> Rows:
    """The rows of a block; a picture that cannot be explained has only its error."""
    numbers = None if labels is None else [labels(record) for record in block.records]
    rows = explain.explain_pictures([picture.pixels for picture in pictures], numbers, batch_size)
    hashes = np.array([picture.sha256 for picture in pictures], object)
    return {"id": np.array([record.id for record in block.records], object), "sha256": hashes} | rows


def progress_bar(blocks: Iterable[Block], progress: Progress) -> Any:
    """A progress bar of pictures; it is not shown without a title, or where nothing is left."""
    total = sum(len(block.records) for block in blocks) if isinstance(blocks, list) else None
    if callable(progress):
        return _Told(progress, total)
    return tqdm(total=total, desc=progress, unit="file", disable=not progress or total == 0)


class _Told:
    """Tells a caller the progress, in place of a progress bar."""

    def __init__(self, tell: Callable[[int, int | None], None], total: int | None) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def __enter__(self) -> "_Told":
        self.update(0)
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Count further finished pictures."""
        self._done += count
        self._tell(self._done, self._total)


@dataclass
class LocalEngine:
    """Explains blocks in this process.

    Attributes:
        explain: computes the maps.
        batch_size: pictures explained at once.
        workers: threads that read and decode.
        progress: see `Progress`.
        seconds: how long the steps took, summed over threads.
        pictures_of: empty; see `plugin.datasets.ray_engine.RayEngine`.
    """

    explain: Explain
    batch_size: int
    workers: int
    progress: Progress = ""
    seconds: Seconds = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    pictures_of: dict[str, int] = field(default_factory=dict)

    def run(
        self, blocks: Iterable[Block], source: Source, sink: Sink, labels: Labels | None, limit: ErrorLimit
    ) -> None:
        """Explain blocks and write them.

        Raises:
            TooManyErrors: the limit is passed; blocks until then are written.
            OSError: the source or the sink fails; written blocks are kept.
        """
        with (
            ThreadPoolExecutor(self.workers, "read") as readers,
            ThreadPoolExecutor(1, "write") as writer,
            progress_bar(blocks, self.progress) as bar,
        ):
            written: Future[None] | None = None
            for block, pictures in self._read_ahead(readers, source, blocks):
                rows = rows_of(self.explain, block, pictures, labels, self.batch_size)
                if written is not None:
                    written.result()
                written = writer.submit(self._write, sink, block, rows)
                bar.update(len(block.records))
                if limit.limit is not None:
                    written.result()
                limit.count(len(block.records), int((rows["error"] != "").sum()))
            if written is not None:
                written.result()
        self.seconds |= self.explain.seconds

    def _write(self, sink: Sink, block: Block, rows: Rows) -> None:
        started = perf_counter()
        sink.write(block, rows)
        self.seconds["write"] += perf_counter() - started

    def _read_ahead(
        self, readers: Executor, source: Source, blocks: Iterable[Block]
    ) -> Iterator[tuple[Block, list[DecodedPicture]]]:
        """Blocks with their pictures; the next one is being read meanwhile."""
        waiting: deque[Block] = deque()
        upcoming = iter(blocks)
        first_block = next(upcoming, None)
        if first_block is None:
            return

        def records() -> Iterator[Record]:
            for block in chain([first_block], upcoming):
                waiting.append(block)
                yield from block.records

        read = partial(read_picture, source, self.explain.model.preprocessing)
        pictures = _ahead(readers, read, records(), len(first_block.records) + self.workers)
        for first in pictures:
            block = waiting.popleft()
            found = [first, *(next(pictures) for _ in range(len(block.records) - 1))]
            for picture in found:
                self.seconds["read"] += picture.read
                self.seconds["decode"] += picture.decode
            yield block, found


def _ahead(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """Results in order; up to `count` of them are computed in advance."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
