"""Predictions of a network for the pictures of a collection, filled step by step by pages and jobs together."""

import io
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from plugin.datasets.explain import MAX_FILE_BYTES
from plugin.datasets.labels import labels_where_known
from plugin.heads import probabilities
from plugin.models.pictures import decode

from ..server.device_memory import guarded
from ..server.jobs import Task
from ..server.kept_files import SHORT, digest
from .picture_collections import PictureCollection
from .subject import Subject

BATCH = 16
# Each holds one decoded picture.
_READERS = 2
_SIDE, _QUALITY = 144, 80
# About 5 KB each.
_MOST_THUMBNAILS = 4000

Pixels: TypeAlias = Mapping[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class KnownPictures:
    """The labels and predictions of the pictures at one moment, a row each.

    Attributes:
        labels: `(N,)`, the class of each; -1 where it is not known.
        predicted: `(N,)`, the most probable class; -1 where the network was not asked, or has no answer.
        confidence: `(N,)`, its probability; NaN where there is none.
        broken: by row, the reason why a picture cannot be read or has no answer.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    broken: Mapping[int, str]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each picture has a prediction, `(N,)`."""
        return self.predicted >= 0

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Whether each has a prediction and a label, `(N,)`."""
        return self.known & (self.labels >= 0)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether each has a prediction that is not its label, `(N,)`."""
        return self.judged & np.not_equal(self.predicted, self.labels)


class FolderPredictions:
    """Predictions of a network for the pictures of a collection. Threads share them.

    A picture is decoded once, for its thumbnail and for the network. The memory does not depend on the size of the
    pictures, and grows by a few KB with each of them.

    Attributes:
        subject: the network.
        collection: the pictures; a row is an index of `collection.records`.
    """

    def __init__(self, subject: Subject, collection: PictureCollection) -> None:
        self.subject, self.collection = subject, collection
        count = len(collection.records)
        self._labels = np.array(labels_where_known(collection.records, subject.model.classes), np.int64)
        self._predicted, self._confidence = np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
        self._broken: dict[int, str] = {}
        self._thumbnails: OrderedDict[int, bytes] = OrderedDict()
        self._digests: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.collection.records)

    def findings(self) -> KnownPictures:
        """The labels and predictions now."""
        with self._lock:
            return KnownPictures(self._labels, self._predicted.copy(), self._confidence.copy(), dict(self._broken))

    def left(self, rows: Iterable[int] | None = None) -> list[int]:
        """The rows, among these or all, that are neither predicted nor broken."""
        with self._lock:
            chosen = range(len(self)) if rows is None else rows
            return [row for row in chosen if self._predicted[row] < 0 and row not in self._broken]

    def thumbnail(self, row: int) -> bytes | None:
        """A JPEG file of `_SIDE` pixels at most; None if the picture was not read, or is broken."""
        with self._lock:
            return self._thumbnails.get(row)

    def digest(self, row: int) -> str:
        """The start of the SHA-256 of a picture's file, as links have it; empty if it was not read, or is broken."""
        with self._lock:
            return self._digests.get(row, "")

    def read(self, rows: Collection[int]) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Read and decode pictures: the pixels `(H, W, C)` that the network sees of each, in order; None for a broken
        one. Keeps the thumbnail of each, or the reason why it is broken."""
        with ThreadPoolExecutor(_READERS, "read") as readers:
            yield from zip(rows, readers.map(self._read, rows), strict=True)

    def _read(self, row: int) -> NDArray[np.uint8] | None:
        try:
            data = self.collection.source.read(self.collection.records[row])
            image = decode(data, MAX_FILE_BYTES)
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            with self._lock:
                self._broken[row] = reason or "It cannot be read."
            return None
        pixels = self.subject.model.preprocessing.pixels(image)
        small = thumbnail(image)  # changes the image, which is not used again
        with self._lock:
            self._digests[row] = digest(data)[:SHORT]
            self._thumbnails[row] = small
            while len(self._thumbnails) > _MOST_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return pixels

    def predict(self, pixels: Pixels) -> None:
        """Predict, in batches, the rows that are `left`, from the pixels of `read`."""
        rows = self.left(pixels)
        for start in range(0, len(rows), BATCH):
            self._predict(rows[start : start + BATCH], pixels)

    def inputs(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """The network's inputs `(n, C, H, W)`, on its device, for pixels `(n, H, W, C)` of `read`."""
        model = self.subject.model
        return model.preprocessing.normalised(torch.from_numpy(pixels)).to(self.subject.device)

    def _predict(self, rows: Sequence[int], pixels: Pixels) -> None:
        try:
            confidence, predicted = self._answers(np.stack([pixels[row] for row in rows]))
        except Exception as error:  # any network may fail in a way of its own, and some take one picture at a time only
            for row in rows if len(rows) > 1 else ():
                self._predict([row], pixels)
            if len(rows) == 1:
                reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
                with self._lock:
                    self._broken[rows[0]] = f"The network fails on it: {reason}."
            return
        with self._lock:
            for row, chosen, value in zip(rows, predicted, confidence, strict=True):
                if np.isfinite(value):
                    self._predicted[row], self._confidence[row] = chosen, value
                else:
                    self._broken[row] = "The network's output for it is not finite."

    def _answers(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The largest probability of each picture, and its class, for pixels `(n, H, W, C)`."""
        with guarded(self.subject.device), torch.no_grad():
            outputs = self.subject.model.network(self.inputs(pixels)).float()
            best = probabilities(self.subject.head, outputs).max(1)
        return best.values.cpu().numpy(), best.indices.cpu().numpy()


def predict_all(task: Task, predictions: FolderPredictions) -> FolderPredictions:
    """Predict every picture that is left, for a `jobs.Job`. The predictions stay when it is stopped."""
    rows, total = predictions.left(), len(predictions)
    for start in range(0, len(rows), BATCH):
        done = total - len(rows) + start
        task.report(done / total, f"{done} of {total} pictures", predictions)
        batch = predictions.read(rows[start : start + BATCH])
        predictions.predict({row: pixels for row, pixels in batch if pixels is not None})
    return predictions


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG file of a picture; the picture itself may be shrunk.

    A very small picture is enlarged by a whole number, because a browser would blur its pixels.
    """
    factor = _SIDE // max(image.size)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()
