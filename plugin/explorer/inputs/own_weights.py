"""Weights from a file of the user's own: tensors are read, nothing in the file is ever run."""

from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from plugin import models
from plugin.models import LoadedModel, Preprocessing
from plugin.models.class_name_files import MAX_BYTES as MOST_BYTES_OF_NAMES
from plugin.models.class_name_files import read_class_names

from ..server.kept_files import OwnFile, SentFile, digest
from ..server.meter import available_memory

# The limit for a file that a browser sends; a file that is opened by its path is bounded by memory.
MAX_BYTES = 200 * 2**20
EXTENSIONS = ("safetensors", "ckpt", "pt", "pth", "bin", "tar", "pt2")  # timm's are called .pth.tar
# The file, the network and the weights that it had before are in memory at once.
_COPIES = 3


@dataclass(frozen=True)
class OwnWeights:
    """A checkpoint, and how its network is used.

    Attributes:
        file: the checkpoint.
        names: a file with the names of the classes; None if there is none.
        resize, crop, mean, std: those of `Preprocessing` that differ from the architecture's own; 0 and () do not.
    """

    file: OwnFile
    names: OwnFile | None = None
    resize: int = 0
    crop: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def identity(self) -> str:
        """A digest that tells the network from others of the same architecture."""
        changes = self._changes
        if not changes and self.names is None:
            return self.file.digest
        names = self.names.digest if self.names else ""
        return digest(f"{self.file.digest} {names} {sorted(changes.items())}".encode())

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the files in a program."""
        return self.file.place, self.names.place if self.names else ""

    @property
    def _changes(self) -> dict[str, Any]:
        given = {"resize": self.resize, "crop": self.crop, "mean": self.mean, "std": self.std}
        return {name: value for name, value in given.items() if value}

    def applied(self, preprocessing: Preprocessing) -> Preprocessing:
        """The architecture's preprocessing with the changes."""
        return replace(preprocessing, **self._changes)


@dataclass(frozen=True)
class Opened:
    """A network, and the Python that opens it: an expression, and its imports beyond `plugin.models`."""

    model: LoadedModel
    source: str
    imports: tuple[str, ...] = ()


def opened(architecture: str, weights: OwnWeights) -> Opened:
    """An architecture with the weights of a file.

    A torchvision network may have another number of classes than ImageNet's: the shapes in the file say how many.

    Args:
        architecture: a bundled name, or one of torchvision's.
        weights: the file, of at most `MAX_BYTES` if a browser has sent it.

    Raises:
        ValueError: the file is empty, too large or no checkpoint, or the other file holds no names of classes;
            `plugin.models.OtherArchitecture` if it is a checkpoint of another architecture. The message is one
            sentence.
    """
    _check_size(weights.file)
    names = weights.names
    classes = read_class_names(names.name, names.read(MOST_BYTES_OF_NAMES)) if names else None
    with weights.file.on_disk() as path:
        model = models.load(architecture, checkpoint=path, classes=classes)
    arguments, imports = [repr(architecture), f"checkpoint={weights.file.place!r}"], []
    if names:
        arguments.append(f"classes=models.class_names({names.place!r})")
    changed = weights.applied(model.preprocessing)
    if changed != model.preprocessing:
        arguments.append(f"preprocessing={_python(changed)}")
        imports = ["from PIL import Image"]
    return Opened(replace(model, preprocessing=changed), f"models.load({', '.join(arguments)})", tuple(imports))


def _check_size(file: OwnFile) -> None:
    if isinstance(file, SentFile):
        if not file.held:
            raise ValueError("The checkpoint is empty.")
        if file.held > MAX_BYTES:
            raise ValueError(f"The checkpoint is too large: at most {MAX_BYTES // 2**20} MB are read.")
        return
    check_memory(file)


def check_memory(file: OwnFile) -> None:
    """Refuse a file of weights that needs more memory than is free.

    Raises:
        ValueError: it needs more, or the file was changed.
    """
    with file.on_disk() as path:
        needed, free = _COPIES * path.stat().st_size, available_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{file.name} takes about {needed / 2**30:.1f} GB of memory to be opened, and {free / 2**30:.1f} GB are "
            "free: close other programs, or use a larger machine"
        )


def _python(preprocessing: Preprocessing) -> str:
    plain = (preprocessing.resize, preprocessing.crop, preprocessing.mean, preprocessing.std)
    interpolation = Image.Resampling(preprocessing.interpolation).name
    return f"models.Preprocessing({', '.join(map(repr, plain))}, Image.Resampling.{interpolation})"
