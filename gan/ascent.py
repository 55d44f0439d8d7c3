"""Gradient ascent on codes: many runs in one batch, each on its own.

With f the unit's value, G what draws an image, and g = grad_z f(G(z)), each run tries

    z' = prior's move of  z + size sqrt(d) g / |g|

(`gan.priors`). Where f is larger there, the run goes on from z' with a step a fifth longer; else it tries again from z
with half the step. So values never fall, and the scale of the unit does not matter. A run that has reached `stop_at` is
frozen and leaves the batch: what is still computed shrinks. No run sees another one (unless `repulsion` asks for it),
and each has a random generator of its own: a batch gives what single runs give.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .targets import Unit, Units, evaluating

if TYPE_CHECKING:
    from .maximizer import ActivationMaximizer

# How much longer steps become while they go well, and shorter when one did not.
GROW, SHRINK = 1.2, 0.5
# Images per forward pass where nothing is differentiated: more would leave the cache.
CHUNK = 512


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
        # Where a run starts counts as a step that went well.
        self.size = torch.full((len(codes),), size / GROW).to(codes)

    def accept(self, better: Tensor, codes: Tensor, value: Tensor, slope: Tensor, adapt: bool) -> None:
        """Go on from `codes` where `better` `(m,)`, with longer steps; elsewhere from the old ones with shorter."""
        rows = _like(better, codes)
        self.codes, self.slope = torch.where(rows, codes, self.codes), torch.where(rows, slope, self.slope)
        self.value = torch.where(better, value, self.value)
        if adapt:
            self.size = self.size * torch.where(better, GROW, SHRINK)

    def keep(self, rows: Tensor) -> None:
        """Forget the other runs."""
        self.codes, self.slope, self.value, self.size = (
            values[rows] for values in (self.codes, self.slope, self.value, self.size)
        )

    def stepped(self) -> Tensor:
        """The codes one step further; a step has as many root mean square units as its size."""
        norm = self.slope.flatten(1).norm(dim=1).clamp(min=1e-30)
        length = self.size * self.slope[0].numel() ** 0.5 / norm
        return self.codes + _like(length, self.codes) * self.slope


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
            images = self.maximizer.render(trial)
            score, probability, features = self._evaluate(images)
            value = score if features is None else score - settings.repulsion * self._likeness(features)
            better = (value.detach() > self._climb.value) | (self.maximizer.noisy or self.step == 1)
            self._note(better, trial.detach(), images.detach(), score.detach(), probability)
            frozen = torch.ones(len(better), dtype=torch.bool) if last else self._done()
            if bool(frozen.all()):
                self._active = self._active[:0]
                return
            objective = self.maximizer.objective(value, images, self._active_randoms(), self._value)
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

    def _evaluate(self, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        activations = self.maximizer.activations
        if self.settings.repulsion:
            values, features = activations.with_features(images)
        else:
            values, features = activations(images), None
        return self.units.select(values, self._active), self.units.probabilities(values, self._active), features

    def _value(self, images: Tensor) -> Tensor:
        """The units' values `(m,)` at other images of the runs that are computed now."""
        return self.units.select(self.maximizer.activations(images), self._active)

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
