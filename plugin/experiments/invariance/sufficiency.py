"""Figure B, does one picture suffice? The measure is a unit's response to its own reconstruction.

    response(picture, scaled to the norm of the best image on the pixels the unit sees) / best response to an image

The pictures are the deconvnet without an image, which must draw one for all preferred patterns of the unit; guided
backprop and the gradient on its best image; and the result of any maximiser. Near 1 or above, that one picture holds
the unit's preferred pattern. The first three and the measure itself are those of `plugin.experiments.deconvnet`.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...models import load
from ...statistics import Quartiles, quartiles
from ..deconvnet import channel_responses, examine, scaled_like
from ..units import layers_with_units
from .firing import check_mode

IMAGE_CONDITIONED = {"guided": "guided", "gradient": "gradient"}


class Solutions(Protocol):
    """The results of a maximiser: images `(n, C, H, W)` in [0, 1] and their codes `(n, d)`."""

    @property
    def images(self) -> Tensor: ...

    @property
    def codes(self) -> Tensor: ...


class Maximizer(Protocol):
    """Finds images that a unit of one layer responds to, one per target."""

    def maximize(self, target: Any, *, seeds: Sequence[int]) -> Solutions:
        """One run per entry of `target`, each a channel, or (channel, row, column); the same number of seeds."""
        ...


@dataclass(frozen=True)
class PictureResponse:
    """A unit's responses to pictures of itself. Plain values only, so that `dataclasses.asdict` gives JSON.

    Attributes:
        layer: its name; "" is the network's output.
        unit: channel, row and column in the layer's output, or the channel alone.
        best: its best response to an image.
        responses: for each method the response to its picture over `best`.

    >>> from plugin.experiments.invariance import PictureResponse
    >>> unit = PictureResponse("conv1", [0, 8, 8], best=2.0, responses={"no image": 1.7})
    >>> unit.responses["no image"] * unit.best  # the response to the picture of the deconvnet
    3.4
    """

    layer: str
    unit: list[int]
    best: float
    responses: dict[str, float]


def unchanged(images: Tensor) -> Tensor:
    """The identity, for networks that take images in [0, 1]."""
    return images


def sufficiency(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    units: int | Sequence[int] | None = 8,
    maximizers: Mapping[str, Callable[[str], Maximizer]] | None = None,
    as_inputs: Callable[[Tensor], Tensor] = unchanged,
    seed: int = 0,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[PictureResponse]:
    """Measure the responses of units to pictures of themselves.

    Args:
        network: in eval mode; it is not changed.
        images: its inputs `(N, C, H, W)`, at least three, among which to find the best.
        layers: names of layers that return `(N, channels, H, W)` or `(N, channels)`, "" for the output; None takes the
            convolutions, the linear layers and the output.
        units: the number of units of each layer, evenly over the channels that respond to some image; a list of
            channels; or None for all that respond to some image.
        maximizers: further methods: for each name a function that makes the maximiser of a layer.
        as_inputs: from a maximiser's images in [0, 1] to the network's inputs.
        seed: seed of the maximisers.
        progress: wraps the loop over the layers, to show the progress.

    Raises:
        ValueError: there are too few images, the network is in training mode, a layer is unknown or has no deconvnet
            without an image, or a channel responds to no image.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.experiments.invariance import sufficiency
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    >>> units = sufficiency(network, torch.randn(40, 3, 16, 16), ["0"], units=2)
    >>> sorted(units[0].responses)
    ['gradient', 'guided', 'no image']
    """
    check_mode(network)
    names = layers_with_units(network, images) if layers is None else list(layers)
    findings = examine(load(network), images, names, units, progress, IMAGE_CONDITIONED).layers
    result = []
    for layer, found in findings.items():
        extra: dict[str, list[float]] = {}
        for name, make in (maximizers or {}).items():
            targets = [target_of(unit.unit) for unit in found]
            seeds = range(seed, seed + len(found))
            pictures = as_inputs(make(layer).maximize(targets, seeds=seeds).images.detach())
            scaled = [scaled_like(picture, unit.image, unit.box) for unit, picture in zip(found, pictures, strict=True)]
            reached = channel_responses(network, layer, torch.stack(scaled), [unit.unit[0] for unit in found]).tolist()
            extra[name] = [response / unit.best for unit, response in zip(found, reached, strict=True)]
        for index, unit in enumerate(found):
            responses = unit.response | {name: values[index] for name, values in extra.items()}
            result.append(PictureResponse(layer, list(unit.unit), unit.best, responses))
    return result


def target_of(unit: tuple[int, ...]) -> int | tuple[int, ...]:
    """A unit in Captum's grammar: a channel of a flat layer is an int."""
    return unit[0] if len(unit) == 1 else unit


def median_responses(responses: Sequence[PictureResponse]) -> dict[str, dict[str, float]]:
    """For each layer and method the median over the units; see `response_quartiles`.

    Args:
        responses: from `sufficiency`.

    >>> from plugin.experiments.invariance import PictureResponse, median_responses
    >>> units = [PictureResponse("conv1", [0, 8, 8], best=1.0, responses={"guided": value}) for value in (1, 2, 6)]
    >>> median_responses(units)
    {'conv1': {'guided': 2}}
    """
    return {
        layer: {method: statistics.median(values) for method, values in methods.items()}
        for layer, methods in _by_method(responses).items()
    }


def response_quartiles(responses: Sequence[PictureResponse]) -> dict[str, dict[str, Quartiles]]:
    """For each layer and method the quartiles over the units.

    Args:
        responses: from `sufficiency`.

    >>> from plugin.experiments.invariance import PictureResponse, response_quartiles
    >>> units = [PictureResponse("conv1", [0, 8, 8], best=1.0, responses={"guided": value}) for value in (1, 2, 6)]
    >>> str(response_quartiles(units)["conv1"]["guided"])
    '2.00 (1.50 to 4.00)'
    """
    return {
        layer: {method: quartiles(values) for method, values in methods.items()}
        for layer, methods in _by_method(responses).items()
    }


def _by_method(responses: Sequence[PictureResponse]) -> dict[str, dict[str, list[float]]]:
    """The numbers of the units by layer and method."""
    layers: dict[str, dict[str, list[float]]] = {}
    for unit in responses:
        for method, value in unit.responses.items():
            layers.setdefault(unit.layer, {}).setdefault(method, []).append(value)
    return layers
