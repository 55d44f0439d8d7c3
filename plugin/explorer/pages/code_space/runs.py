"""The Code space page's work: a plan is carried out in a worker thread, step by step.

`Outcome` holds the results so far: the images on screen, their codes and scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from plugin.observing import outputs_of

from ...inputs import image_sets
from ...inputs.offered_pictures import Picture
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import interruptible, maximizer_of
from ...server.jobs import Task
from ...server.meter import Meter
from .plans import RunPlan

if TYPE_CHECKING:  # gan brings its own dependencies along, which other pages need not wait for
    from gan.maximising import Result

# Images whose channels point elsewhere than the picture's gain less.
COSINE_POWER = 2.0


@dataclass(frozen=True)
class Outcome:
    """Runs, finished or on their way.

    Attributes:
        plan: the plan that they carry out.
        result: of `gan`, with images `(n, C, H, W)` in [0, 1], codes and scores.
        picture: of the plan, if it has one.
        frames: the images after each step, uint8 `(n, C, H, W)`.
        seconds, peak_bytes: the time and the peak memory so far.
    """

    plan: RunPlan
    result: "Result"
    frames: Sequence[Tensor] = field(repr=False)
    seconds: float
    peak_bytes: int | None
    picture: Picture | None = None

    @property
    def device(self) -> str:
        """Where they are made."""
        return self.plan.device

    @property
    def scores(self) -> np.ndarray[Any, Any]:
        """The unit's values `(steps made, n)`."""
        return self.result.scores[: self.result.step].cpu().numpy()

    @property
    def wanted(self) -> float | None:
        """The goal of every run: a probability of a class, a value of another unit; None without one."""
        found = self.result.stop_at
        if self.plan.stop_at is None and not self.plan.data:
            return None
        return float(found.max()) if isinstance(found, Tensor) else found

    @property
    def finished(self) -> bool:
        """Whether every run has ended by itself. Then the scores also have rows for the steps that were not needed."""
        return len(self.result.scores) == self.plan.steps


def maximize(task: Task, plan: RunPlan, subject: Subject, picture: Picture | None = None) -> Outcome:
    """Carry out a plan, for a `jobs.Job`; the page shows the `Outcome` so far."""
    begin = partial(task.report, 0.0, "Choosing where to start …")
    begin()
    maximizer = maximizer_of(subject, plan.generator, plan.layer, plan.prior)
    real = image_sets.real_images(plan.data, subject.model, plan.count) if plan.data else None
    frames: list[Tensor] = []
    with Meter(maximizer.like.device) as meter:
        with interruptible(maximizer.networks[0], begin):
            running = maximizer.iterate(_target(plan, subject, picture), real=real, **plan.keywords)
        for result in running:
            frames.append((result.images * 255).round().byte().cpu())
            meter.read()
            outcome = Outcome(plan, result, frames, meter.seconds, meter.peak_bytes, picture)
            task.report(_progress(outcome), _message(outcome), outcome)
            if outcome.finished:
                break  # `run_reports.shortfall` replaces the warning that `gan` would write to standard error
    return outcome


def _target(plan: RunPlan, subject: Subject, picture: Picture | None) -> Any:
    """The target for `gan`.

    Raises:
        ValueError: all channels of the layer are 0 at the position, which is no direction.
    """
    from gan.maximising.objectives import channel, direction

    if isinstance(plan.target, int):
        return plan.target if plan.contrast is None else channel(plan.target) - channel(plan.contrast)
    if picture is None:
        return plan.target
    _, row, column = plan.target
    inputs = subject.preprocess(picture.image)
    vector = outputs_of(subject.model.network, [plan.layer], inputs, used_once=True)[plan.layer][0, :, row, column]
    if not bool(vector.any()):
        raise ValueError(f"all channels of {plan.layer} are 0 for this picture at row {row}, column {column}")
    return direction(vector, COSINE_POWER)


def _progress(outcome: Outcome) -> float:
    return max(outcome.result.step / outcome.plan.steps, float(outcome.result.reached.float().mean()) * 0.99)


def _message(outcome: Outcome) -> str:
    text = f"Step {outcome.result.step} of at most {outcome.plan.steps}"
    if outcome.wanted is None:
        return text
    return f"{text}; {int(outcome.result.reached.sum())} of {len(outcome.result)} runs reached {outcome.wanted:.4g}"
