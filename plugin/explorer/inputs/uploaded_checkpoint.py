"""Weights from a file that somebody sent: tensors are read, nothing in the file is ever run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from plugin import models
from plugin.models import LoadedModel

from ..server.files import link_name

MAX_BYTES = 200 * 2**20
_LONGEST_NAME = 60
EXTENSIONS = ("safetensors", "ckpt", "pt", "pth", "bin")


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
    if len(data) > MAX_BYTES:
        raise ValueError(f"The checkpoint is too large: at most {MAX_BYTES // 2**20} MB are read.")
    with tempfile.TemporaryDirectory() as folder:
        # Short: of other scripts a character has up to four bytes, and a name at most 255.
        path = Path(folder) / link_name(file_name)[-_LONGEST_NAME:]
        path.write_bytes(data)
        model = models.load(architecture, checkpoint=path)
    return Opened(model, f"models.load({architecture!r}, checkpoint={file_name!r})")
