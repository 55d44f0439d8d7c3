"""Pictures to explain: the bundled photographs and digits, drawings, and uploads."""

import io
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from plugin.models.pictures import MAX_BYTES, decode

from ..server.kept_files import OwnFile, digest
from . import drawn_digit
from .handwritten_digits import digit


@dataclass(frozen=True)
class Picture:
    """A picture with its identity: two are equal, and hash alike, if their digest is the same.

    Attributes:
        image: RGB.
        digest: SHA-256 of the uploaded bytes, or of a sample's pixels, in hexadecimal.
        source: the Python expression that gives `image`, for programs.
        imports: the import statements that the expression needs beyond `plugin.models`.
    """

    image: Image.Image = field(compare=False)
    digest: str
    source: str = field(compare=False)
    imports: tuple[str, ...] = field(default=(), compare=False)


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
        imports = (f"from {digit.__module__} import {digit.__name__}",)
        return Picture(image, digest(image.tobytes()), f"digit({label})", imports)
    pictures = models.sample_images()
    if name not in pictures:
        raise ValueError(f"there is no sample image {name!r}: choose among {', '.join(samples())}")
    image = pictures[name]
    return Picture(image, digest(image.tobytes()), f"models.sample_images()[{name!r}]")


def drawn(text: str) -> Picture:
    """A drawing, as `drawn_digit.encode` writes it.

    Raises:
        ValueError: the text is no drawing.
    """
    image = drawn_digit.picture(text)
    imports = (f"from {drawn_digit.__name__} import picture",)
    return Picture(image, digest(image.tobytes()), f"picture({text!r})", imports)


def own(file: OwnFile) -> Picture:
    """A picture from a file of the user's own.

    Raises:
        ValueError: as `plugin.models.pictures.decode`, or the file was changed.
    """
    expression = f"decode(Path({file.place!r}).read_bytes())"
    imports = ("from pathlib import Path", f"from {decode.__module__} import decode")
    return Picture(decode(file.read(MAX_BYTES)), file.digest, expression, imports)


def square(image: Image.Image, side: int = 512) -> bytes:
    """A picture in the middle of a transparent square, as a PNG file."""
    sheet = ImageOps.pad(image.convert("RGBA"), (side, side), color=(0, 0, 0, 0), centering=(0, 0))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()
