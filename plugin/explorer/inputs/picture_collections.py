"""Pictures that are looked at together: samples, sets of images, uploads, or a folder of the server's machine."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path

from PIL import Image

from plugin.datasets.labels import is_picture
from plugin.datasets.records import Record, UnreadablePicture
from plugin.datasets.source_files import FolderSource
from plugin.models.pictures import EXTENSIONS

from ..server import own_paths
from ..server.kept_files import SHORT, OwnFile, SentFile, local, sent
from . import image_sets, offered_pictures

# The most files of a folder; the page lists the first ones, and the command line takes all.
MOST_FILES = 20_000
# The most images of a set; those that are drawn here would have no end.
MOST_IMAGES = dict.fromkeys(image_sets.LABELS, 10_000) | {"crops": 300, "generated": 300}
# The limits of uploads, which stay in memory.
MOST_UPLOADS, MOST_UPLOADED_BYTES = 64, 64 * 2**20


@dataclass(frozen=True)
class PictureCollection:
    """Pictures that are looked at together.

    Attributes:
        name: the name for people.
        source: reads the pictures. Samples are known to other pages by their name, others by their `file`.
        files: everything that the source lists, up to `MOST_FILES`.
        cut: whether the source has more.
    """

    name: str
    source: "OwnFolder | SampleSource | ImageSetSource | UploadSource"
    files: tuple[Record, ...]
    cut: bool = False

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The files that are called as pictures are."""
        return tuple(record for record in self.files if is_picture(record.id))

    @cached_property
    def skipped(self) -> dict[str, str]:
        """The reason why a file is not looked at, by its name."""
        reason = f"Its name has no ending of a picture ({', '.join(EXTENSIONS)})."
        return {record.id: reason for record in self.files if not is_picture(record.id)}

    @cached_property
    def short(self) -> str:
        """The start of the SHA-256 of the names and sizes, by which links tell collections apart."""
        return self._digest("bytes")[:SHORT]

    @cached_property
    def state(self) -> str:
        """A digest that changes when a file does."""
        return self._digest("bytes", "modified", "label")[:SHORT]

    def _digest(self, *names: str) -> str:
        digest = hashlib.sha256()
        for record in self.files:
            digest.update("\0".join([record.id, *(str(getattr(record, name)) for name in names), "\n"]).encode())
        return digest.hexdigest()


class OwnFolder(FolderSource):
    """A folder in which only those files are read that the server may open; see `own_paths`."""

    def enters(self, folder: str) -> bool:
        """Whether a folder below it may be opened: a link may lead elsewhere."""
        try:
            _allowed(folder)
        except ValueError:
            return False
        return True

    def file(self, record: Record) -> OwnFile:
        """The file, for other pages.

        Raises:
            ValueError: it is gone, or may not be opened.
        """
        _allowed(record.place)
        return local(Path(os.path.realpath(record.place)))

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.records.Source`."""
        try:
            _allowed(record.place)
        except ValueError as error:
            raise UnreadablePicture("The file is a link that leads to nothing that this server may open.") from error
        return super().read(record)


def _allowed(path: str) -> None:
    real = os.path.realpath(path)
    if real != path:  # below a folder that was allowed, only a link leads elsewhere
        own_paths.resolved(real)


class SampleSource:
    """The bundled pictures by name: digits for a network that sees grey values, else photographs."""

    def __init__(self, grey: bool) -> None:
        self._grey = grey

    def records(self) -> Iterator[Record]:
        """The pictures; see `plugin.datasets.records.Source`."""
        digits = offered_pictures.DIGITS
        names = digits if self._grey else [name for name in offered_pictures.samples() if name not in digits]
        for name in names:
            yield Record(name, name, label=name.removeprefix("digit-"))

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.records.Source`."""
        return _png_of_sample(record.place)


@cache
def _png_of_sample(name: str) -> bytes:
    """Compressed once: pages read the samples repeatedly, and the compression takes longer than all other steps."""
    file = io.BytesIO()
    offered_pictures.sample(name).image.save(file, format="PNG")
    return file.getvalue()


class ImageSetSource:
    """The images of a set, in their own size.

    Args:
        name: a key of `image_sets.LABELS`.
        labelled: whether their labels are classes of the network.

    Raises:
        FileNotFoundError: the set is not on this machine.
    """

    def __init__(self, name: str, labelled: bool) -> None:
        self.name, self.labelled, self._version = name, labelled, image_sets.version(name)
        self._pixels, labels = image_sets.pixels_of(name, MOST_IMAGES[name])
        classes = image_sets.CLASSES[name] if labelled else ()
        self._labels = [classes[label] for label in labels.tolist()] if labelled and labels is not None else []

    def records(self) -> Iterator[Record]:
        """The pictures; see `plugin.datasets.records.Source`."""
        for number in range(len(self._pixels)):
            label = self._labels[number] if self._labels else None
            yield Record(f"{self.name}-{number:05}.png", number, modified=self._version, label=label)

    def file(self, record: Record) -> OwnFile:
        """The file, for other pages."""
        return sent(record.id, self.read(record))

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.records.Source`."""
        pixels = self._pixels[record.place].permute(1, 2, 0).squeeze(2)  # grey ones have no last dimension
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, format="PNG")
        return file.getvalue()


class UploadSource:
    """Files that a browser has sent."""

    def __init__(self, files: Sequence[SentFile]) -> None:
        self._files = tuple(files)

    def records(self) -> Iterator[Record]:
        """The pictures; those of one name are told apart by numbers. See `plugin.datasets.records.Source`."""
        seen: dict[str, int] = {}
        for place, file in enumerate(self._files):
            seen[file.name] = number = seen.get(file.name, 0) + 1
            stem, dot, ending = file.name.rpartition(".")
            name = file.name if number == 1 else f"{stem} ({number}){dot}{ending}"
            yield Record(name, place, len(file.data), file.digest)

    def file(self, record: Record) -> OwnFile:
        """The file, for other pages."""
        found: OwnFile = self._files[record.place]
        return found

    def read(self, record: Record) -> bytes:
        """The content; see `plugin.datasets.records.Source`."""
        data: bytes = self._files[record.place].data
        return data


def of_folder(folder: Path) -> PictureCollection:
    """A folder that `own_paths.resolved_folder` has returned.

    Raises:
        ValueError: it holds no file.
        OSError: it cannot be listed.
    """
    return _listed(folder.name or str(folder), OwnFolder(folder))


def of_samples(grey: bool) -> PictureCollection:
    """The bundled pictures: digits for a network that sees grey values, else photographs."""
    return _listed("samples", SampleSource(grey))


@lru_cache(maxsize=2)
def of_image_set(name: str, labelled: bool, version: str = "") -> PictureCollection:
    """The images of a set; arguments and errors are those of `ImageSetSource`.

    Args:
        name, labelled: those of `ImageSetSource`.
        version: the result of `image_sets.version`: changed files are read again.
    """
    return _listed(image_sets.LABELS[name], ImageSetSource(name, labelled))


def of_uploads(files: Sequence[SentFile]) -> PictureCollection:
    """Pictures that a browser has sent."""
    return _listed("uploads", UploadSource(files))


def accepted(files: Sequence[SentFile]) -> tuple[tuple[SentFile, ...], str]:
    """As many uploads as are kept, from the first on, and one sentence on the others; empty if there are none."""
    kept: list[SentFile] = []
    size = 0
    for file in files:
        size += len(file.data)
        if len(kept) == MOST_UPLOADS or size > MOST_UPLOADED_BYTES:
            limits = f"{MOST_UPLOADS} pictures and {MOST_UPLOADED_BYTES // 2**20} MB"
            return tuple(kept), f"At most {limits} are kept: the last {len(files) - len(kept)} were not."
        kept.append(file)
    return tuple(kept), ""


def _listed(name: str, source: OwnFolder | SampleSource | ImageSetSource | UploadSource) -> PictureCollection:
    files = tuple(islice(source.records(), MOST_FILES + 1))
    return PictureCollection(name, source, files[:MOST_FILES], len(files) > MOST_FILES)
