"""Decoding of pictures from untrusted sources."""

import io

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 40_000_000
MAX_ELONGATION = 20
# Formats of photographs and of figures. Others that Pillow knows start programs (EPS) or have seen little fuzzing.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
EXTENSIONS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
# Names of the folders that divide a data set into parts with the same classes, in any case.
TRAINING, TESTING = ("train", "training"), ("test", "testing", "val", "valid", "validation")


def decode(data: bytes, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Read a picture of untrusted origin as RGB.

    It is turned upright according to its EXIF data; for an animation the first frame counts; transparent parts become
    white; 16 bits per channel become 8.

    Args:
        data: the content of a file of one of `FORMATS`.
        max_bytes: the largest accepted length.

    Raises:
        ValueError: empty, too large in bytes or pixels, longer than `MAX_ELONGATION` times its width (or the reverse),
            damaged, truncated or no picture. The message is one sentence for the sender.
    """
    if not data:
        raise ValueError("The file is empty.")
    if len(data) > max_bytes:
        raise ValueError(f"The file has {len(data) / 2**20:.1f} MB; at most {max_bytes // 2**20} MB are read.")
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_many_pixels()) from error
    except Exception as error:  # parsers of damaged headers raise errors of any type
        raise ValueError(f"The file is not a picture that can be read ({', '.join(FORMATS)}).") from error
    with opened:
        _check_size(opened.size)
        try:
            # The size in the header was checked before this line decodes any pixel.
            opened.load()
            return _to_rgb(_upright(opened))
        except Exception as error:
            raise ValueError("The picture is damaged or truncated: its pixels cannot be decoded.") from error


def _too_many_pixels() -> str:
    return f"The picture has too many pixels; at most {MAX_PIXELS // 10**6} million are decoded."


def _check_size(size: tuple[int, int]) -> None:
    shorter, longer = sorted(size)
    if shorter * longer > MAX_PIXELS:
        raise ValueError(_too_many_pixels())
    # The shorter side is scaled to the network's input, the longer one with it: a long thin picture would become huge.
    if shorter < 1 or longer > MAX_ELONGATION * shorter:
        shape = f"{size[0]} x {size[1]} pixels"
        raise ValueError(f"The picture has {shape}; its longer side may be {MAX_ELONGATION} times the shorter.")


def _upright(image: Image.Image) -> Image.Image:
    """A copy."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an unreadable orientation is no reason to refuse the photograph
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy all pixels once more


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 bits to 8 bits; floating point ones are taken as shares of white.

    Pillow's own conversion clips instead of scaling, and turns such pictures white.
    """
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    white = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    return np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
