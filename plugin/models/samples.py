"""The photographs that ship with the package; `photographs/SOURCES.txt` names their authors and licences."""

from functools import cache
from pathlib import Path

from PIL import Image

_FOLDER = Path(__file__).with_name("photographs")
_NAMES = ("cat", "astronaut", "coffee", "rocket", "china", "flower")


@cache
def sample_images() -> dict[str, Image.Image]:
    """Six RGB photographs by name, 256 pixels on the shorter side: cat, astronaut, coffee, rocket, china, flower.

    >>> from plugin import models
    >>> models.sample_images()["coffee"].size
    (384, 256)
    """
    return {name: _opened(_FOLDER / f"{name}.jpg") for name in _NAMES}


def _opened(path: Path) -> Image.Image:
    """The decoded picture; the file is closed."""
    with Image.open(path) as image:
        return image.convert("RGB")
