"""Pictures to explain: the bundled photographs, and uploads."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from plugin.models.pictures import EXTENSIONS, MAX_BYTES, decode

from . import drawing

__all__ = ["EXTENSIONS", "MAX_BYTES", "Picture", "decode", "digest", "sample", "uploaded"]


@dataclass(frozen=True)
class Picture:
    """A picture with what identifies it.

    Attributes:
        image: RGB.
        digest: SHA-256 of the uploaded bytes, or of a sample's pixels, in hexadecimal.
        source: the Python expression that gives `image`, for snippets.
        imports: the import statements that the expression needs beyond `plugin.models`.
    """

    image: Image.Image
    digest: str
    source: str
    imports: tuple[str, ...] = ()


DIGITS = tuple(f"digit-{label}" for label in range(10))


def samples() -> tuple[str, ...]:
    """The names of the bundled pictures: photographs and handwritten digits."""
    from plugin import models

    return (*models.sample_images(), *DIGITS)


def sample(name: str) -> Picture:
    """A bundled picture.

    Raises:
        ValueError: there is none of this name.
    """
    from plugin import models

    if name in DIGITS:
        label = DIGITS.index(name)
        image = digit(label)
        return Picture(image, digest(image.tobytes()), f"digit({label})", (f"from {__name__} import digit",))
    pictures = models.sample_images()
    if name not in pictures:
        raise ValueError(f"there is no sample image {name!r}: choose among {', '.join(samples())}")
    image = pictures[name]
    return Picture(image, digest(image.tobytes()), f"models.sample_images()[{name!r}]")


def digit(label: int) -> Image.Image:
    """A handwritten digit of scikit-learn's bundled data, as MNIST shows it: white on black, 28 x 28 pixels.

    Args:
        label: 0 to 9.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    return Image.fromarray(_at_mnist_size(data.images[int((data.target == label).argmax())])).convert("RGB")


def handwritten(count: int = 1797) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first of the 1,797 `(N, 28, 28)`, and their labels `(N,)`."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.stack([_at_mnist_size(values) for values in data.images[:count]])
    return pixels, data.target[:count].astype(np.int64)


def _at_mnist_size(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """8 x 8 values from 0 to 16 as 28 x 28 grey levels."""
    grey = Image.fromarray((values * 15.9375).astype(np.uint8))
    sheet = Image.new("L", (28, 28))
    sheet.paste(grey.resize((22, 22), Image.Resampling.BICUBIC), (3, 3))
    return np.asarray(sheet)


def drawn(text: str) -> Picture:
    """A drawing, as `drawing.encode` writes it.

    Raises:
        ValueError: the text is no drawing.
    """
    image = drawing.picture(text)
    return Picture(
        image, digest(image.tobytes()), f"picture({text!r})", ("from plugin.explorer.drawing import picture",)
    )


def uploaded(data: bytes, file_name: str) -> Picture:
    """A picture from the bytes of a file.

    Raises:
        ValueError: as `decode`.
    """
    expression = f"decode(Path({file_name!r}).read_bytes())"
    imports = ("from pathlib import Path", "from plugin.explorer.images import decode")
    return Picture(decode(data), digest(data), expression, imports)


def square(image: Image.Image, side: int = 512) -> bytes:
    """A picture in the middle of a transparent square, as a PNG file."""
    sheet = ImageOps.pad(image.convert("RGBA"), (side, side), color=(0, 0, 0, 0), centering=(0, 0))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
