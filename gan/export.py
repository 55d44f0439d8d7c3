"""Images as files: a grid as PNG, a run as GIF."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plugin.files import replacing

from .maximising import Result


def grid(images: Tensor, columns: int | None = None, side: int = 56, gap: int = 2) -> Image.Image:
    """Images side by side, row by row.

    Args:
        images: `(n, C, H, W)` in [0, 1], C = 1 or 3.
        columns: how many in a row; by default the grid is as square as it can be.
        side: small images are enlarged by a whole number, without smoothing, to at least so many pixels.
        gap: pixels between them, white.

    Raises:
        ValueError: another shape, or no images.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"a grid needs images (n, 1 or 3, H, W), not {tuple(images.shape)}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    factor = max(1, -(-side // max(images.shape[2:])))
    pixels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    pixels = pixels.expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    height, width = pixels.shape[2] + gap, pixels.shape[3] + gap
    sheet = torch.full((3, height * -(-len(pixels) // columns) + gap, width * columns + gap), 255, dtype=torch.uint8)
    for index, picture in enumerate(pixels):
        top, left = gap + index // columns * height, gap + index % columns * width
        sheet[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return Image.fromarray(np.ascontiguousarray(sheet.permute(1, 2, 0).numpy()))


def save_grid(images: Tensor, path: str | Path, columns: int | None = None, side: int = 56) -> Path:
    """Write `grid` as a PNG file; folders on the way are made, an interrupted call leaves the old file."""
    with replacing(path) as partial:
        grid(images, columns, side).save(partial, "PNG", optimize=True)
    return Path(path)


def save_gif(
    frames: Iterable[Result | Tensor],
    path: str | Path,
    columns: int | None = None,
    side: int = 56,
    milliseconds: int = 60,
) -> Path:
    """Write a GIF that plays the frames, stands still on the last for two seconds, and starts again.

    Args:
        frames: what `iterate` yields, or images `(n, C, H, W)` in [0, 1].
        path: the file; folders on the way are made.
        columns, side: see `grid`.
        milliseconds: per frame.

    Raises:
        ValueError: there are no frames.
    """
    pictures = [grid(frame if isinstance(frame, Tensor) else frame.images, columns, side, 2) for frame in frames]
    if not pictures:
        raise ValueError("a GIF needs at least one frame")
    # One palette for all: grey levels for grey images, else the best colours of the last picture.
    grey = all(np.ptp(np.asarray(picture), axis=2).max() == 0 for picture in pictures)
    shared = None if grey else pictures[-1].quantize(256)
    indexed = [picture.convert("L") if shared is None else picture.quantize(palette=shared) for picture in pictures]
    durations = [milliseconds] * (len(indexed) - 1) + [2000]
    with replacing(path) as partial:
        indexed[0].save(partial, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0)
    return Path(path)
