"""What real data reach: the value at which a run is as good as they are."""

import torch
from torch import Tensor

from plugin.heads import probabilities

from .activations import Activations, evaluating
from .targets import Units


def reached_by_data(units: Units, activations: Activations, images: Tensor, labels: Tensor | None) -> Tensor:
    """For each run what its unit reaches on real images: `(n,)`.

    Args:
        units: of the runs.
        activations: of the classifier.
        images: `(M, C, H, W)` in [0, 1].
        labels: `(M,)`; None takes the classes that the classifier gives the images.

    Returns:
        Of classes the median probability of the images that belong to the class, of other units the largest value.

    Raises:
        ValueError: no image belongs to a class.
    """
    like = next(activations.classifier.parameters(), torch.zeros(())).device
    with evaluating(activations.classifier), torch.no_grad():
        found = [activations(some.to(like)) for some in images.split(100)]
    reached = [
        torch.empty(0) if is_class else _largest(units, found, run) for run, is_class in enumerate(units.is_class)
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
    return torch.stack([units.select(some, torch.full((len(some),), run)).max() for some in found]).max().cpu()
