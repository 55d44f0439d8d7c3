"""The Code space page's work: a plan is carried out in a worker thread, step by step.

`Outcome` is what it has found so far: the images on screen, their codes and scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...inputs.subject import Subject
from ...inputs.unit_maximizers import interruptible, maximizer_of
from ...server.jobs import Task
from ...server.meter import Meter
from .plans import Plan

if TYPE_CHECKING:  # gan brings its own dependencies along, which other pages need not wait for
    from gan.maximising import Result


@dataclass(frozen=True)
class Outcome:
    """Runs, finished or on their way.

    Attributes:
        plan: what was asked.
        result: of `gan`, with images `(n, C, H, W)` in [0, 1], codes and scores.
        frames: the images after each step, uint8 `(n, C, H, W)`.
        seconds, peak_bytes: what it took so far.
    """

    plan: Plan
    result: "Result"
    frames: Sequence[Tensor] = field(repr=False)
    seconds: float
    peak_bytes: int | None

    @property
    def device(self) -> str:
        """Where they are made."""
        return self.plan.device

    @property
    def scores(self) -> np.ndarray[Any, Any]:
        """The unit's values `(steps made, n)`."""
        return self.result.scores[: self.result.step].cpu().numpy()

    @property
    def finished(self) -> bool:
        """Whether every run has ended by itself: the rows of scores that were not needed are there then."""
        return len(self.result.scores) == self.plan.steps


def maximize(task: Task, plan: Plan, subject: Subject) -> Outcome:
    """Carry a plan out, for a `jobs.Job`; what is shown is the `Outcome` so far."""
    begin = partial(task.report, 0.0, "Choosing where to start …")
    begin()
    maximizer = maximizer_of(subject, plan.generator, plan.layer, plan.prior)
    frames: list[Tensor] = []
    with Meter(maximizer.like.device) as meter:
        with interruptible(maximizer.networks[0], begin):
            running = maximizer.iterate(plan.target, plan.runs, plan.seed, steps=plan.steps, stop_at=plan.stop_at)
        for result in running:
            frames.append((result.images * 255).round().byte().cpu())
            meter.read()
            outcome = Outcome(plan, result, frames, meter.seconds, meter.peak_bytes)
            task.report(_progress(outcome), _message(outcome), outcome)
            if outcome.finished:
                break  # what `gan` would now warn of on standard error, `run_reports.shortfall` says
    return outcome


def _progress(outcome: Outcome) -> float:
    return max(outcome.result.step / outcome.plan.steps, float(outcome.result.reached.float().mean()) * 0.99)


def _message(outcome: Outcome) -> str:
    text = f"Step {outcome.result.step} of at most {outcome.plan.steps}"
    if outcome.plan.stop_at is None:
        return text
    return f"{text}; {int(outcome.result.reached.sum())} of {len(outcome.result)} runs reached {outcome.plan.stop_at:g}"
