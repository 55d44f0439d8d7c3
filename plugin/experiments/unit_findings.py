"""The findings of `plugin.experiments.deconvnet` on the units of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import LoadedModel
from ..statistics import mean_cosine


@dataclass(frozen=True)
class UnitFinding:
    """The findings on one unit.

    Attributes:
        layer: the layer's name.
        unit: channel, row and column in the layer's output; the channel alone if the layer returns no maps.
        image: its best image, normalised `(3, H, W)`.
        best: its response to that image.
        box: the pixels it sees, as two slices.
        pictures: for each method the picture `(3, H, W)` of the best image.
        response: for each method the response to its picture over `best`.
        cosine: for each conditioned method the cosine between pictures from different images.
        class_name: the class that the unit stands for; empty for a unit of any layer but the last.

    >>> import torch
    >>> from torch import nn
    >>> from plugin import models
    >>> from plugin.experiments.deconvnet import examine
    >>> network = models.load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    >>> (unit,) = examine(network, torch.randn(8, 3, 16, 16), ["0"], units=[2]).units
    >>> unit.label, unit.unit, unit.image.shape
    ('unit 2', (2, 7, 7), torch.Size([3, 16, 16]))
    """

    layer: str
    unit: tuple[int, ...]
    image: Tensor
    best: float
    box: tuple[slice, slice]
    pictures: dict[str, Tensor]
    response: dict[str, float]
    cosine: dict[str, float]
    class_name: str = ""

    @property
    def label(self) -> str:
        """The class that the unit stands for, else its channel."""
        return self.class_name or f"unit {self.unit[0]}"


@dataclass(frozen=True)
class NetworkFindings:
    """All units of a network, in the order of its layers.

    Attributes:
        model: the network.
        images: the number of images among which the best were found.
        units: the findings.
        seconds: how long it took, by the clock.

    >>> import torch
    >>> from torch import nn
    >>> from plugin import models
    >>> from plugin.experiments.deconvnet import examine
    >>> network = models.load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    >>> found = examine(network, torch.randn(8, 3, 16, 16), ["0"], units=2)
    >>> [(layer, len(units)) for layer, units in found.layers.items()]
    [('0', 2)]
    """

    model: LoadedModel
    images: int
    units: list[UnitFinding]
    seconds: float

    @property
    def layers(self) -> dict[str, list[UnitFinding]]:
        """The units by layer."""
        found: dict[str, list[UnitFinding]] = {}
        for unit in self.units:
            found.setdefault(unit.layer, []).append(unit)
        return found

    @property
    def likeness(self) -> dict[str, dict[str, float]]:
        """For each layer and method the mean cosine between the pictures of different units; NaN for a single unit."""
        return {
            layer: {
                name: mean_cosine(torch.stack([unit.pictures[name] for unit in units])) for name in units[0].pictures
            }
            for layer, units in self.layers.items()
        }
