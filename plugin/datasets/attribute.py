"""Attribution maps for every picture of a folder.

>>> attribute_folder("all-cnn-c", "photos", "maps.zarr", method="lrp-epsilon")
>>> zarr.open_group("maps.zarr")["maps"][0]                                              # (C, H, W)

Pictures are decoded in threads while others are explained; a third kind of thread writes. The run can be killed at any
moment, and the same call goes on. Several processes share the work when `RANK` and `WORLD_SIZE` tell them apart, as
`torchrun` does: process r takes the batches r, r + world size, ..., and all write to one store, each to its own chunks.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from ..models import LoadedModel
from .explain import Explainer, load_model
from .image_folder import labels_of, list_files, read_pixels
from .store import MapStore, open_or_create, require_zarr

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """How far a store is.

    Attributes:
        path: where it lies.
        maps: how many maps it holds.
        skipped: why a file has no map, by its name.
        left: files that are left to other processes.
        found: files that were finished before this call.
    """

    path: Path
    maps: int
    skipped: dict[str, str]
    left: int
    found: int


def attribute_folder(
    model: str | nn.Module | LoadedModel,
    data: str | Path,
    out: str | Path,
    method: str,
    target: str | int = "predicted",
    *,
    checkpoint: str | Path | None = None,
    layer: str | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
    workers: int = 4,
    device: str | None = None,
    progress: bool = True,
) -> Report:
    """Write the attribution map of every picture below a folder to a zarr store, or go on with one.

    Args:
        model: a name that `plugin.models.load` knows, `package.module:factory`, a module, or a `LoadedModel`.
        data: the folder. Every file that is not hidden counts; those that are no picture are listed with the reason.
        out: the store, see `docs/datasets.md`.
        method: a key of `plugin.attr.methods.METHODS`.
        target: the output to explain: "predicted", "label" (see `plugin.datasets.image_folder.labels_of`), or its
            number.
        checkpoint: weights to load instead of the model's own.
        layer: for methods that look at a layer, its name.
        dtype: of the maps, "float32" or "float16".
        batch_size: pictures explained at once. Maps are the same but for rounding; of a new store, a batch is a chunk.
        workers: threads that read and decode pictures.
        device: where to compute; by default a GPU if there is one.
        progress: show a progress bar.

    Raises:
        OSError: the folder cannot be read or the store not written; what was finished is kept.
        ValueError: an argument is wrong, the method has no answer for the network, or the store was begun with other
            settings or files. Nothing was changed.
        MissingExtraError: zarr is not installed.
    """
    require_zarr()  # before a network is downloaded and a folder is read
    if batch_size < 1 or workers < 1:
        raise ValueError(f"batch_size = {batch_size} and workers = {workers} must be at least 1")
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder, path = Path(data), Path(out)
    files = list_files(folder)
    loaded = load_model(model, checkpoint)
    explainer = Explainer(loaded, method, target, layer, dtype, device or _device())
    outputs = explainer.row_shapes["logits"][0]
    labels = labels_of(list(files), loaded.classes, outputs) if target == "label" else None
    about = {
        "classes": list(loaded.classes),
        "weights": loaded.metadata.get("weights", ""),
        "data": str(folder.resolve()),
    }
    store = open_or_create(path, explainer.settings, about, files, explainer.row_shapes, batch_size)
    found = int(store.column("finished").sum())
    if not store.is_finished:
        batches = [(start, stop) for start, stop in store.open_batches() if start // store.batch % world_size == rank]
        source = _Source(folder, list(files), labels, partial(read_pixels, preprocessing=loaded.preprocessing))
        _explain_batches(explainer, store, source, batches, batch_size, workers, progress and rank == 0)
        if not any(store.open_batches()):
            store.finish()
    return _report(store, found)


def _device() -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class _Source:
    """The pictures of a folder: file names, their labels if they count, and how a file is read."""

    folder: Path
    names: Sequence[str]
    labels: Sequence[int] | None
    read: Callable[[Path], NDArray[np.uint8] | str]


def _explain_batches(
    explainer: Explainer,
    store: MapStore,
    source: _Source,
    batches: Sequence[tuple[int, int]],
    batch_size: int,
    workers: int,
    progress: bool,
) -> None:
    total = sum(stop - start for start, stop in batches)
    with (
        ThreadPoolExecutor(workers, "read") as readers,
        ThreadPoolExecutor(1, "write") as writer,
        tqdm(total=total, desc=store.path.name, unit="file", disable=not progress) as bar,
    ):
        paths = (source.folder / source.names[row] for start, stop in batches for row in range(start, stop))
        pictures = _ahead(readers, source.read, paths, 2 * store.batch + workers)
        written: Future[None] | None = None
        for start, stop in batches:
            rows = _rows(explainer, store, source, start, [next(pictures) for _ in range(start, stop)], batch_size)
            if written is not None:
                written.result()
            written = writer.submit(store.write, start, rows)
            bar.update(stop - start)
        if written is not None:
            written.result()


def _ahead(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """Results in order, of which up to `count` are computed before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _rows(
    explainer: Explainer,
    store: MapStore,
    source: _Source,
    start: int,
    pictures: Sequence[NDArray[np.uint8] | str],
    batch_size: int,
) -> dict[str, NDArray[Any]]:
    """The rows of a batch; a file that is no picture has only its error."""
    rows = store.blank(len(pictures))
    rows["error"][:] = [picture if isinstance(picture, str) else "" for picture in pictures]
    readable = [row for row, picture in enumerate(pictures) if not isinstance(picture, str)]
    for first in range(0, len(readable), batch_size):
        chosen = readable[first : first + batch_size]
        labels = None if source.labels is None else [source.labels[start + row] for row in chosen]
        for name, values in explainer(np.stack([pictures[row] for row in chosen]), labels).items():
            rows[name][chosen] = values
    return rows


def _report(store: MapStore, found: int) -> Report:
    finished, errors = store.column("finished"), store.column("error")
    skipped = errors != ""
    names = store.column("file")[skipped].tolist()
    return Report(
        store.path,
        int((finished & ~skipped).sum()),
        dict(zip(names, errors[skipped].tolist(), strict=True)),
        int((~finished).sum()),
        found,
    )
