"""The positions of the runs of an ascent, and the choice of their next steps."""

import torch
from torch import Tensor

from .batching import in_blocks

# Factor of the step size after a successful step, and the smallest factor after a failed one.
GROW, SHRINK = 1.2, 0.2
# A run is stuck once its steps are shorter than this share of the first one.
_STUCK = 0.1
# Adam's decay rates for the means of slopes and of squared slopes.
_MEAN, _SQUARES = 0.9, 0.999


def like_rows(values: Tensor, codes: Tensor) -> Tensor:
    """Values `(m,)` in a shape that broadcasts with codes `(m, ...)`."""
    return values.view(-1, *[1] * (codes.ndim - 1))


class Climb:
    """The value and the slope at the code of each active run, and the size of its next step along the slope.

    Args:
        codes: where the runs begin `(m, ...)`.
        size: that of the first step.
        rows: number of rows per block.
        leaps: whether each run leaps once it is stuck `(m,)`.

    Attributes:
        leaping: whether each run leaps in its next step `(m,)`; a stuck run leaps every other step.
    """

    def __init__(self, codes: Tensor, size: float, rows: int | None, leaps: Tensor) -> None:
        self.codes, self.slope, self.rows, self.first = codes, torch.zeros_like(codes), rows, size
        self.leaps = leaps.to(codes.device)
        self.value = codes.new_full((len(codes),), -torch.inf)
        self.norm = torch.zeros_like(self.value)
        # The start counts as a successful step.
        self.size = torch.full_like(self.value, size / GROW)
        self.leaping = torch.zeros_like(self.value, dtype=torch.bool)

    def accept(self, better: Tensor, codes: Tensor, value: Tensor, slope: Tensor, adapt: bool) -> None:
        """Go on from `codes` with longer steps where `better` `(m,)`, else from the old ones with shorter steps."""
        if adapt:
            size = self.size * torch.where(better, GROW, self._top(value)).to(self.size)
            # A leap tells nothing about the slope here. After a successful one the run starts anew.
            leapt = torch.where(better, torch.full_like(size, self.first), self.size)
            self.size = torch.where(self.leaping, leapt, size)
            self.leaping = self.leaps & ~self.leaping & (self.size < _STUCK * self.first)
        rows = like_rows(better, codes)
        self.codes, self.slope = torch.where(rows, codes, self.codes), torch.where(rows, slope, self.slope)
        self.value = torch.where(better, value, self.value)
        (self.norm,) = in_blocks(lambda some: [some.flatten(1).norm(dim=1)], self.slope, rows=self.rows)

    def keep(self, rows: Tensor) -> None:
        """Keep these runs only."""
        self.codes, self.slope, self.value, self.norm = (
            values[rows] for values in (self.codes, self.slope, self.value, self.norm)
        )
        self.size, self.leaps, self.leaping = (values[rows] for values in (self.size, self.leaps, self.leaping))

    def stepped(self) -> Tensor:
        """The codes one step further; the size is the root mean square of the step."""
        return self.codes + like_rows(self._length() / self.norm.clamp(min=1e-30), self.codes) * self.slope

    def _length(self) -> Tensor:
        """The length of the next step `(m,)`."""
        root: float = self.slope[0].numel() ** 0.5
        return self.size * root

    def _top(self, value: Tensor) -> Tensor:
        """The top of a parabola along a failed step to `value` `(m,)`, as a share of the step `(m,)`."""
        rise = self._length() * self.norm
        share = rise / (2 * (self.value + rise - value))
        # Without a gradient the share may be 0 / 0.
        return share.nan_to_num(nan=0.5).clamp(SHRINK, 0.5)


class AdamClimb(Climb):
    """Steps by Adam (Kingma and Ba 2015), for values that vary at random from step to step: no step is rejected."""

    def __init__(self, codes: Tensor, size: float, rows: int | None, leaps: Tensor) -> None:
        super().__init__(codes, size, rows, leaps)
        self.size = torch.full_like(self.value, size)
        self.mean, self.squares, self.count = torch.zeros_like(codes), torch.zeros_like(codes), 0

    def accept(self, better: Tensor, codes: Tensor, value: Tensor, slope: Tensor, adapt: bool) -> None:
        super().accept(better, codes, value, slope, adapt=False)
        self.count += 1
        self.mean = self.mean.lerp(slope, 1 - _MEAN)
        self.squares = self.squares.lerp(slope.square(), 1 - _SQUARES)

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.mean, self.squares = self.mean[rows], self.squares[rows]

    def stepped(self) -> Tensor:
        mean, squares = self.mean / (1 - _MEAN**self.count), self.squares / (1 - _SQUARES**self.count)
        return self.codes + like_rows(self.size, self.codes) * mean / (squares.sqrt() + 1e-8)
