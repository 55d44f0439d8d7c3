"""The last runs of a session."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .runs import Outcome

_REMEMBERED = 16


@dataclass(frozen=True)
class Remembered:
    """One run of a session.

    Attributes:
        key: tells it from others.
        label: its unit and its seed.
        image: `(C, H, W)` in [0, 1].
    """

    key: tuple[str, int, int]
    label: str
    image: Tensor


def remembered(before: Sequence[Remembered], outcome: Outcome, unit: str) -> list[Remembered]:
    """The last sixteen runs of a session, the newest last, with those of `outcome` added."""
    result = outcome.result
    new = [
        Remembered((outcome.plan.name, result.step, seed), f"{unit}, seed {seed}", image)
        for seed, image in zip(result.seeds, result.images, strict=True)
    ]
    known = {run.key for run in new}
    return [*(run for run in before if run.key not in known), *new][-_REMEMBERED:]
