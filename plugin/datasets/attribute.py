"""Attribution maps for every picture of a data set.

The run can be killed at any moment, and the same call goes on. Several processes share the work when `RANK` and
`WORLD_SIZE` tell them apart, as `torchrun` does: process r takes the blocks r, r + world size, ..., and all write to
one output, each to its own files.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..extras import require
from ..files import require_writable
from ..models import LoadedModel
from . import paths
from .explain import Explain
from .labels import Labels
from .local_engine import ErrorLimit, LocalEngine, Progress
from .parquet_sink import ParquetSink
from .ranks import Share, share_of_environment
from .ray_engine import RayEngine
from .records import Block, Plan, Report, Sink
from .source_files import FolderSource
from .sources import open_source
from .summaries import Summary
from .zarr_sink import ZarrSink

ENGINES = ("local", "ray")
# Endings that the output of a summary must not have: it is a folder, and only a file in it ends in `.npz`.
_NO_FOLDERS = (".zarr", ".npz")
_PARQUET_ROWS = 256


@paths.os_errors()
def attribute_dataset(
    model: str | nn.Module | LoadedModel,
    method: str,
    source: Any,
    out: str | Path,
    target: str | int = "predicted",
    *,
    engine: str = "local",
    resume: bool = True,
    keep: str = "maps",
    checkpoint: str | Path | None = None,
    layer: str | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
    block_rows: int | None = None,
    workers: int = 4,
    actors: int | None = None,
    device: str | None = None,
    max_errors: float | None = None,
    progress: bool | Callable[[int, int | None], None] = True,
) -> Report:
    """Write the attribution map of every picture of a data set, or go on with it.

    Args:
        model: a name that `plugin.models.load` knows, `package.module:factory`, a module, or a `LoadedModel`. It is
            explained in eval mode; afterwards its modules have their modes again.
        method: a key of `plugin.attr.methods.METHODS`.
        source: where the pictures are; see `plugin.datasets.sources.open_source`.
        out: a path or a URL. A name that ends in `.parquet` is a folder of Parquet files, another one a zarr store; see
            `docs/datasets.md`.
        target: the output to explain: "predicted", "label" (see `plugin.datasets.labels.Labels`), or its number.
        engine: "local", this process, or one of those that `RANK` and `WORLD_SIZE` number; or "ray", a cluster.
        resume: go on with an output that is there; otherwise refuse it.
        keep: "maps", or a summary: "mean", "per-class" or "top-k" (see `plugin.datasets.summaries.Summary`), as
            `_summary.npz` beside Parquet files without maps.
        checkpoint: weights to load instead of the model's own.
        layer: for methods that look at a layer, its name.
        dtype: of the maps, "float32" or "float16".
        batch_size: pictures explained at once. Maps are the same but for rounding.
        block_rows: pictures that are written together, of a new output; by default `batch_size`, or 256 in Parquet.
        workers: threads that read and decode pictures; with Ray, of each task.
        actors: with Ray, how many processes explain; by default one for each GPU.
        device: where to compute; by default a GPU if there is one.
        max_errors: stop when more pictures than this have no map; below 1, a share. By default all may.
        progress: show a progress bar; or a function that receives the number of finished pictures, and the number that
            were left (None where that is not known). If it raises, the run ends, and finished pictures are kept.

    Raises:
        OSError: the source cannot be read or the output not written; finished pictures are kept.
        ValueError: an argument is wrong, the method has no answer for the network, or the output was begun with other
            settings or pictures. Nothing was changed.
        TooManyErrors: `max_errors` is passed (a ValueError).
        MissingExtraError: a package that this needs is not installed.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin import models
    >>> from plugin.datasets import attribute_dataset
    >>> folder = Path(mkdtemp())
    >>> (folder / "photos").mkdir()
    >>> models.sample_images()["cat"].save(folder / "photos" / "cat.png")
    >>> out = folder / "maps.zarr"
    >>> report = attribute_dataset("model-c", "gradient", folder / "photos", out, device="cpu", progress=False)
    >>> report.maps, report.left
    (1, 0)
    """
    out = paths.of_this_machine(str(out))
    sink = _open_sink(out, keep)  # before a network is downloaded and a folder is listed
    usual = batch_size if isinstance(sink, ZarrSink) else max(_PARQUET_ROWS, batch_size)
    rows = usual if block_rows is None else block_rows
    _check_numbers(batch_size=batch_size, workers=workers, block_rows=rows, actors=1 if actors is None else actors)
    limit, share = ErrorLimit(max_errors), _share(engine)
    if actors is not None and engine != "ray":
        raise ValueError(f"actors = {actors} is of the engine ray: choose it, or leave actors out")
    if not resume:
        _refuse_to_resume(out, share)
    pictures = open_source(source)
    if next(iter(pictures.records()), None) is None:  # before a network is loaded
        raise ValueError("the source holds no pictures: give another --data")
    arguments: dict[str, Any] = {"model": model, "method": method, "target": target, "checkpoint": checkpoint}
    arguments |= {"layer": layer, "dtype": dtype, "device": device}
    with _modes_kept(model):
        explain = Explain(**arguments)
        labels = None
        if target == "label":
            labels = Labels(pictures.records(), explain.model.classes, explain.row_shapes["logits"][0])
        blocks = sink.begin(Plan(explain.settings, _about(explain, source), explain.row_shapes, rows), pictures)
        title = Path(out).name if progress and share.rank == 0 else ""
        shown: Progress = progress if callable(progress) else title
        chosen: LocalEngine | RayEngine = LocalEngine(explain, batch_size, workers, shown)
        if engine == "ray":
            chosen = RayEngine(arguments, explain, batch_size, workers, actors, shown)
        chosen.run(_shared(blocks, share), pictures, sink, labels, limit)
        return replace(sink.finish(), seconds=chosen.seconds, actors=chosen.pictures_of)


@contextmanager
def _modes_kept(model: str | nn.Module | LoadedModel) -> Iterator[None]:
    """A caller's network is explained in eval mode, and may be trained on afterwards."""
    network = model.network if isinstance(model, LoadedModel) else model
    training = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} = {number} must be at least 1")


def _refuse_to_resume(out: str, share: Share) -> None:
    if share.world_size > 1:
        raise ValueError("resume=False is for one process: of several, all but the first go on with its output")
    if paths.exists(out):
        raise ValueError(f"{out} exists: choose resume=True (no --no-resume) to go on with it, or give another --out")


def _share(engine: str) -> Share:
    """The share of this process in the work.

    Raises:
        ValueError: there is no such engine, or `RANK` and `WORLD_SIZE` are wrong.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}")
    share = share_of_environment()
    if engine == "ray":
        if share.world_size > 1:
            raise ValueError("the engine ray shares the work itself: start one process, without torchrun")
        require("ray", extra="ray", purpose="the engine ray")
    return share


def attribute_folder(
    model: str | nn.Module | LoadedModel,
    data: str | Path,
    out: str | Path,
    method: str,
    target: str | int = "predicted",
    **options: Any,
) -> Report:
    """Write the attribution map of every picture below a folder; see `attribute_dataset`.

    Args:
        model, out, method, target, options: as for `attribute_dataset`.
        data: the folder. Every file that is not hidden counts; those that are no picture are listed with the reason.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin import models
    >>> from plugin.datasets import attribute_folder
    >>> folder = Path(mkdtemp())
    >>> (folder / "photos").mkdir()
    >>> models.sample_images()["cat"].save(folder / "photos" / "cat.png")
    >>> options = {"device": "cpu", "progress": False}
    >>> attribute_folder("model-c", folder / "photos", folder / "maps.zarr", "gradient", **options).maps
    1
    """
    return attribute_dataset(model, method, data, out, target, **options)


def _shared(blocks: Iterable[Block], share: Share) -> Iterable[Block]:
    """The blocks of this process; a list if a list is given."""
    mine = (block for block in blocks if share.has(block.number))
    return list(mine) if isinstance(blocks, list) else mine


def _open_sink(out: str, keep: str) -> Sink:
    """
    Raises:
        ValueError: there is no such summary, or its name says that it is something else.
        OSError: the output cannot be made.
    """
    if keep != "maps" and out.rstrip("/").endswith(_NO_FOLDERS):
        raise ValueError(
            f"the summary {keep} is a folder of Parquet files with _summary.npz in it, and the output is named {out}: "
            "give a name that ends in .parquet, or has no ending"
        )
    place = paths.behind_link(out)  # such as a folder on a larger disk
    if not paths.is_url(place) and not paths.exists(place):
        require_writable(place)
    if keep == "maps" and not out.rstrip("/").endswith(".parquet"):
        return ZarrSink(place)
    return ParquetSink(place, None if keep == "maps" else Summary(keep))


def _about(explain: Explain, source: Any) -> dict[str, Any]:
    source = source.folder if isinstance(source, FolderSource) else source
    is_path = isinstance(source, str | Path)
    source = paths.of_this_machine(str(source)) if is_path else source
    is_local = is_path and not paths.is_url(source)
    return {
        "classes": list(explain.model.classes),
        "weights": explain.model.metadata.get("weights", ""),
        "data": str(Path(source).resolve()) if is_local else str(source) if is_path else type(source).__name__,
    }
