"""Weights from a file that somebody sent: tensors are read, nothing in the file is ever run."""

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from plugin import models
from plugin.models import LoadedModel
from plugin.models.checkpoints import load_weights

MAX_BYTES = 200 * 2**20
EXTENSIONS = ("safetensors", "pt", "pth", "bin")


@dataclass(frozen=True)
class Opened:
    """A network, and the Python that opens it: an expression, and what it imports beyond `plugin.models`."""

    model: LoadedModel
    source: str
    imports: tuple[str, ...] = ()


def opened(architecture: str, file_name: str, data: bytes) -> Opened:
    """An architecture with the weights of a file.

    A torchvision network may have another number of classes than ImageNet's: the shapes in the file say how many.

    Args:
        architecture: a bundled name, or one of torchvision's.
        file_name: what the file is called; it tells safetensors from files of `torch.save`.
        data: its content, at most `MAX_BYTES`.

    Raises:
        ValueError: empty or too large, no checkpoint, or one of another architecture; the message is one sentence.
    """
    if not data:
        raise ValueError("The checkpoint is empty.")
    if max(len(data), _unpacked(data)) > MAX_BYTES:
        raise ValueError(f"The checkpoint is too large: at most {MAX_BYTES // 2**20} MB are read.")
    suffix = ".safetensors" if file_name.lower().endswith(".safetensors") else ".pt"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"checkpoint{suffix}"
        path.write_bytes(data)
        weights = load_weights(path)
        if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
            raise ValueError("The checkpoint holds weights that are not finite.")
        classes = None if architecture in models.known_names() else _other_classes(architecture, weights)
        if classes is None:
            model = models.load(architecture, checkpoint=path)
            return Opened(model, f"models.load({architecture!r}, checkpoint={file_name!r})")
        from torchvision.models import get_model

        network = get_model(architecture, weights=None, num_classes=classes).requires_grad_(False)
        return Opened(
            models.load(network, checkpoint=path),
            f"models.load(get_model({architecture!r}, num_classes={classes}), checkpoint={file_name!r})",
            ("from torchvision.models import get_model",),
        )


def _unpacked(data: bytes) -> int:
    """The size of what a file of `torch.save` unpacks to; 0 if it is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0


def _other_classes(architecture: str, weights: dict[str, torch.Tensor]) -> int | None:
    """The number of classes, if weights fit the architecture but for another one; else None."""
    from torchvision.models import get_model

    with torch.device("meta"):
        network: nn.Module = get_model(architecture, weights=None)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if shapes.keys() != found.keys():
        return None
    differing = [(found[name], shape) for name, shape in shapes.items() if found[name] != shape]
    counts = {other[:1] for other, _ in differing}
    # Only the first dimension of the last layers' weights counts classes.
    if len(counts) != 1 or counts == {()} or any(other[1:] != shape[1:] for other, shape in differing):
        return None
    return int(next(iter(counts))[0]) or None
