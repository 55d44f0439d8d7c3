"""Gradient ascent on codes: many runs in one batch, each on its own.

With f the unit's value (for a class its logit, or log odds), G the map of codes to images, and g = grad_z f(G(z)), each
run tries

    z' = prior's move of  z + size sqrt(d) g / |g|

(`gan.maximising.priors`). Where f is larger there, the run goes on from z' with a step a fifth longer; else it tries
again from z with the step at which a parabola through both values has its top,

    size' = size r / (2 (f(G(z)) + r - f(G(z')))),        r = size sqrt(d) |g|

which is at most half of it. Values therefore never fall, and the scale of the unit does not matter. A run that has
reached `stop_at` is frozen and leaves the batch, which shrinks. Runs are independent (unless `repulsion` couples them),
each has a random generator of its own, and batches are computed in blocks of one size (`gan.maximising.batching`): a
batch equals single runs bit for bit.

A generator draws several kinds of images, and no step along the slope leads from one to another. A run for a unit that
is no class therefore leaps every other step once its steps are below a tenth of the first one: it tries the code with
about half of its entries drawn anew, and continues there if the unit's value is larger.

Where g is 0 the unit is silent: the run follows the slope that open ReLUs let through (`gan.maximising.opening`) as
long as the value does not fall, and is given up after some steps if it never finds a slope.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .activations import evaluating
from .climbing import like_rows
from .opening import OpenRelus
from .results import Result
from .targets import Units

if TYPE_CHECKING:
    from .maximizer import ActivationMaximizer


@dataclass(frozen=True)
class AscentSettings:
    """Settings of an ascent, from the arguments of `ActivationMaximizer.maximize`.

    Attributes:
        stop_at: one for all runs, or one per run `(n,)`; NaN for runs without one.
    """

    steps: int
    stop_at: float | Tensor | None
    least_steps: int
    repulsion: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: at least one step is needed")
        if self.least_steps < 1:
            raise ValueError(f"least_steps={self.least_steps}: at least one step is needed")
        if not (self.repulsion >= 0 and math.isfinite(self.repulsion)):
            raise ValueError(f"repulsion={self.repulsion}: give a finite number, 0 for none")


class Evaluation(NamedTuple):
    """Runs at their codes `(m, ...)`: images, the units' values, probabilities, and the climbed values."""

    images: Tensor
    score: Tensor
    probability: Tensor | None
    value: Tensor


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
        settings: AscentSettings,
    ) -> None:
        self.maximizer, self.units, self.seeds, self.randoms, self.settings = maximizer, units, seeds, randoms, settings
        runs = len(codes)
        self.tried = tried
        self.codes, self.images = codes.clone(), torch.empty(0, device="cpu")
        self.scores: list[Tensor] = []
        self.probabilities = torch.full((runs,), torch.nan, device="cpu") if units.classes is not None else None
        self.reached = torch.zeros(runs, dtype=torch.bool, device="cpu")
        counts = (torch.zeros(runs, dtype=torch.int64, device="cpu") for _ in range(3))
        self.steps_taken, self.silent_steps, self.opened = counts
        self.features: Tensor | None = None
        self.step = 0
        self._active, self._trial = torch.arange(runs, device="cpu"), codes.clone()
        # Runs for a class start from an image of that class and need no leaps.
        leaps = ~units.is_class if maximizer.leaps else torch.zeros(runs, dtype=torch.bool, device="cpu")
        self._climb = maximizer.climb(codes.clone(), maximizer.learning_rate, maximizer.rows, leaps)

    @property
    def finished(self) -> bool:
        return not len(self._active)

    @property
    def silent(self) -> Tensor:
        """Whether each run was given up without a slope `(n,)`."""
        return self.silent_steps >= self.maximizer.patience

    @torch.inference_mode(False)
    def advance(self) -> None:
        """Evaluate the runs that are not frozen, freeze those that are done, and move the others."""
        self.step += 1
        last, noisy = self.step == self.settings.steps, self.maximizer.noisy
        with evaluating(*self.maximizer.networks):
            trial = self._trial.detach().requires_grad_()
            found = self._evaluate(trial, self._active)
            value = found.value.detach()
            # A silent run moves on while its value does not fall.
            still = (self.silent_steps[self._active] > 0).to(value.device) & (value >= self._climb.value)
            better = (value > self._climb.value) | still | (noisy & value.isfinite()) | (self.step == 1)
            self._note(better, trial.detach(), found)
            frozen = torch.ones(len(better), dtype=torch.bool, device="cpu") if last else self._done()
            if bool(frozen.all()):
                self._active = self._active[:0]
                return
            slope = self._slope(trial, found, self._active)
            slope = self._opened(trial, slope)
        self._climb.accept(better, trial.detach(), value, slope, adapt=not noisy)
        if bool(frozen.any()):
            kept = (~frozen).nonzero().flatten()
            self._active = self._active[kept]
            self._climb.keep(kept)
        share = self._climb.size / self.maximizer.learning_rate
        self._trial = self.maximizer.move(
            self._climb.stepped(), like_rows(share, self._climb.codes), self._active_randoms()
        )
        leaping = self._climb.leaping
        if bool(leaping.any()):
            randoms = [self.randoms[run] for run in self._active[leaping.cpu()].tolist()]
            self._trial = self._trial.clone()
            self._trial[leaping] = self.maximizer.leap(self._climb.codes[leaping], randoms)

    def result(self) -> Result:
        """The runs at this step; once they are finished, scores repeat their last row for the steps not needed."""
        rows = self.scores + self.scores[-1:] * (self.settings.steps - self.step if self.finished else 0)
        return Result(
            images=self.images.clone(),
            codes=self.codes.clone(),
            scores=torch.stack(rows),
            probabilities=None if self.probabilities is None else self.probabilities.clone(),
            steps_taken=self.steps_taken.clone(),
            reached=self.reached.clone(),
            tried=self.tried.clone(),
            silent=self.silent.clone(),
            opened=self.opened.clone(),
            targets=list(self.units.targets),
            seeds=list(self.seeds),
            stop_at=self.settings.stop_at,
            step=self.step,
            maximizer=self.maximizer,
        )

    def warn(self) -> None:
        """Warn of runs that never started, and of runs that stayed below `stop_at`, with the best value among these."""
        if bool(self.silent.any()):
            count, patience = int(self.silent.sum()), self.maximizer.patience
            warnings.warn(
                f"{count} of {len(self.silent)} runs could not start: the value of their unit does not change with "
                f"the image, neither at the codes they tried nor in {patience} steps before its ReLU; "
                "see result.silent, give more candidates=, or init= codes whose images excite it",
                stacklevel=4,
            )
        if self.settings.stop_at is None:
            return
        wanted = torch.as_tensor(self.settings.stop_at, device="cpu").expand(len(self.reached))
        missed = ~self.reached & ~self.silent & ~wanted.isnan()
        if not bool(missed.any()):
            return
        values, least, most = self._reached_by().cpu(), float(wanted[missed].min()), float(wanted[missed].max())
        shown = f"{least:g}" if least == most else f"{least:.3g} to {most:.3g}"
        remedy = 'stop_at="data"' if self.probabilities is not None else "another target"
        warnings.warn(
            f"{int(missed.sum())} of {len(missed)} runs did not reach stop_at={shown} in "
            f"{self.settings.steps} steps, the best of them reached {float(values[missed].max()):.4g}: "
            f"see result.reached, and give more steps or {remedy}",
            stacklevel=4,
        )

    def _evaluate(self, codes: Tensor, runs: Tensor) -> Evaluation:
        """The runs `runs` `(m,)` evaluated at codes `(m, ...)`, one code per run."""
        images, score, probability, features = self._blocks(self._evaluate_block, codes, runs)
        value = self.units.climbed(score, runs)
        if features is not None:
            value = value - self.settings.repulsion * self._likeness(features, runs)
        return Evaluation(images, score.detach(), probability, value)

    def _evaluate_block(self, codes: Tensor, runs: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Images of codes `(m, ...)`, the values of their runs' units `(m,)`, probabilities, features if needed."""
        images, activations = self.maximizer.render(codes), self.maximizer.activations
        features = None
        if self.settings.repulsion:
            values, features = activations.with_features(images)
        else:
            # If the slope is taken at transformed images, these images need no graph.
            with torch.set_grad_enabled(not self.maximizer.transforms):
                values = activations(images)
        return images, self.units.select(values, runs), self.units.probabilities(values, runs), features

    def _slope(self, codes: Tensor, found: Evaluation, runs: Tensor) -> Tensor:
        """The gradient of the climbed values `(m, ...)`."""

        def score(images: Tensor) -> Tensor:
            select = self.units.select
            (values,) = self._blocks(
                lambda some, which: [select(self.maximizer.activations(some), which)], images, runs
            )
            return self.units.climbed(values, runs)

        randoms = [self.randoms[run] for run in runs.tolist()]
        if not found.images.requires_grad:
            raise ValueError(
                "images do not depend on their codes: look for torch.no_grad, detach() or rounding in the generator"
            )
        objective = self.maximizer.objective(found.value, found.images, randoms, score)
        slope = None
        if objective.requires_grad:
            slope = torch.autograd.grad(objective.sum(), codes, allow_unused=True)[0]
        if slope is None:
            raise ValueError(
                f"units of {self.maximizer.activations.name} do not depend on the image: look for torch.no_grad, "
                "detach(), argmax or rounding in the classifier, the transform and the target"
            )
        if self.step == 1 and not bool(slope.isfinite().all()):
            raise ValueError(
                f"the slope of a unit of {self.maximizer.activations.name} is NaN or infinite at its first image: look "
                "for the root, logarithm or quotient of 0 in the networks, the transform and the target"
            )
        return slope.nan_to_num(0.0, 0.0, 0.0)  # later, only a single step is lost

    def _opened(self, codes: Tensor, slope: Tensor) -> Tensor:
        """The slopes; those of silent runs are taken through open ReLUs."""
        silent = (slope.flatten(1) == 0).all(dim=1)
        rows = silent.cpu()
        self.silent_steps[self._active] = (self.silent_steps[self._active] + 1) * rows
        self.opened[self._active] += rows
        if not bool(rows.any()):
            return slope
        runs, some = self._active[rows], codes.detach()[silent].requires_grad_()
        with OpenRelus():
            opened = self._slope(some, self._evaluate(some, runs), runs)
        slope = slope.clone()
        slope[silent] = opened.nan_to_num(0.0, 0.0, 0.0)
        return slope

    def _note(self, better: Tensor, codes: Tensor, found: Evaluation) -> None:
        """Keep the codes that are better than before; rows belong to the active runs.

        Raises:
            ValueError: a unit's first value is not finite.
        """
        score = found.score
        if self.step == 1:
            if not bool(score.isfinite().all()):
                raise ValueError(
                    f"a unit of {self.maximizer.activations.name} is NaN or infinite at its first image: check the "
                    "classifier's weights and the transform"
                )
            others = ~self.units.is_class.to(score.device)  # runs that have no probability
            if found.probability is not None and not bool((found.probability.isfinite() | others).all()):
                raise ValueError(
                    f"a probability is NaN at its first image, as another class of "
                    f"{self.maximizer.activations.name} is NaN or infinite: check the classifier's weights"
                )
            self.images = torch.empty_like(found.images.detach())
            self.scores.append(torch.empty_like(score))
        else:
            self.scores.append(self.scores[-1].clone())
        self.steps_taken[self._active] = self.step
        rows = better.nonzero().flatten()
        runs = self._active[rows.cpu()]
        self.codes[runs], self.images[runs] = codes[rows], found.images.detach()[rows]
        self.scores[-1][runs] = score[rows]
        if self.probabilities is not None and found.probability is not None:
            self.probabilities = self.probabilities.to(found.probability)
            self.probabilities[runs] = found.probability[rows]
        if self.settings.stop_at is not None:
            values = self._reached_by()
            self.reached = (values >= torch.as_tensor(self.settings.stop_at, device="cpu").to(values)).cpu()
            # A silent unit's 0 does not count as reached, even where real images do not excite the unit either.
            self.reached &= ~((self.opened > 0) & (values == 0).cpu())

    def _reached_by(self) -> Tensor:
        """The values compared with `stop_at` `(n,)`: probabilities of classes, values of other units."""
        if self.probabilities is None:
            return self.scores[-1]
        values = self.scores[-1].to(self.probabilities)
        return torch.where(self.units.is_class.to(values.device), self.probabilities, values)

    def _done(self) -> Tensor:
        """Whether each active run is to be frozen `(m,)`."""
        enough = self.step >= self.settings.least_steps
        return (self.reached[self._active] & enough) | self.silent[self._active]

    def _likeness(self, features: Tensor, runs: Tensor) -> Tensor:
        """Mean cosine `(m,)` between the features of each active run and those of the other runs for its target."""
        live = F.normalize(features, dim=1)
        if self.features is None:
            self.features = live.new_zeros(len(self.codes), live.shape[1])
        self.features[runs] = live.detach()
        keys = self.units.keys
        same = live.new_tensor([[a != b and keys[a] == keys[b] for b in range(len(keys))] for a in runs.tolist()])
        return ((live @ self.features.T) * same).sum(1) / same.sum(1).clamp(min=1)

    def _blocks(self, function: Callable[..., Sequence[Tensor | None]], *batches: Tensor) -> list[Any]:
        return self.maximizer.blocks(function, *batches)

    def _active_randoms(self) -> list[torch.Generator]:
        return [self.randoms[run] for run in self._active.tolist()]
