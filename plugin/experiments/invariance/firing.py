"""Figure A, invariance by depth: do firing units continue to fire when the image is transformed?

After Goodfellow et al. 2009, "Measuring invariances in deep networks". A unit fires where its response is above a
threshold that a share G of all images passes, 1 % here. The local firing rate L is the share of the images that make it
fire for which it still fires once they are shifted, rotated or scaled. The score is

    S = L / G:    1 / G (here 100) if the unit is invariant, about 1 if it only fires as often as on any image.

The identity is not among the transformations: it would count as invariance for any unit. Two more numbers distinguish
invariant units from blind ones. One is the firing rate on all transformed images, since a unit may start to fire at
everything. The other, if there are labels, is the probability that two firing images belong to one class, since a unit
may depend on brightness alone.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...statistics import median_of_known
from ..units import layers_with_units, responses_in_the_middle
from .transformations import AMOUNTS, draw_directions, transform

Thresholds = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LayerInvariance:
    """The local firing rates of the units of a layer. Plain values only, so that `dataclasses.asdict` gives JSON.

    Attributes:
        layer: its name; "" is the network's output.
        channels: the units, those in the middle of these channels; a unit that is constant on the images is left out.
        rate: the share of images at which each unit fires, in (0, 1].
        amounts: for each family of transformations ("shift", "rotation", "scale") its amounts.
        local: for each family the firing rates of the firing images, once transformed: `[unit][amount]`.
        overall: the same for all images.
        agreement: for each unit the share of the pairs of firing images that belong to one class; empty without labels.

    >>> from plugin.experiments.invariance import LayerInvariance
    >>> layer = LayerInvariance(
    ...     "conv1", [0], rate=0.01, amounts={"shift": [1]}, local={"shift": [[0.5]]}, overall={"shift": [[0.01]]},
    ...     agreement=[],
    ... )
    >>> layer.median_score("shift")  # half of the firing images still fire: 50 times the rate of all images
    50.0
    """

    layer: str
    channels: list[int]
    rate: float
    amounts: dict[str, list[float]]
    local: dict[str, list[list[float]]]
    overall: dict[str, list[list[float]]]
    agreement: list[float]

    def scores(self, family: str) -> list[float]:
        """S of each unit: the mean of its local rate over the amounts, over the global rate.

        Args:
            family: a key of `amounts`.
        """
        return [statistics.fmean(rates) / self.rate for rates in self.local[family]]

    def median_score(self, family: str) -> float:
        """Median of S over the units; NaN if there are none.

        Args:
            family: a key of `amounts`.
        """
        return median_of_known(self.scores(family))

    def top_score(self, family: str, share: float = 0.2) -> float:
        """Mean of S over the most invariant share of units, a summary of Goodfellow et al.; NaN if there are none.

        Args:
            family: a key of `amounts`.
            share: the share of the units, in (0, 1].
        """
        scores = sorted(self.scores(family), reverse=True)
        return statistics.fmean(scores[: max(1, round(share * len(scores)))] or [float("nan")])

    def rate_at(self, family: str, overall: bool = False) -> list[float]:
        """For each amount the mean over the units of a firing rate.

        Args:
            family: a key of `amounts`.
            overall: the rate on all images instead of the local rate.
        """
        rates = (self.overall if overall else self.local)[family]
        return [statistics.fmean(column) for column in zip(*rates, strict=True)]


def invariance(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    labels: Tensor | None = None,
    amounts: Mapping[str, Sequence[float]] = AMOUNTS,
    rate: float = 0.01,
    seed: int = 0,
    batch_size: int = 100,
    progress: Callable[[Iterable[tuple[str, float]]], Iterable[tuple[str, float]]] = iter,
) -> list[LayerInvariance]:
    """Measure the local firing rates of all units in the middle of some layers.

    Args:
        network: in eval mode; it is not changed.
        images: its inputs `(N, C, H, W)`, at least 1 / rate, used for the thresholds and transformed.
        layers: names of layers that return `(N, channels, H, W)` or `(N, channels)`, "" for the output; None takes the
            convolutions, the linear layers and the output.
        labels: the classes of the images `(N,)`, for `agreement`; at least two images must fire, then.
        amounts: for each family of transformations its amounts; see `transform`.
        rate: global firing rate, in (0, 0.5].
        seed: decides the direction in which each image is transformed.
        batch_size: the number of images processed at a time.
        progress: wraps the loop over (family, amount), to show the progress.

    Raises:
        ValueError: there are too few images, the network is in training mode, or a layer or family is unknown.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.experiments.invariance import invariance
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    >>> (layer,) = invariance(network, torch.randn(40, 3, 16, 16), ["0"], amounts={"shift": [1, 2]}, rate=0.1)
    >>> layer.layer, len(layer.scores("shift"))
    ('0', 4)
    """
    check_mode(network)
    unknown = [family for family in amounts if family not in AMOUNTS]
    if unknown:
        raise ValueError(f"unknown transformation {unknown[0]!r}: choose one of {', '.join(AMOUNTS)}")
    if not 0 < rate <= 0.5 or len(images) * rate < 1:
        raise ValueError(f"a rate of {rate} needs to be in (0, 0.5] and {len(images)} images at least 1 / rate")
    names = layers_with_units(network, images) if layers is None else list(layers)
    found = responses_in_the_middle(network, images, names, batch_size)
    firing = {name: _thresholds(found[name][0], round(rate * len(images))) for name in names}
    local: dict[str, dict[str, list[Tensor]]] = {name: {family: [] for family in amounts} for name in names}
    overall: dict[str, dict[str, list[Tensor]]] = {name: {family: [] for family in amounts} for name in names}
    # The same direction at each amount, so that a curve over the amounts follows each image.
    directions = draw_directions(len(images), seed)
    steps = [(family, amount) for family in amounts for amount in amounts[family]]
    for family, amount in progress(steps):
        moved = transform(images, family, amount, directions)
        responses = responses_in_the_middle(network, moved, names, batch_size)
        for name in names:
            channels, threshold, fired = firing[name]
            fires = responses[name][0][:, channels].double() > threshold
            local[name][family].append((fires & fired).double().sum(0) / fired.sum(0))
            overall[name][family].append(fires.double().mean(0))
    return [
        LayerInvariance(
            name,
            firing[name][0].tolist(),
            round(rate * len(images)) / len(images),
            {family: list(map(float, values)) for family, values in amounts.items()},
            {family: torch.stack(values, dim=1).tolist() for family, values in local[name].items()},
            {family: torch.stack(values, dim=1).tolist() for family, values in overall[name].items()},
            [] if labels is None else _agreement(firing[name][2], labels),
        )
        for name in names
    ]


def _agreement(fired: Tensor, labels: Tensor) -> list[float]:
    """Share of the pairs of firing images `(N, units)` that belong to one class, per unit; NaN if only one fired."""
    counts = F.one_hot(labels).double().T @ fired.double()
    total = fired.sum(0).double()
    shares: list[float] = ((counts * (counts - 1)).sum(0) / (total * (total - 1))).tolist()
    return shares


def check_mode(network: nn.Module) -> None:
    """Refuse a network whose outputs are random or depend on the batch.

    Raises:
        ValueError: a module is in training mode.
    """
    if any(module.training for module in network.modules()):
        raise ValueError(f"the {type(network).__name__} is in training mode: call eval() first")


def _thresholds(values: Tensor, count: int) -> Thresholds:
    """For responses `(N, channels)`: the channels with a threshold, the threshold, and the images above `(N, units)`.

    The threshold lies midway between the response that comes at `count` and the next, which must differ.
    """
    highest = values.double().topk(count + 1, dim=0).values
    channels = (highest[count - 1] > highest[count]).nonzero().flatten()
    threshold = ((highest[count - 1] + highest[count]) / 2)[channels]
    return channels, threshold, values[:, channels].double() > threshold
