"""Gradient ascent on codes: many runs in one batch, each on its own.

One step of Adam (Kingma and Ba 2015) on the codes z of every run, with f the unit's value and G what draws an image,

    z <- z + rate(t) Adam(grad_z f(G(z))),        then the prior's move (`gan.priors`),

the rate falling along a cosine. A run that has reached `stop_at` is frozen and leaves the batch, so that what is still
computed shrinks. No run sees another one (unless `repulsion` asks for it), and each has a random generator of its own:
a batch gives what single runs give.
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

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step from 1 to `steps`: 1 at first, then along a cosine down to 0."""
        return (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2


class Adam:
    """Adam for rows that may leave, each an optimisation of its own, with one second moment per row.

    Steps then keep the direction of the (averaged) gradient. With one moment per entry all entries would move alike,
    and where ascent and prior are in balance the code would not be the best one that the prior allows.
    """

    def __init__(self, like: Tensor, decays: tuple[float, float] = (0.9, 0.999)) -> None:
        self.mean, self.decays, self.step = torch.zeros_like(like), decays, 0
        self.square = torch.zeros_like(like[(slice(None), *[slice(1)] * (like.ndim - 1))])

    def direction(self, slope: Tensor) -> Tensor:
        """The next step, of entries near 1 in the root mean square, for a gradient `(m, ...)`."""
        first, second = self.decays
        self.step += 1
        self.mean.lerp_(slope, 1 - first)
        self.square.lerp_(slope.square().mean(dim=tuple(range(1, slope.ndim)), keepdim=True), 1 - second)
        deviation = (self.square / (1 - second**self.step)).sqrt_().add_(1e-12)
        return self.mean / (1 - first**self.step) / deviation

    def keep(self, rows: Tensor) -> None:
        """Forget the others."""
        self.mean, self.square = self.mean[rows], self.square[rows]


class Ascent:
    """The runs of one call, step by step."""

    def __init__(
        self,
        maximizer: "ActivationMaximizer",
        units: Units,
        codes: Tensor,
        seeds: list[int],
        randoms: list[torch.Generator],
        settings: Settings,
    ) -> None:
        self.maximizer, self.units, self.seeds, self.randoms, self.settings = maximizer, units, seeds, randoms, settings
        runs = len(codes)
        self.codes, self.images = codes.clone(), torch.empty(0)
        self.scores: list[Tensor] = []
        self.probabilities = torch.zeros(runs) if units.classes is not None else None
        self.steps_taken, self.reached = torch.zeros(runs, dtype=torch.int64), torch.zeros(runs, dtype=torch.bool)
        self.features: Tensor | None = None
        self.step = 0
        self._active, self._leaf, self._adam = torch.arange(runs), codes.clone(), Adam(codes)

    @property
    def finished(self) -> bool:
        return not len(self._active)

    @torch.inference_mode(False)
    def advance(self) -> None:
        """Evaluate the runs that are not frozen, freeze those that are done, and move the others."""
        self.step += 1
        settings, last = self.settings, self.step == self.settings.steps
        with evaluating(*self.maximizer.networks):
            leaf = self._leaf.detach().requires_grad_()
            images = self.maximizer.render(leaf)
            score, probability, features = self._evaluate(images)
            self._note(leaf.detach(), images.detach(), score.detach(), probability)
            done = self._done(score.detach(), probability)
            frozen = torch.ones_like(done) if last else done & (self.step >= settings.least_steps)
            if bool(frozen.all()):
                self._active = self._active[:0]
                return
            objective = self.maximizer.objective(score, images, self._active_randoms(), self._value)
            if features is not None:
                objective = objective - settings.repulsion * self._likeness(features)
            (slope,) = torch.autograd.grad(objective.sum(), leaf)
        if bool(frozen.any()):
            kept = (~frozen).nonzero().flatten()
            self._active, leaf, slope = self._active[kept], leaf[kept], slope[kept]
            self._adam.keep(kept)
        self._leaf = self._moved(leaf.detach(), slope)

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

    def _note(self, codes: Tensor, images: Tensor, score: Tensor, probability: Tensor | None) -> None:
        if self.step == 1:
            self.images = torch.empty_like(images)
            self.scores.append(torch.empty_like(score))
        else:
            self.scores.append(self.scores[-1].clone())
        self.codes[self._active], self.images[self._active] = codes, images
        self.scores[-1][self._active] = score
        self.steps_taken[self._active] = self.step
        if self.probabilities is not None and probability is not None:
            self.probabilities = self.probabilities.to(probability)
            self.probabilities[self._active] = probability

    def _done(self, score: Tensor, probability: Tensor | None) -> Tensor:
        """Which of the active runs have reached what they had to `(m,)`, on the CPU."""
        if self.settings.stop_at is None:
            return torch.zeros(len(score), dtype=torch.bool)
        done = ((score if probability is None else probability) >= self.settings.stop_at).cpu()
        self.reached[self._active] = done
        return done

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

    def _moved(self, codes: Tensor, slope: Tensor) -> Tensor:
        share = self.settings.rate(self.step)
        codes = codes + self.maximizer.learning_rate * share * self._adam.direction(slope)
        return self.maximizer.move(codes, share, self._active_randoms())

    def _active_randoms(self) -> list[torch.Generator]:
        return [self.randoms[run] for run in self._active.tolist()]
