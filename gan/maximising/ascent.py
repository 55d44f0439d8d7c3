"""Gradient ascent on codes: many runs in one batch, each on its own.

With f the unit's value, G what draws an image, and g = grad_z f(G(z)), each run tries

    z' = prior's move of  z + size sqrt(d) g / |g|

(`gan.maximising.priors`). Where f is larger there, the run goes on from z' with a step a fifth longer; else it tries
again from z with the step at which a parabola through both values has its top,

    size' = size r / (2 (f(G(z)) + r - f(G(z')))),        r = size sqrt(d) |g|

which is at most half of it. So values never fall, and the scale of the unit does not matter. A run that has reached
`stop_at` is frozen and leaves the batch: what is still computed shrinks. No run sees another one (unless `repulsion`
asks for it), each has a random generator of its own, and batches are computed in blocks of one size
(`gan.maximising.batching`): a batch gives, bit for bit, what single runs give.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .batching import in_blocks
from .targets import Unit, Units, evaluating

if TYPE_CHECKING:
    from .maximizer import ActivationMaximizer

# How much longer steps become while they go well, and how much shorter at most when one did not.
GROW, SHRINK = 1.2, 0.2


@dataclass(frozen=True)
class Result:
    """Runs of one call, finished or (from `iterate`) on their way.

    Attributes:
        images: `(n, C, H, W)` in [0, 1].
        codes: what they were made of `(n, d)`; of `PixelAM` the images themselves.
        scores: the units' values at each step `(steps, n)`; a frozen run repeats its last one. The last row belongs
            to `images`.
        probabilities: of the classes, at `images` `(n,)`; None where no classes are maximised.
        steps_taken: how many steps each run was evaluated at until it was frozen `(n,)`.
        reached: which runs reached `stop_at` `(n,)`.
        tried: of how many random codes the one was chosen that each run started from `(n,)`.
        targets: one per run.
        seeds: one per run.
        stop_at: what a run had to reach; None if there was nothing to reach.
        step: how many steps were made.
        maximizer: what made it.
    """

    images: Tensor
    codes: Tensor
    scores: Tensor
    probabilities: Tensor | None
    steps_taken: Tensor
    reached: Tensor
    tried: Tensor
    targets: list[Unit]
    seeds: list[int]
    stop_at: float | None
    step: int
    maximizer: "ActivationMaximizer" = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def passes(self) -> Tensor:
        """How many forward passes each run cost `(n,)`: one per code it looked at, two more per gradient.

        The last of a run's steps takes no gradient. At frozen weights a gradient costs about one pass, not two.
        """
        return self.tried + self.steps_taken + 2 * (self.steps_taken - 1)


@dataclass(frozen=True)
class Settings:
    """How an ascent runs; the arguments of `ActivationMaximizer.maximize`."""

    steps: int
    stop_at: float | None
    least_steps: int
    repulsion: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: at least one step is needed")
        if self.least_steps < 1:
            raise ValueError(f"least_steps={self.least_steps}: at least one step is needed")
        if not (self.repulsion >= 0 and math.isfinite(self.repulsion)):
            raise ValueError(f"repulsion={self.repulsion}: give a finite number, 0 for none")


class Climb:
    """Where each active run stands: the value and the gradient at its code, and the size of its next step."""

    def __init__(self, codes: Tensor, size: float) -> None:
        self.codes, self.slope = codes, torch.zeros_like(codes)
        self.value = torch.full((len(codes),), -torch.inf).to(codes)
        self.norm = torch.zeros_like(self.value)
        # Where a run starts counts as a step that went well.
        self.size = torch.full_like(self.value, size / GROW)

    def accept(self, better: Tensor, codes: Tensor, value: Tensor, slope: Tensor, adapt: bool) -> None:
        """Go on from `codes` where `better` `(m,)`, with longer steps; elsewhere from the old ones with shorter."""
        if adapt:
            self.size = self.size * torch.where(better, GROW, self._top(value)).to(self.size)
        rows = _like(better, codes)
        self.codes, self.slope = torch.where(rows, codes, self.codes), torch.where(rows, slope, self.slope)
        self.value = torch.where(better, value, self.value)
        (self.norm,) = in_blocks(lambda some: [some.flatten(1).norm(dim=1)], self.slope)

    def keep(self, rows: Tensor) -> None:
        """Forget the other runs."""
        self.codes, self.slope, self.value, self.norm, self.size = (
            values[rows] for values in (self.codes, self.slope, self.value, self.norm, self.size)
        )

    def stepped(self) -> Tensor:
        """The codes one step further; a step has as many root mean square units as its size."""
        return self.codes + _like(self._length() / self.norm.clamp(min=1e-30), self.codes) * self.slope

    def _length(self) -> Tensor:
        """Of the next step `(m,)`."""
        return self.size * self.slope[0].numel() ** 0.5

    def _top(self, value: Tensor) -> Tensor:
        """Where between 0 and a failed step, that led to `value` `(m,)`, a parabola has its top: a share `(m,)`."""
        rise = self._length() * self.norm
        share = rise / (2 * (self.value + rise - value))
        # A unit without a gradient says nothing.
        return share.nan_to_num(nan=0.5).clamp(SHRINK, 0.5)


def _like(values: Tensor, codes: Tensor) -> Tensor:
    """Values `(m,)` in a shape that goes with codes `(m, ...)`."""
    return values.view(-1, *[1] * (codes.ndim - 1))


class Ascent:
    """The runs of one call, step by step."""

    def __init__(
        self,
        maximizer: "ActivationMaximizer",
        units: Units,
        codes: Tensor,
        tried: Tensor,
        seeds: list[int],
        randoms: list[torch.Generator],
        settings: Settings,
    ) -> None:
        self.maximizer, self.units, self.seeds, self.randoms, self.settings = maximizer, units, seeds, randoms, settings
        runs = len(codes)
        self.tried = tried
        self.codes, self.images = codes.clone(), torch.empty(0)
        self.scores: list[Tensor] = []
        self.probabilities = torch.zeros(runs) if units.classes is not None else None
        self.steps_taken, self.reached = torch.zeros(runs, dtype=torch.int64), torch.zeros(runs, dtype=torch.bool)
        self.features: Tensor | None = None
        self.step = 0
        self._active, self._trial = torch.arange(runs), codes.clone()
        self._climb = Climb(codes.clone(), maximizer.learning_rate)

    @property
    def finished(self) -> bool:
        return not len(self._active)

    @torch.inference_mode(False)
    def advance(self) -> None:
        """Evaluate the runs that are not frozen, freeze those that are done, and move the others."""
        self.step += 1
        settings, last = self.settings, self.step == self.settings.steps
        with evaluating(*self.maximizer.networks):
            trial = self._trial.detach().requires_grad_()
            images, score, probability, features = in_blocks(self._evaluate, trial, self._active)
            value = score if features is None else score - settings.repulsion * self._likeness(features)
            better = (value.detach() > self._climb.value) | (self.maximizer.noisy or self.step == 1)
            self._note(better, trial.detach(), images.detach(), score.detach(), probability)
            frozen = torch.ones(len(better), dtype=torch.bool) if last else self._done()
            if bool(frozen.all()):
                self._active = self._active[:0]
                return
            objective = self.maximizer.objective(value, images, self._active_randoms(), self._values)
            (slope,) = torch.autograd.grad(objective.sum(), trial)
        self._climb.accept(better, trial.detach(), value.detach(), slope, adapt=not self.maximizer.noisy)
        if bool(frozen.any()):
            kept = (~frozen).nonzero().flatten()
            self._active = self._active[kept]
            self._climb.keep(kept)
        share = self._climb.size / self.maximizer.learning_rate
        self._trial = self.maximizer.move(
            self._climb.stepped(), _like(share, self._climb.codes), self._active_randoms()
        )

    def result(self) -> Result:
        """The runs as they are now; of finished ones the rows of the steps that were not needed repeat the last."""
        rows = self.scores + self.scores[-1:] * (self.settings.steps - self.step if self.finished else 0)
        return Result(
            images=self.images.clone(),
            codes=self.codes.clone(),
            scores=torch.stack(rows),
            probabilities=None if self.probabilities is None else self.probabilities.clone(),
            steps_taken=self.steps_taken.clone(),
            reached=self.reached.clone(),
            tried=self.tried.clone(),
            targets=list(self.units.targets),
            seeds=list(self.seeds),
            stop_at=self.settings.stop_at,
            step=self.step,
            maximizer=self.maximizer,
        )

    def warn(self) -> None:
        """Say that runs stayed below `stop_at`, and how far the best of them came."""
        missed = ~self.reached
        if self.settings.stop_at is None or not bool(missed.any()):
            return
        values = self.scores[-1] if self.probabilities is None else self.probabilities
        warnings.warn(
            f"{int(missed.sum())} of {len(missed)} runs did not reach stop_at={self.settings.stop_at:g} in "
            f"{self.settings.steps} steps, the best of them reached {float(values[missed].max()):.4g}: "
            "see result.reached, and give more steps or another target",
            stacklevel=4,
        )

    def _evaluate(self, codes: Tensor, runs: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Images of codes `(m, ...)`, the values of their runs' units `(m,)`, probabilities, features if needed."""
        images, activations = self.maximizer.render(codes), self.maximizer.activations
        if self.settings.repulsion:
            values, features = activations.with_features(images)
        else:
            values, features = activations(images), None
        return images, self.units.select(values, runs), self.units.probabilities(values, runs), features

    def _values(self, images: Tensor) -> Tensor:
        """The units' values `(m,)` at other images of the runs that are computed now."""
        activations, select = self.maximizer.activations, self.units.select
        (values,) = in_blocks(lambda some, runs: [select(activations(some), runs)], images, self._active)
        return values

    def _note(self, better: Tensor, codes: Tensor, images: Tensor, score: Tensor, probability: Tensor | None) -> None:
        """Keep what is better than before; rows belong to the active runs."""
        if self.step == 1:
            self.images = torch.empty_like(images)
            self.scores.append(torch.empty_like(score))
        else:
            self.scores.append(self.scores[-1].clone())
        self.steps_taken[self._active] = self.step
        rows = better.nonzero().flatten()
        runs = self._active[rows.cpu()]
        self.codes[runs], self.images[runs], self.scores[-1][runs] = codes[rows], images[rows], score[rows]
        if self.probabilities is not None and probability is not None:
            self.probabilities = self.probabilities.to(probability)
            self.probabilities[runs] = probability[rows]
        if self.settings.stop_at is not None:
            values = self.scores[-1] if self.probabilities is None else self.probabilities
            self.reached = (values >= self.settings.stop_at).cpu()

    def _done(self) -> Tensor:
        """Which of the active runs are to be frozen `(m,)`."""
        return self.reached[self._active] & (self.step >= self.settings.least_steps)

    def _likeness(self, features: Tensor) -> Tensor:
        """Mean cosine `(m,)` between the features of each active run and those of the other runs for its target."""
        live = F.normalize(features, dim=1)
        if self.features is None:
            self.features = torch.zeros(len(self.codes), live.shape[1]).to(live)
        self.features[self._active] = live.detach()
        targets = self.units.targets
        same = torch.tensor(
            [[a != b and targets[a] == targets[b] for b in range(len(targets))] for a in self._active.tolist()]
        ).to(live)
        return ((live @ self.features.T) * same).sum(1) / same.sum(1).clamp(min=1)

    def _active_randoms(self) -> list[torch.Generator]:
        return [self.randoms[run] for run in self._active.tolist()]
