"""The work of a cluster, by Ray Data: tasks read and decode blocks, an actor for each GPU explains and writes them.

Blocks are handed out in waves, so that the names of all pictures are never held at once. An actor or node that dies
takes its blocks with it, and Ray gives them to another one. The output itself shows which blocks are finished: when the
driver or the cluster dies, the same call goes on with the others.
"""

import logging
import os
import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np

from ..extras import require
from ..models import Preprocessing
from . import paths
from .explain import Explain
from .labels import Labels
from .local_engine import STEPS, DecodedPicture, ErrorLimit, Progress, Seconds, progress_bar, read_picture, rows_of
from .records import Block, LookupSink, Sink, Source, differences

# Blocks of a wave. An actor loads the network once in a wave.
_WAVE = 4096
# Seconds after which a driver ends if its own cluster was killed; Ray would wait a minute.
_WITHOUT_CLUSTER = 10


@dataclass
class RayEngine:
    """Explains blocks on a Ray cluster: the one of `RAY_ADDRESS`, or of this machine.

    Attributes:
        arguments: the arguments of `Explain` in each actor.
        explain: the driver's own, with the settings that every actor must have.
        batch_size: pictures explained at once.
        workers: threads of a task that reads and decodes.
        actors: how many explain; by default one for each GPU, or for every second CPU where there is no GPU. If there
            are more than GPUs they share them, and one explains while another writes.
        progress: see `plugin.datasets.local_engine.Progress`.
        seconds: how long the steps took, summed over the cluster.
        pictures_of: pictures that each actor explained, by its host and process.
    """

    arguments: Mapping[str, Any]
    explain: Explain
    batch_size: int
    workers: int
    actors: int | None = None
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
        waiting = iter(blocks)
        with progress_bar(blocks, self.progress) as bar:
            while wave := list(islice(waiting, _WAVE)):
                for done in self._wave(wave, source, sink, labels):
                    bar.update(done["rows"])
                    self._count(done)
                    limit.count(done["rows"], done["errors"])

    def _count(self, done: Mapping[str, Any]) -> None:
        self.pictures_of[done["actor"]] = self.pictures_of.get(done["actor"], 0) + done["rows"]
        for name, seconds in pickle.loads(done["seconds"]).items():
            self.seconds[name] += seconds

    def _wave(self, blocks: list[Block], source: Source, sink: Sink, labels: Labels | None) -> Iterator[dict[str, Any]]:
        ray = start_ray(self.actors)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        actors = self.actors or gpus or max(1, int(ray.cluster_resources()["CPU"]) // 2)
        read = ReadBlock(source, self.explain.model.preprocessing, self.workers)
        explaining = {
            "arguments": ray.put(dict(self.arguments)),  # once for each node, however large the network is
            "settings": self.explain.settings,
            "sink": sink,
            "labels": labels,
            "batch_size": self.batch_size,
        }
        items = [{"block": pickle.dumps(block)} for block in blocks]
        # With the same resources Ray would join both steps, and an actor would wait while it reads.
        data = ray.data.from_items(items, override_num_blocks=len(items)).map(read, num_cpus=1 if gpus else 0.5)
        done = data.map_batches(
            ExplainBlock,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(blocks))),
            num_gpus=1 / ceil(actors / gpus) if gpus else 0,
            num_cpus=0 if gpus else 1,
            fn_constructor_kwargs=explaining,
        )
        for row in done.iter_rows():
            if row["failure"]:
                raise pickle.loads(row["failure"])
            yield row


def start_ray(actors: int | None) -> Any:
    """Ray, connected to the cluster of `RAY_ADDRESS`, or to one on this machine with room for so many actors.

    Raises:
        MissingExtraError: Ray is not installed.
        OSError: it does not start.
    """
    ray = require("ray", extra="ray", purpose="the engine ray")
    require("ray.data", extra="ray", purpose="the engine ray")
    if not ray.is_initialized():
        try:
            _connect(ray, actors)
        except Exception as error:  # Ray raises its own and plain ones
            raise OSError(f"Ray does not start: {error}. If the machine is busy, try again") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return ray


def _connect(ray: Any, actors: int | None) -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    ray.init(
        "local",  # and not a cluster that happens to run on this machine and was not named
        # Reading needs a processor beside the actors, which are logical ones to Ray.
        num_cpus=max(os.cpu_count() or 1, (actors or 1) + 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"gcs_rpc_server_reconnect_timeout_s": _WITHOUT_CLUSTER},
    )


def _pickled(error: Exception) -> bytes:
    """An error to raise again in the driver: Ray would keep only its text."""
    error = paths.as_os_error(error)
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
        return content
    except Exception:  # an error with arguments of its own kind
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


class ReadBlock:
    """Reads and decodes a block, in any worker."""

    def __init__(self, source: Source, preprocessing: Preprocessing, workers: int) -> None:
        self.source, self.preprocessing, self.workers = source, preprocessing, workers

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        block: Block = pickle.loads(row["block"])
        try:
            with ThreadPoolExecutor(self.workers, "read") as readers:
                pictures = list(readers.map(self._read, block.records))
        except Exception as error:
            return {"block": row["block"], "pictures": b"", "failure": _pickled(error)}
        return {"block": row["block"], "pictures": pickle.dumps(pictures), "failure": b""}

    def _read(self, record: Any) -> DecodedPicture:
        return read_picture(self.source, self.preprocessing, record)


class ExplainBlock:
    """Explains blocks and writes them; an actor, which holds the network."""

    def __init__(
        self, arguments: Any, settings: Mapping[str, Any], sink: Sink, labels: Labels | None, batch_size: int
    ) -> None:
        ray = require("ray", extra="ray", purpose="the engine ray")
        self.sink, self.labels, self.batch_size = sink, labels, batch_size
        self.failure = b""
        try:
            self.explain = Explain(**ray.get(arguments))
            self._check(settings)
        except Exception as error:  # Ray would start the actor again and again
            self.failure = _pickled(error)

    def _check(self, settings: Mapping[str, Any]) -> None:
        if differences(settings, self.explain.settings):
            raise ValueError(
                f"the network, the code or the versions on {socket.gethostname()} are not those of the driver: install "
                "the same on every node"
            )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        failure = self.failure or batch["failure"][0]
        done: dict[str, Any] = {"number": -1, "rows": 0, "errors": 0, "actor": "", "seconds": b"", "failure": failure}
        if not failure:
            try:
                done |= self._explain(pickle.loads(batch["block"][0]), pickle.loads(batch["pictures"][0]))
            except Exception as error:
                done["failure"] = _pickled(error)
        return {name: np.array([value], object if isinstance(value, bytes) else None) for name, value in done.items()}

    def _explain(self, block: Block, pictures: list[DecodedPicture]) -> dict[str, Any]:
        before = dict(self.explain.seconds)
        # Ray repeats the block that a killed actor had begun; the actor may have written it just before.
        errors = self.sink.errors_of(block) if isinstance(self.sink, LookupSink) else None
        started = perf_counter()
        if errors is None:
            rows = rows_of(self.explain, block, pictures, self.labels, self.batch_size)
            started, errors = perf_counter(), int((rows["error"] != "").sum())
            self.sink.write(block, rows)
        seconds = {name: self.explain.seconds[name] - before[name] for name in ("forward", "backward")}
        seconds["write"] = perf_counter() - started
        for name in ("read", "decode"):
            seconds[name] = sum(getattr(picture, name) for picture in pictures)
        return {
            "number": block.number,
            "rows": len(block.records),
            "errors": errors,
            "actor": f"{socket.gethostname()}/{os.getpid()}",
            "seconds": pickle.dumps(seconds),
        }
