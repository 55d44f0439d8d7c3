"""Tensors from untrusted files. Nothing in a file is ever run, and its claims are checked before they are used.

Files of `torch.save` are pickles. They are read by PyTorch's restricted reader, in which every class that it does not
know is replaced by one without behaviour. A checkpoint of Lightning, the options of a training script or a whole
pickled module can be opened, and its objects other than tensors do nothing.
"""

import io
import pickletools
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .exported_programs import file_of_weights, is_program, weights_in

_REMEDY = "give a .safetensors file, or a file of torch.save(model.state_dict(), ...)"
# The structure of the largest checkpoints takes a few megabytes; their values lie beside it.
_LARGEST_STRUCTURE = 64 * 2**20
_DEEPEST = 6
# These allocate as much memory as a number in the file asks for.
_MAKES_MEMORY = frozenset({"builtins.bytearray", "__builtin__.bytearray"})
# Objects of a training program are never made by these: they act.
_ACTING_MODULES = frozenset(
    "os posix nt sys io subprocess shutil socket ctypes importlib runpy pty webbrowser multiprocessing".split()
)
_ACTING = frozenset({"open", "exec", "eval", "compile", "__import__", "input", "breakpoint"})
_lock = threading.Lock()


class _Inert:
    """Stands for any class: its objects are dictionaries, which get the attributes stored in the file."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


def attributes_of(content: Any) -> dict[str, Any]:
    """The stored attributes of an object of an unknown class; empty for other objects."""
    return dict(vars(content)) if isinstance(content, OrderedDict) else {}


def read_tensors(path: str | Path) -> Any:
    """The content of a file: tensors in nested dictionaries and lists; for other objects see `attributes_of`.

    Args:
        path: a `.safetensors` file, one of `torch.save`, or a program of `torch.export`, whose weights alone are read.

    Raises:
        OSError: there is no such file, or it may not be read; the message names the remedy.
        ValueError: the file is none of these, is damaged, or holds a program instead of weights; or a tensor in it is
            sparse, quantised, or larger than the values that the file has for it. One sentence names the file and the
            remedy.
    """
    source = Path(path)
    start = _first_bytes(source)
    if source.suffix == ".safetensors" or not (start[:2] == b"PK" or start[:1] == b"\x80"):
        content: Any = _safetensors(source)
    else:
        is_archive = zipfile.is_zipfile(source)
        exported = _weights_of_program(source) if is_archive else None
        content = _pickled(source, is_archive) if exported is None else exported
    for name, tensor in tensors_of(content):
        _check_tensor(source.name, name, tensor)
    return content


def _first_bytes(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise type(error)(f"the checkpoint {source} cannot be read ({error.strerror}): {_REMEDY}") from error


def _safetensors(source: Path) -> dict[str, Tensor]:
    try:
        return load_file(source)
    except Exception as error:  # parsers of damaged files raise errors of any type
        raise _unreadable(source, type(error).__name__) from error


class UnreadableCheckpoint(ValueError):
    """A file is damaged, or cannot be read without running code in it. The message names the file.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin import models
    >>> path = Path(mkdtemp(), "mine.pt")
    >>> path.write_text("epoch 3: loss 0.1")
    17
    >>> try:
    ...     models.load("resnet18", checkpoint=path)
    ... except models.UnreadableCheckpoint as error:
    ...     print(str(error).partition(" (")[0])
    mine.pt is not a checkpoint that can be read safely
    """


def _unreadable(source: Path, reason: str) -> UnreadableCheckpoint:
    return UnreadableCheckpoint(f"{source.name} is not a checkpoint that can be read safely ({reason}): {_REMEDY}")


def _weights_of_program(source: Path) -> Any:
    """The weights in a program of `torch.export`; None for an archive of `torch.save`, which is safe to be read then.

    Raises:
        ValueError: it is neither, or unpacks to much more than its size.
    """
    with zipfile.ZipFile(source) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 1.1 * source.stat().st_size + 2**20:
            raise ValueError(
                f"the checkpoint {source.name} unpacks to {unpacked / 2**20:.0f} MB, many times its size: {_REMEDY}"
            )
        if is_program(archive):
            try:
                return weights_in(archive)
            except Exception as error:  # parsers of damaged files raise errors of any type
                raise _unreadable(source, type(error).__name__) from error
        file = file_of_weights(archive)
        if file is None:
            _check_archive(source, archive)
            return None
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as inner:
            _check_archive(source, inner)
    except zipfile.BadZipFile as error:
        raise _unreadable(source, type(error).__name__) from error
    return _pickled(source, is_archive=True, inner=file)


def _check_archive(source: Path, archive: zipfile.ZipFile) -> None:
    """Refuse programs, and structures that ask for much memory."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"the checkpoint {source.name} is a TorchScript program, whose operations cannot be seen: "
            f"save its weights with torch.save(torch.jit.load({source.name!r}).state_dict(), 'weights.pt')"
        )
    structure = next((entry for entry in entries if entry.filename.endswith("data.pkl")), None)
    if structure is None:
        raise ValueError(f"the file {source.name} is an archive without a checkpoint in it: {_REMEDY}")
    if structure.file_size > _LARGEST_STRUCTURE:
        raise ValueError(
            f"the checkpoint {source.name} describes {structure.file_size / 2**20:.0f} MB of objects: {_REMEDY}"
        )
    called = {
        str(argument).replace(" ", ".") for operation, argument, _ in pickletools.genops(archive.read(structure))
        if operation.name == "GLOBAL"
    }  # fmt: skip
    if called & _MAKES_MEMORY:
        raise ValueError(f"the checkpoint {source.name} asks for memory as no other does: {_REMEDY}")


def _pickled(source: Path, is_archive: bool, inner: bytes | None = None) -> Any:
    """The content of a file of `torch.save`, or of one inside of it."""

    def file() -> Any:
        return source if inner is None else io.BytesIO(inner)

    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file()) if is_archive else []
        acting = next((name for name in unknown if _acts(name)), None)
        if acting is not None:
            raise _unreadable(source, f"it calls {acting}")
        # The list applies to the whole process: no other thread may take these classes for safe meanwhile.
        with _lock, torch.serialization.safe_globals([(_Inert, name) for name in unknown]):
            return torch.load(file(), "cpu", weights_only=True)
    except UnreadableCheckpoint:
        raise
    except Exception as error:  # parsers of damaged files raise errors of any type
        raise _unreadable(source, type(error).__name__) from error


def _acts(name: str) -> bool:
    module, _, function = name.rpartition(".")
    return module.partition(".")[0] in _ACTING_MODULES or (
        module in ("builtins", "__builtin__") and function in _ACTING
    )


def tensors_of(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, with its name; containers deeper than in any checkpoint are left out."""
    if isinstance(content, Tensor):
        yield name, content
    elif depth < _DEEPEST:
        parts = [*content.items()] if isinstance(content, Mapping) else []
        parts += attributes_of(content).items()
        parts += [*enumerate(content)] if isinstance(content, (list, tuple)) else []
        for key, value in parts:
            yield from tensors_of(value, f"{name}.{key}".lstrip("."), depth + 1)


def _check_tensor(file: str, name: str, tensor: Tensor) -> None:
    kind = None
    if tensor.is_quantized:
        kind = "is quantised"
    elif tensor.layout is not torch.strided or tensor.is_nested:
        kind = f"is not strided ({str(tensor.layout).removeprefix('torch.')})"
    elif tensor.is_meta:
        kind = "has no values"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        kind = f"has shape {tuple(tensor.shape)}, and the file holds fewer values"
    if kind is not None:
        raise ValueError(
            f"the tensor {name!r} in the checkpoint {file} {kind}: save the state dict of a floating point model"
        )
