"""A hash of the code that has a part in a map: the version of a package is the same for many states of its files."""

import hashlib
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


def code_sha256(network: nn.Module, model: str = "") -> str:
    """SHA-256, in hexadecimal, of the files of this package and of those that define a network's modules.

    Classes of PyTorch and torchvision are left out, and so are classes without a file.

    Args:
        network: the network; the classes that its classes inherit from count as well.
        model: the name that the network has for `load_model`; the file of a factory counts.
    """
    digest = hashlib.sha256(_package_sha256().encode())
    modules = {kind.__module__ for module in network.modules() for kind in type(module).__mro__}
    factory, colon, _ = model.partition(":")
    # The order of the contents is the same where another machine has the files in other folders.
    for content in sorted(path.read_bytes() for path in set(_files_of({*modules, factory} if colon else modules))):
        digest.update(content)
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


def _files_of(modules: Iterable[str]) -> Iterator[Path]:
    """The files of modules of other packages, by their full names."""
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name.partition(".")[0] in _LIBRARIES or file is None:  # built in, or an interactive session
            continue
        path = Path(file).resolve()
        if path.is_file() and not path.is_relative_to(_PACKAGE):
            yield path
