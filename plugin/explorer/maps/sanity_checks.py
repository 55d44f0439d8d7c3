"""The dependence of maps on the learned weights: `plugin.experiments.sanity` for the questions of the pages."""

from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor, nn

from plugin.experiments.sanity import NEARLY_THE_SAME, RandomisationCheck, randomisation_check
from plugin.models import LoadedModel

from ..choices.offered_methods import METHODS
from ..inputs.subject import Subject
from .answers import answering, attribute
from .questions import Question

# No correlation is above it: the page has a sentence instead of a warning, and silencing would affect all threads.
_NO_WARNING = 1.1


@dataclass(frozen=True)
class _OneMethod:
    """One method for any network with the architecture of the model's, with Captum's API."""

    model: LoadedModel
    question: Question
    network: nn.Module

    def attribute(self, inputs: Tensor, *, target: object = None) -> Tensor:
        return attribute(self.network, inputs, self.question, self.model)


def check(subject: Subject, image: Image.Image, question: Question, layers: int) -> RandomisationCheck:
    """Make the last layers random, one more each time, and compare the maps.

    Args:
        subject: the network; a copy is randomised.
        image: RGB, any size.
        question: about a class.
        layers: the number of layers.

    Raises:
        ValueError: the network has fewer layers, or the method has no answer; the message is one sentence.
    """
    inputs = subject.preprocess(image)
    with answering(subject, question):
        found = randomisation_check(
            lambda network: _OneMethod(subject.model, question, network), subject.model.network, inputs, layers=layers,
            threshold=_NO_WARNING,
        )  # fmt: skip
    return replace(found, threshold=NEARLY_THE_SAME)


def row(method: str, found: RandomisationCheck) -> dict[str, str | float]:
    """The result for a method, by its key, as a line of a table."""
    last = found.steps[-1]
    return {
        "Method": METHODS[method].label,
        "Made random": ", ".join(step.layer for step in found.steps),
        "With signs": round(last.similarity.signed, 3),
        "Without signs": round(last.similarity.magnitude, 3),
        "The map": "hardly changes" if found.hardly_changes else "changes",
    }


def warning(found: dict[str, RandomisationCheck]) -> str:
    """One sentence on the methods, by key, whose map hardly changed; empty if there are none."""
    names = [METHODS[key].label for key, each in found.items() if each.hardly_changes]
    if not names:
        return ""
    return (
        f"{' and '.join(names)}: with random weights in the last layers the map hardly changes. It shows the picture "
        "more than the learned weights, so do not read it as the reason for the class."
    )
