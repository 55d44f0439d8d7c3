"""Shifts, rotations and changes of scale of images, by bilinear sampling with the borders mirrored."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT, ROTATION, SCALE = "shift", "rotation", "scale"
AMOUNTS: dict[str, tuple[float, ...]] = {
    SHIFT: (1, 2, 4, 8),
    ROTATION: (5, 10, 20, 45),
    SCALE: (1.1, 1.25, 1.5, 2),
}
UNITS = {SHIFT: "pixels", ROTATION: "degrees", SCALE: "times"}
_DIRECTIONS = 4


def draw_directions(count: int, seed: int) -> Tensor:
    """For each of `count` images one of four directions, 0 to 3, int64 `(count,)`."""
    return torch.randint(0, _DIRECTIONS, (count,), generator=torch.Generator().manual_seed(seed), device="cpu")


def transform(images: Tensor, family: str, amount: float, directions: Tensor) -> Tensor:
    """Transform each image by the same amount, each in its own direction.

    Rotation and scaling keep the pixel (H // 2, W // 2) in place. It is the middle of the pixels seen by the units in
    the middle of a layer. Shifts by whole pixels copy pixels (up to the rounding of float32).

    Args:
        images: `(N, C, H, W)`.
        family: "shift", by `amount` pixels to the right, down, left or up; "rotation", by `amount` degrees clockwise or
            counter-clockwise; "scale", `amount` times larger or smaller.
        amount: amount of the transformation, > 0.
        directions: the direction of each image, 0 to 3 `(N,)`; families with two directions take it modulo 2.

    Returns:
        `(N, C, H, W)`.

    Raises:
        ValueError: there is no such family.

    >>> import torch
    >>> from plugin.experiments.invariance import transform
    >>> image = torch.arange(3.0).expand(1, 1, 3, 3)
    >>> transform(image, "shift", 1, torch.tensor([2]))[0, 0, 0]  # to the left; borders are mirrored
    tensor([1., 2., 2.])
    """
    possible = torch.stack([_matrix(family, amount, direction) for direction in range(_DIRECTIONS)])
    matrices = possible.to(images)[directions]
    height, width = images.shape[2:]
    row, column = height // 2, width // 2
    rows, columns = torch.meshgrid(
        torch.arange(height, device="cpu") - row, torch.arange(width, device="cpu") - column, indexing="ij"
    )
    homogeneous = torch.stack([columns, rows, torch.ones_like(rows)]).to(images).flatten(1)
    x, y = (matrices @ homogeneous).view(-1, 2, height, width).unbind(1)
    # grid_sample counts in half images from the centre, between pixels: -1 is the left edge of the first pixel.
    grid = torch.stack([(2 * (x + column) + 1) / width - 1, (2 * (y + row) + 1) / height - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _matrix(family: str, amount: float, direction: int) -> Tensor:
    """The map from a pixel of the result to the source of its value, (x, y) from the middle, float64 `(2, 3)`."""
    if family == SHIFT:
        x, y = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
        return torch.tensor([[1, 0, -x * amount], [0, 1, -y * amount]], dtype=torch.float64, device="cpu")
    if family == ROTATION:
        angle = math.radians(amount) * (1 if direction % 2 == 0 else -1)
        cosine, sine = math.cos(angle), math.sin(angle)
        return torch.tensor([[cosine, sine, 0], [-sine, cosine, 0]], dtype=torch.float64, device="cpu")
    if family == SCALE:
        factor = 1 / amount if direction % 2 == 0 else amount
        return torch.tensor([[factor, 0, 0], [0, factor, 0]], dtype=torch.float64, device="cpu")
    raise ValueError(f"unknown transformation {family!r}: choose one of {', '.join(AMOUNTS)}")
