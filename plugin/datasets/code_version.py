"""A hash of the code that has a part in a map: the version of a package is the same for many states of its files."""

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from torch import nn

_PACKAGE = Path(__file__).resolve().parents[1]
# Packages that show or measure maps and compute none.
_WITHOUT = ("explorer", "experiments", "figures", "measuring")
# Libraries whose versions are kept by number.
_LIBRARIES = ("torch", "torchvision")


def code_sha256(network: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the files of this package and of those that define a network's modules.

    Classes of PyTorch and torchvision are left out, and so are classes without a file.
    """
    digest = hashlib.sha256(_package_sha256().encode())
    for path in sorted(set(_files_of(network))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _package_sha256() -> str:
    """The hash of this package, read once as Python reads code once: a later change of a file has no effect here."""
    return _hash_of(_PACKAGE, sorted(path for path in _PACKAGE.rglob("*.py") if not _is_outside(path)))


def _is_outside(path: Path) -> bool:
    return path.relative_to(_PACKAGE).parts[0] in _WITHOUT


def _hash_of(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _files_of(network: nn.Module) -> Iterator[Path]:
    for kind in {type(module) for module in network.modules()}:
        if kind.__module__.partition(".")[0] in _LIBRARIES or kind.__module__ not in sys.modules:
            continue
        try:
            path = Path(inspect.getfile(kind)).resolve()
        except (TypeError, OSError):  # built in, or defined in an interactive session
            continue
        if path.is_file() and not path.is_relative_to(_PACKAGE):
            yield path
