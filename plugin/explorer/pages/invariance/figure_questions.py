"""The questions of the Invariance page: the three figures of `plugin.experiments.invariance`, small enough to watch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from plugin.experiments.units import layers_with_units

from ...choices.fitting import generator_of
from ...choices.settings import Settings
from ...inputs import image_sets
from ...inputs.offered_networks import DIGITS
from ...inputs.subject import Subject
from ...server.jobs import name_of

FIGURES = ("A", "B", "C")
TITLES = {
    "A": "A. Does a unit go on firing when the picture is moved?",
    "B": "B. Does one picture suffice?",
    "C": "C. What shape has the set of pictures that a unit likes best?",
}
# Explanations of the figures, which are shown before anything is measured.
TEXTS = {
    "A": (
        "A unit fires on the few images that excite it most. Of these, how many still make it fire once they are "
        "shifted, rotated or scaled? The figure shows this share over the unit's rate on all images: the larger, the "
        "more invariant; about 1 is chance (Goodfellow et al. 2009). The untrained network has the same layers and "
        "fresh weights."
    ),
    "B": (
        "Each unit is shown a picture of itself instead of its best image, at the same contrast. If the ratio of the "
        "responses is near 1 or above, that one picture holds the unit's preferred pattern; a deconvnet that sees no "
        "image must draw one picture for everything that excites the unit."
    ),
    "C": (
        "A unit is maximised many times. Modes: how many different solutions there are (Vendi score). Barrier: how far "
        "the response falls on the way from one solution to another, as a share of the weaker one; 0 is a ridge that "
        "one can walk along, 1 a valley down to nothing. Some generators have branches: each code takes one, and on "
        "the way from one branch to another the picture changes almost at once."
    ),
}
UNITS = 4  # of each layer, for B
_FIRING, _MOST_SIDE, MOST_RUNS = 10, 64, 16


@dataclass(frozen=True)
class FigureQuestion:
    """The question that one figure answers.

    Attributes:
        figure: one of `FIGURES`.
        network: identity of the network.
        data: a key of `image_sets.LABELS`.
        count: the number of images.
        layer, channel: of the chosen unit, which lies in the middle of the picture.
        generator: the generator in whose codes units are maximised; empty for pixels, and for A.
        runs, steps: of the maximisation.
        seed: decides directions, fresh weights and runs.
    """

    figure: str
    network: str
    data: str
    count: int
    layer: str
    channel: int
    generator: str
    runs: int
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """A name that tells questions apart."""
        return name_of(self)


def layers_of(subject: Subject) -> list[str]:
    """The layers whose units are measured, and which have a name by which they can be chosen."""
    example = torch.zeros(1, *subject.input_shape)
    return [name for name in layers_with_units(subject.model.network, example) if name in subject.layers]


def with_unit(settings: Settings, subject: Subject, layers: Sequence[str]) -> Settings:
    """The settings with a unit in the middle of one of the layers: the chosen one, or one near it."""
    layer = settings.layer if settings.layer in layers else _nearest(settings.layer, subject, layers)
    shape = subject.layers.get(layer, ())
    channel = settings.neuron[0] if settings.neuron and settings.neuron[0] < shape[0] else 0
    return replace(settings, layer=layer, neuron=(channel, *(size // 2 for size in shape[1:])))


def _nearest(layer: str, subject: Subject, layers: Sequence[str]) -> str:
    """The last of the layers that ends before this one, such as a convolution before its ReLU; else the middle one."""
    order = list(subject.layers)
    before = [name for name in layers if name in order and layer in order and order.index(name) < order.index(layer)]
    return before[-1] if before else layers[len(layers) // 2]


def refusal(subject: Subject) -> str:
    """The reason that a network is not measured on a page, as a sentence; empty if it is measured."""
    if max(subject.input_shape[1:]) <= _MOST_SIDE:
        return "" if layers_of(subject) else f"{subject.name} has no convolution or linear layer that runs once."
    return (
        f"{subject.name} sees too many pixels to be measured while you look: "
        f"`python -m plugin.experiments.invariance {subject.name} --data FOLDER` does it with your pictures."
    )


def data_of(settings: Settings, subject: Subject) -> tuple[str, str]:
    """The set of images for a network, and a sentence if the set in the settings is not on this machine."""
    possible = image_sets.fitting(subject.model)
    if settings.data not in possible:
        return possible[0], ""
    if image_sets.available(settings.data):
        return settings.data, ""
    return possible[0], f"{image_sets.LABELS[settings.data]} are not on this machine: see --data of the explorer."


def question_of(figure: str, settings: Settings, subject: Subject, data: str) -> FigureQuestion:
    """The question that settings with a unit ask."""
    maximises = figure in ("B", "C")
    # B shows how strongly a unit can respond at all, which the codes of the generator of colours do not reach.
    in_codes = figure == "C" or (figure == "B" and subject.name == DIGITS)
    return FigureQuestion(
        figure=figure,
        network=subject.identity,
        data=data,
        count=settings.count,
        layer=settings.layer,
        channel=settings.neuron[0],
        generator=generator_of(settings) if in_codes else "",
        runs=max(2, min(settings.runs, MOST_RUNS)) if figure == "C" else 0,
        steps=settings.ascent if maximises else 0,
        seed=settings.seed,
    )


def rate_of(count: int) -> float:
    """The share of the images on which a unit fires: 1 %, or ten images if these are more, and at most half."""
    return max(0.01, min(0.5, _FIRING / count))
