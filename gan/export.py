"""Images as files: a grid as PNG, a run as GIF."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plugin.files import replacing, require_writable

from .maximising import Result

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"optimize": True}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}


def grid(images: Tensor, columns: int | None = None, side: int = 56, gap: int = 2) -> Image.Image:
    """Images side by side, row by row.

    Args:
        images: `(n, C, H, W)` in [0, 1] or uint8, C = 1 or 3.
        columns: images per row; by default the grid is as square as possible.
        side: least side in pixels; smaller images are enlarged by a whole factor, without smoothing.
        gap: white pixels between images.

    Raises:
        ValueError: the images have another shape or integer type, or there are no images, or no column.
    """
    if (columns is not None and columns < 1) or gap < 0:
        raise ValueError(f"columns={columns} and gap={gap}: give at least one column, and no negative gap")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"a grid needs images (n, 1 or 3, H, W), not {tuple(images.shape)}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    factor = max(1, -(-side // max(images.shape[2:])))
    pixels = _pixels(images).expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    height, width = pixels.shape[2] + gap, pixels.shape[3] + gap
    sheet = torch.full(
        (3, height * -(-len(pixels) // columns) + gap, width * columns + gap), 255, dtype=torch.uint8, device="cpu"
    )
    for index, picture in enumerate(pixels):
        top, left = gap + index // columns * height, gap + index % columns * width
        sheet[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return Image.fromarray(np.ascontiguousarray(sheet.permute(1, 2, 0).numpy()))


def _pixels(images: Tensor) -> Tensor:
    """Images as uint8 on the CPU: scaled from [0, 1], or unchanged if they are uint8.

    Raises:
        ValueError: they are integers of another type; all values above 0 would become white.
    """
    images = images.detach().cpu()
    if not images.is_floating_point() and images.dtype not in (torch.uint8, torch.bool):
        raise ValueError(f"images are of {images.dtype}: give numbers in [0, 1], or uint8")
    return images if images.dtype == torch.uint8 else (images.float().clamp(0, 1) * 255).round().byte()


def save_grid(images: Tensor, path: str | Path, columns: int | None = None, side: int = 56) -> Path:
    """Write `grid` in the format of the file name's ending, PNG without one; missing folders are created.

    Raises:
        ValueError: the name's ending is not in `FORMATS`.
        OSError: the file cannot be written; an earlier file is kept.
    """
    format_of, options = picture_format(path)
    with replacing(path) as partial:
        grid(images, columns, side).save(partial, format_of, **options)
    return Path(path)


def check_names(grid_file: str | Path, gif_file: str | Path | None = None) -> None:
    """Raise the errors of `save_grid` and `save_gif` for these names before the work, not after it."""
    picture_format(grid_file)
    require_writable(grid_file)
    if gif_file is not None:
        _refuse_other_films(gif_file)
        require_writable(gif_file)


def _refuse_other_films(path: str | Path) -> None:
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{path} does not end in .gif, the format of the film")


def picture_format(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Pillow's name for the format of a picture file, and its options for saving."""
    ending = Path(path).suffix.lower() or ".png"
    if ending not in FORMATS:
        raise ValueError(f"{path} does not end in a format of pictures: give it one of {', '.join(FORMATS)}")
    return FORMATS[ending]


class Film:
    """The frames of a GIF, as uint8. A long film keeps only every second, fourth, ... frame, and the last.

    Args:
        most_bytes: the most memory that the frames may take.
    """

    def __init__(self, most_bytes: int = 2**28) -> None:
        self.most_bytes, self.every = most_bytes, 1
        self._seen, self._kept, self._last = 0, list[Tensor](), torch.empty(0, device="cpu")

    def add(self, images: Tensor) -> None:
        """Append a frame.

        Args:
            images: `(n, C, H, W)` in [0, 1] or uint8; all frames have the same shape.
        """
        self._last = _pixels(images)
        if self._seen % self.every == 0:
            self._kept.append(self._last)
        self._seen += 1
        if len(self._kept) > 1 and len(self._kept) * self._last.numel() > self.most_bytes:
            self._kept, self.every = self._kept[::2], 2 * self.every

    @property
    def frames(self) -> list[Tensor]:
        """The kept frames, each `(n, C, H, W)` in uint8."""
        ended = not self._seen or self._kept[-1] is self._last
        return self._kept if ended else [*self._kept, self._last]

    def save(self, path: str | Path, columns: int | None = None, side: int = 56, milliseconds: int = 60) -> Path:
        """Write the GIF; see `save_gif`."""
        _refuse_other_films(path)
        frames = self.frames
        if not frames:
            raise ValueError("a GIF needs at least one frame")
        # One palette for all: grey levels for grey images, else the best colours of the last picture.
        grey = all(bool((frame == frame[:, :1]).all()) for frame in frames)
        palette = None if grey else grid(frames[-1], columns, side).quantize(256)
        pictures = (grid(frame, columns, side) for frame in frames)  # one at a time
        indexed = (each.convert("L") if palette is None else each.quantize(palette=palette) for each in pictures)
        durations = [milliseconds * self.every] * (len(frames) - 1) + [2000]
        with replacing(path) as partial:
            next(indexed).save(partial, "GIF", save_all=True, append_images=indexed, duration=durations, loop=0)
        return Path(path)


def save_gif(
    frames: Iterable[Result | Tensor],
    path: str | Path,
    columns: int | None = None,
    side: int = 56,
    milliseconds: int = 60,
) -> Path:
    """Write a GIF that plays the frames, pauses on the last for two seconds, and starts again.

    Args:
        frames: results of `iterate`, or images `(n, C, H, W)` in [0, 1]; see `Film`.
        path: the file; missing folders are created.
        columns, side: see `grid`.
        milliseconds: duration of a frame.

    Raises:
        ValueError: there are no frames, or the name does not end in .gif.
    """
    _refuse_other_films(path)
    film = Film()
    for frame in frames:
        film.add(frame if isinstance(frame, Tensor) else frame.images)
    return film.save(path, columns, side, milliseconds)
