"""Pictures as PNG files, by Pillow, and numbers as NPZ files."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colours import Array


def to_png(
    picture: NDArray[np.uint8], image: Image.Image | None = None, opacity: float = 1.0, side: int = 512
) -> bytes:
    r"""A PNG file, drawn by Pillow: no browser is needed.

    Args:
        picture: `(H, W, 3)`, from `signed_colours` or `as_image`.
        image: drawn beneath, stretched over the picture.
        opacity: opacity of the picture over the image, 0 to 1.
        side: small pictures are enlarged by a whole number, without smoothing, to at least this many pixels.

    Raises:
        ValueError: the opacity is out of range.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figures.to_png(figures.as_image(np.random.randn(3, 8, 8)), side=64)[:4]
    b'\x89PNG'
    """
    above = blended(picture, image, opacity)
    factor = max(1, -(-side // max(above.size)))
    above = above.resize((above.width * factor, above.height * factor), Image.Resampling.NEAREST)
    return png(above)


def blended(picture: NDArray[np.uint8], image: Image.Image | None, opacity: float) -> Image.Image:
    """The colours of a map over an image.

    Args:
        picture: `(H, W, 3)`, from `signed_colours` or `as_image`.
        image: stretched to the size of the picture; None for the colours alone.
        opacity: opacity of the colours over the image, 0 to 1.

    Raises:
        ValueError: the opacity is out of range.

    >>> import numpy as np
    >>> from plugin import figures, models
    >>> colours = np.full((8, 8, 3), 255, dtype=np.uint8)
    >>> figures.blended(colours, models.sample_images()["cat"], opacity=0.5).size
    (8, 8)
    """
    above = Image.fromarray(picture)
    if image is None:
        return above
    beneath = image.convert("RGB").resize(above.size, Image.Resampling.BICUBIC)
    return Image.blend(beneath, above, checked_opacity(opacity))


def to_npz(arrays: Mapping[str, Array], settings: Mapping[str, Any], versions: Mapping[str, str]) -> bytes:
    """An NPZ file that `numpy.load` reads without pickle: the arrays, and `settings` and `versions` as JSON strings.

    Args:
        arrays: the arrays by name; the names `settings` and `versions` are reserved.
        settings: JSON values, sufficient to compute the arrays again.
        versions: versions of the packages that computed them.

    >>> import io
    >>> import numpy as np
    >>> from plugin import figures
    >>> data = figures.to_npz({"map": np.zeros((3, 8, 8))}, settings={"target": 3}, versions={"torch": "2.8"})
    >>> stored = np.load(io.BytesIO(data))
    >>> stored["map"].shape, stored["settings"].item()
    ((3, 8, 8), '{"target": 3}')
    """
    file = io.BytesIO()
    content: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    content |= {"settings": np.array(json.dumps(settings)), "versions": np.array(json.dumps(versions))}
    np.savez_compressed(file, **content)
    return file.getvalue()


def png(image: Image.Image, level: int = 6) -> bytes:
    """A PNG file; level 1 is a little larger than 6, and takes a fifth of the time."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=level)
    return file.getvalue()


def checked_opacity(opacity: float) -> float:
    """The opacity, unchanged.

    Raises:
        ValueError: it is out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity lies between 0 and 1, not at {opacity}")
    return float(opacity)
