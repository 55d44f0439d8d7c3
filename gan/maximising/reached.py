"""Thresholds that runs have to reach: given ones, or the values of real data."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugin.heads import probabilities

from ..reals import Reals, images_and_labels
from .activations import Activations, evaluating
from .targets import Units

if TYPE_CHECKING:
    from .maximizer import ActivationMaximizer


def wanted_by(
    units: Units,
    maximizer: "ActivationMaximizer",
    stop_at: float | Sequence[float] | Tensor | str | None,
    real: Reals | None,
) -> float | Tensor | None:
    """The threshold for all runs, or one per run `(n,)`; see `ActivationMaximizer.maximize`.

    Args:
        units: of the runs.
        maximizer: that of the runs; its default holds for `stop_at` None.
        stop_at: the caller's argument.
        real: images for "data".

    Raises:
        ValueError: `stop_at` cannot be reached, or contradicts `real`.
    """
    count = len(units.targets)
    if isinstance(stop_at, str):
        if stop_at != "data" or real is None:
            raise ValueError(f'stop_at={stop_at!r}: give a number, or "data" together with real=, the images')
        return reached_by_data(units, maximizer.activations, *images_and_labels(real, maximizer.image_shape))
    if real is not None:
        raise ValueError(f'real= is for stop_at="data", and stop_at={stop_at}: leave one of them out')
    if stop_at is None:
        if maximizer.stop_at is None or units.classes is None or bool(units.is_class.all()):
            return maximizer.stop_at if units.classes is not None else None
        return torch.where(units.is_class, maximizer.stop_at, torch.nan)
    given = stop_at
    if isinstance(stop_at, (list, tuple)):
        given = [math.nan if value is None else value for value in stop_at]
    values = torch.as_tensor(given, dtype=torch.float32, device="cpu")
    if values.ndim and values.shape != (count,):
        raise ValueError(f"stop_at has {len(values)} values for {count} runs: give one, or one per run")
    if not bool(((values > 0) & (values <= 1) | ~units.is_class).all()):
        raise ValueError(f"stop_at={stop_at}: of a class it is a probability, above 0 and at most 1")
    # In a list, NaN stands for none.
    if not bool(values.isfinite().all() if values.ndim == 0 else (values.isfinite() | values.isnan()).all()):
        raise ValueError(f"stop_at={stop_at}: give finite values of the unit, or None")
    return values if values.ndim else float(stop_at)  # type: ignore[arg-type]


def reached_by_data(units: Units, activations: Activations, images: Tensor, labels: Tensor | None) -> Tensor:
    """The value that each run's unit reaches on real images `(n,)`.

    Args:
        units: of the runs.
        activations: of the classifier.
        images: `(M, C, H, W)` in [0, 1].
        labels: `(M,)`; None for the classes that the classifier predicts.

    Returns:
        For a class the median probability of the images of this class, for another unit the largest value.

    Raises:
        ValueError: no image belongs to a class.
    """
    like = next(activations.classifier.parameters(), torch.zeros((), device="cpu")).device
    with evaluating(activations.classifier), torch.no_grad():
        found = [activations(some.to(like)) for some in images.split(100)]
    reached = [
        torch.empty(0, device="cpu") if is_class else _largest(units, found, run)
        for run, is_class in enumerate(units.is_class)
    ]
    if units.classes is None or units.head is None:
        return torch.stack(reached)
    chances = probabilities(units.head, torch.cat(found)).cpu()
    if labels is None:
        labels = chances.argmax(dim=1) if chances.shape[1] > 1 else 1 - (chances[:, 0] > 0.5).long()
    for run, unit in enumerate(units.classes.tolist()):
        if unit < 0:
            continue
        own = chances[labels.cpu() == unit, unit]
        if not len(own):
            raise ValueError(f'stop_at="data": none of the {len(images)} real images belongs to class {unit}')
        reached[run] = own.quantile(0.5)
    return torch.stack([value.to(chances) for value in reached])


def _largest(units: Units, found: list[Tensor], run: int) -> Tensor:
    """The largest value of a run's unit."""
    return (
        torch.stack([units.select(some, torch.full((len(some),), run, device="cpu")).max() for some in found])
        .max()
        .cpu()
    )
