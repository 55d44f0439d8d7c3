"""A digit drawn by hand: 28 x 28 pixels that are ink or not, converted to a picture, a link and a table of cells.

White ink on black, as in MNIST. A link holds one bit per pixel, so that it shows the drawing again by itself.
"""

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 28
# Cells of the table in which a drawing is edited with the keyboard, along each side: one is as wide as the pen.
CELLS = 14
_PEN = 2.0
_FINER = 8

Ink = NDArray[np.bool_]


def blank() -> Ink:
    """An empty sheet `(SIDE, SIDE)`."""
    return np.zeros((SIDE, SIDE), dtype=np.bool_)


def encode(ink: Ink) -> str:
    """The drawing `(SIDE, SIDE)` as text for a link; empty for an empty sheet."""
    return base64.urlsafe_b64encode(np.packbits(ink).tobytes()).decode().rstrip("=") if ink.any() else ""


def decode(text: str) -> Ink:
    """The reverse of `encode`.

    Raises:
        ValueError: the text is no drawing.
    """
    if not text:
        return blank()
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("is no drawing") from error
    if len(data) * 8 != SIDE * SIDE:
        raise ValueError("is no drawing")
    return np.unpackbits(np.frombuffer(data, np.uint8)).reshape(SIDE, SIDE).astype(np.bool_)


def picture(text: str) -> Image.Image:
    """The drawing as an RGB image of `SIDE` x `SIDE` pixels, white on black, with edges as soft as a pen's.

    Raises:
        ValueError: the text is no drawing.
    """
    ink = np.pad(decode(text).astype(float), 1)
    # 1-2-1 along each axis; full strength inside a stroke two pixels wide.
    rows = ink[:-2] + 2 * ink[1:-1] + ink[2:]
    soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 12
    grey = Image.fromarray(np.rint(255 * soft.clip(0, 1)).astype(np.uint8))
    return grey.convert("RGB")


def with_stroke(ink: Ink, columns: Sequence[float], rows: Sequence[float]) -> Ink:
    """The drawing with a stroke of the pen through these points, in pixels; parts outside of the sheet are lost."""
    sheet = Image.new("L", (SIDE * _FINER, SIDE * _FINER))
    draw = ImageDraw.Draw(sheet)
    points = [((x + 0.5) * _FINER, (y + 0.5) * _FINER) for x, y in zip(columns, rows, strict=True)]
    draw.line(points, fill=255, width=round(_PEN * _FINER), joint="curve")
    radius = _PEN * _FINER / 2
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    covered: Ink = np.asarray(sheet).reshape(SIDE, _FINER, SIDE, _FINER).mean((1, 3)) > 127
    return np.logical_or(ink, covered)


def to_cells(ink: Ink) -> Ink:
    """The cells `(CELLS, CELLS)` of the table: those that hold any ink."""
    size = SIDE // CELLS
    return np.asarray(ink.reshape(CELLS, size, CELLS, size).any((1, 3)))


def with_cells(ink: Ink, changes: Sequence[tuple[int, int, bool]]) -> Ink:
    """The drawing with cells (row, column) filled or emptied."""
    changed, size = ink.copy(), SIDE // CELLS
    for row, column, filled in changes:
        changed[row * size : (row + 1) * size, column * size : (column + 1) * size] = filled
    return changed
