"""Random views of images: a picture that excites a unit in other views too is not made of noise.

A view is turned, scaled and shifted at once, by one resampling; positions outside the image are grey. Contrast and
brightness of each colour may change too: a picture then does not live on a tint that only this network likes (Ghiasi et
al. 2022). Every number is drawn from the run's own random generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from plugin.seeds import normal, uniform

_GREY = 0.5


@dataclass(frozen=True)
class Views:
    """Settings of random views. The defaults of the fields are Lucid's views, for a side of 224 pixels.

    Attributes:
        count: views per step, over which the unit's value is averaged.
        shift: largest shift either way, as a share of the side.
        scale: least and largest share of the image's side that is seen: below 1 is a crop.
        angle: largest rotation either way, in degrees.
        noise: standard deviation of noise on the pixels.
        middle: standard deviation of the crop's middle, as a share of the side.
        colour: standard deviation of the logarithm of a channel's contrast; its brightness has half of it.
    """

    count: int = 1
    shift: float = 6 / 224
    scale: tuple[float, float] = (0.9, 1.1)
    angle: float = 10.0
    noise: float = 0.0
    middle: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"count={self.count}: at least one view per step is needed")
        for name in ("shift", "angle", "noise", "middle", "colour"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: it must not be negative")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale={self.scale}: give the least and the largest share of the side that is seen")

    def of(self, images: Tensor, randoms: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """One view of each image `(n, C, H, W)`, `(n, C, *size)`, with its graph.

        Args:
            images: in [0, 1].
            randoms: one per image.
            size: (height, width) of the views.
        """
        centred = images - _GREY
        if self.colour:
            drawn = torch.stack([normal(random, 2, images.shape[1], 1, 1) for random in randoms])
            changes = self.colour * drawn.to(images)
            centred = centred * changes[:, 0].exp() + changes[:, 1] / 2
        maps = torch.stack([self._map(random) for random in randoms]).to(images)
        grid = F.affine_grid(maps, [len(images), images.shape[1], *size], align_corners=False)
        seen = F.grid_sample(centred, grid, align_corners=False) + _GREY
        if self.noise:
            shape = seen.shape[1:]
            seen = seen + self.noise * torch.stack([normal(each, *shape) for each in randoms]).to(seen)
        return seen

    def _map(self, random: torch.Generator) -> Tensor:
        """The affine map `(2, 3)` from a view's coordinates in [-1, 1] to the image's."""
        turn, size, right, down = (2 * uniform(random, 4) - 1).tolist()
        angle = math.radians(self.angle) * turn
        low, high = self.scale
        share = (low + high) / 2 + size * (high - low) / 2
        cos, sin = share * math.cos(angle), share * math.sin(angle)
        away = 2 * self.middle * normal(random, 2)
        offset = [2 * self.shift * right + float(away[0]), 2 * self.shift * down + float(away[1])]
        return torch.tensor([[cos, -sin, offset[0]], [sin, cos, offset[1]]], device="cpu")


LUCID = Views()
# From half of the image to all of it, in other tints. In Lucid's views patterns of one size and of one tint suffice.
WIDE = Views(shift=16 / 224, scale=(0.5, 1.1), angle=15.0, colour=0.5)
# Crops in other tints, with a little noise. Smaller ones, as of the paper's 1,280 pixels, make smaller objects.
MACO = Views(count=4, shift=0.0, scale=(0.5, 1.0), angle=0.0, noise=0.05, middle=0.05, colour=0.5)
