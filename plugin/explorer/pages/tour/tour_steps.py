"""The guided tour: the argument of Springenberg et al. (2015) in steps, each with a figure that is computed here.

>>> shown = compute("relu-rules")
>>> shown.arrays["Guided backprop"]                          # the numbers of the figure
>>> shown.figure.show()
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from plugin import figures

from ...choices.settings import TOUR, Settings
from ...inputs import offered_networks
from ...inputs.offered_networks import DIGITS
from ...maps.rendering import versions
from ...server.meter import Meter
from . import step_findings
from .step_findings import HIGH, RELU_RULES, UNITS, Found, Open


@dataclass(frozen=True)
class TourStep:
    """A step of the tour.

    Attributes:
        title: for people.
        text: the explanation, in Markdown.
        find: computes the figure, given a function that opens a network by its name.
        page: the path of the page that goes on from here.
        settings: the settings with which that page opens.
    """

    title: str
    text: str
    find: Callable[[Open], Found]
    page: str
    settings: Settings


def compute(key: str, open_network: Open = offered_networks.open_network) -> Found:
    """Compute the figure of a step.

    Args:
        key: of `STEPS`.
        open_network: a function that opens a network by its name.
    """
    with Meter(torch.device("cpu")) as meter:
        found = STEPS[key].find(open_network)
    return replace(found, seconds=meter.seconds, peak_bytes=meter.peak_bytes)


def program(key: str) -> str:
    """A program whose numbers are those on screen."""
    lines = [
        f"from {__name__} import {compute.__name__}",
        "",
        f"shown = compute({key!r})",
        "print(shown.finding)",
        "shown.arrays  # the numbers of the figure, by name",
        "shown.figure.show()",
    ]
    return "\n".join(lines) + "\n"


def npz(key: str, found: Found) -> bytes:
    """An NPZ file with the figure's numbers, `array_0` and so on in the order of `names`, settings and versions."""
    arrays = {f"array_{index}": values for index, values in enumerate(found.arrays.values())}
    recorded: dict[str, Any] = {
        "step": key, "names": list(found.arrays), "seconds": found.seconds, "peak_bytes": found.peak_bytes,
    }  # fmt: skip
    return figures.to_npz(arrays, recorded, versions())


def neighbours(key: str) -> tuple[str, str]:
    """The step before and the step after; empty at the ends."""
    index = TOUR.index(key)
    return (TOUR[index - 1] if index else ""), (TOUR[index + 1] if index + 1 < len(TOUR) else "")


_BOTH = Settings(network="all-cnn-c", image="cat", methods=RELU_RULES, view="colour")
STEPS: dict[str, TourStep] = {
    "relu-rules": TourStep(
        "Three rules for one ReLU",
        "Every method here is backpropagation with another rule at the ReLU. The **gradient** lets the signal pass "
        "where the *input* was positive, the **deconvnet** where the *signal* is, **guided backprop** where both are. "
        "Here are nine numbers on their way up, and the results of each rule for nine others on their way down.",
        step_findings.relu_rules,
        "attribute",
        _BOTH,
    ),
    "switches": TourStep(
        "Max-pooling needs a picture",
        "Max-pooling forgets where its maximum was; to go back, the deconvnet takes these *switches* from a picture, "
        "so in Model C one unit has another map for each picture. All-CNN-C has strided convolutions instead of "
        "pooling: nothing to switch, and one map for all pictures.",
        step_findings.switches,
        "deconvnet",
        replace(_BOTH, network="model-c", layer=UNITS["model-c"][0], neuron=UNITS["model-c"][1]),
    ),
    "without-a-picture": TourStep(
        "A deconvnet that sees no picture",
        "So in All-CNN-C a unit can be drawn from the weights alone. In low layers this gives clean patterns that the "
        "unit likes; in high layers it does not: no single picture stands for all that their units respond to.",
        step_findings.without_a_picture,
        "deconvnet",
        replace(_BOTH, layer=HIGH, neuron=UNITS["all-cnn-c"][1]),
    ),
    "guided-backprop": TourStep(
        "Guided backprop",
        "Masked by the picture's own ReLUs as well, the signal finds its way: guided backprop draws sharp maps from "
        "high layers, with pooling and without. The deconvnet without switches fails in both networks.",
        step_findings.guided,
        "attribute",
        replace(_BOTH, network="model-c", methods=("deconvnet-center", "guided-backprop"), target=3),
    ),
    "conservation": TourStep(
        "Relevance that adds up",
        "Layer-wise relevance propagation changes the rule of the *linear* layers: each hands the relevance of its "
        "output down in proportion to the contributions of its inputs. Nothing is lost: the relevance of the pixels "
        "and that of biases and stabilisers add up to the logit by each of these rules.",
        step_findings.conservation,
        "lrp",
        Settings(network="all-cnn-c", image="cat", target=3),
    ),
    "code-space": TourStep(
        "Pictures that a class likes best",
        "The other way round: search the code space of a generator for pictures that excite a unit most. Here are "
        "sixteen runs for the digit 0, from sixteen random starts. That the classifier is sure proves little, so a "
        "second network that took no part is the judge.",
        step_findings.code_space,
        "code-space",
        Settings(network=DIGITS, image="digit-0", target=0),
    ),
    "invariance": TourStep(
        "Why one picture is not enough",
        "High units are *invariant*: they go on firing when the picture is moved. Then a whole set of pictures excites "
        "them, and no single one can stand for it: this is why the deconvnet without a picture fails there.",
        step_findings.invariance,
        "invariance",
        Settings(network=DIGITS, image="digit-3"),
    ),
}
