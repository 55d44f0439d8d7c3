"""Optional packages. Code imports them through `require`, so that every error names the extra to install.

>>> zarr = require("zarr", extra="datasets", purpose="a store of maps")
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .errors import MissingExtraError

__all__ = ["require", "require_own"]


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: its full name, such as `sklearn.datasets`.
        extra: the key in `[project.optional-dependencies]` that installs the package.
        purpose: the feature that needs it; the subject of the error's sentence.

    Raises:
        MissingExtraError: the package is not installed (a ModuleNotFoundError). A package that is installed and fails
            for another reason raises its own error.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {_DISTRIBUTIONS.get(package, package)}: "
            f"pip install 'captum-simplicity[{extra}]'",
            name=package,
        ) from error


# Names on the package index, where they differ from the module's.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def require_own(package: str) -> None:
    """Check that a top-level package of this distribution is found, and no other file or folder of that name first.

    Raises:
        ImportError: another one is found. The message names its file.
    """
    spec = find_spec(package)
    found = spec.origin if spec is not None else None
    ours = Path(__file__).resolve().parents[1] / package / "__init__.py"
    if found is None or Path(found).resolve() != ours:
        raise ImportError(
            f"`import {package}` finds {found or 'no file'} instead of the package of captum-simplicity: rename that "
            "file or folder, or start Python elsewhere",
            name=package,
        )
