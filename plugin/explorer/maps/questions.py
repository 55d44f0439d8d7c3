"""Questions about a network and a picture, and the arguments with which a method answers them."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from plugin.models import LoadedModel

from ..choices import offered_rules, python_calls
from ..choices.offered_methods import METHODS, NO_IMAGE, lrp_key
from ..choices.settings import Settings
from ..inputs.offered_pictures import Picture
from ..inputs.subject import Subject


@dataclass(frozen=True)
class Question:
    """The question that a map answers; hashable, so that results can be kept by it.

    Attributes:
        method: a key of `METHODS`.
        target: the class whose logit is explained; None when a neuron is explained.
        contrast: a class whose logit is subtracted first.
        layer: dotted module name, for a neuron or for a method that looks at a layer; else empty.
        neuron: index into that layer's output; empty when a class is explained.
        rules: pairs of a layer and a key of `offered_rules.RULES` that replace the rules of an LRP preset there.
        numbers: pairs of a name and a value that replace those of `offered_rules.NUMBERS`.
        unpooling: where max-pooling hands the signal of a method that sees no picture; empty where there is no pooling.
    """

    method: str
    target: int | None = None
    contrast: int | None = None
    layer: str = ""
    neuron: tuple[int, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    unpooling: str = ""

    @property
    def needs_picture(self) -> bool:
        """Whether the answer depends on the picture."""
        return self.method != NO_IMAGE


@dataclass(frozen=True)
class Look:
    """A network that looks at a picture; equal, and hashed alike, if both are the same."""

    subject: Subject
    picture: Picture

    def ask(self, question: Question) -> "Asked":
        """A question about it."""
        return Asked(self, question)


@dataclass(frozen=True)
class Asked:
    """A question about a network that looks at a picture: everything that a map depends on."""

    look: Look
    question: Question

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.look.subject

    @property
    def picture(self) -> Picture:
        """The picture."""
        return self.look.picture


class LogitDifference(nn.Module):
    """A network with one output `(N, 1)`: the logit of class `first` minus that of class `second`.

    Attributes:
        PREFIX: stands before the names of the network's layers.
    """

    PREFIX: ClassVar[str] = "network."

    def __init__(self, network: nn.Module, first: int, second: int) -> None:
        super().__init__()
        self.network, self.first, self.second = network, first, second

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs)
        return logits[:, self.first, None] - logits[:, self.second, None]


def question_of(settings: Settings, method: str, top_class: int) -> Question:
    """The question that valid settings ask of one method; `top_class` stands in for an open target."""
    if settings.explain == "neuron":
        return Question(method, layer=settings.layer, neuron=settings.neuron)
    target = top_class if settings.target is None else settings.target
    contrast = None if settings.contrast == target else settings.contrast
    return Question(method, target, contrast, settings.layer if METHODS[method].needs_layer else "")


def lrp_question(settings: Settings, top_class: int) -> Question:
    """The question of the LRP page: always a class, by one preset, with the rules and numbers that were changed."""
    question = question_of(replace(settings, explain="class"), lrp_key(settings.preset), top_class)
    chosen = {name: getattr(settings, name) for name in offered_rules.numbers_of(settings.preset, settings.rules)}
    numbers = tuple((name, value) for name, value in chosen.items() if value != offered_rules.NUMBERS[name])
    return replace(question, rules=settings.rules, numbers=numbers)


def unit_question(settings: Settings, method: str, pooled: bool) -> Question:
    """The question of one method about the chosen unit; `pooled` tells that there is max-pooling in the network."""
    unpooling = settings.unpooling if method == NO_IMAGE and pooled else ""
    return Question(method, layer=settings.layer, neuron=settings.neuron, unpooling=unpooling)


def explained(network: nn.Module, question: Question) -> tuple[nn.Module, int | None]:
    """The module whose output is explained, and the index of that output."""
    if question.contrast is None or question.target is None:
        return network, question.target
    return LogitDifference(network, question.target, question.contrast), 0


def arguments(model: LoadedModel, question: Question) -> dict[str, Any]:
    """Keyword arguments of the method's constructor, in which a `PythonCall` may stand for its value."""
    method = METHODS[question.method]
    if not method.preset:
        return dict(method.construct)
    prefix = "" if question.contrast is None else LogitDifference.PREFIX
    rules = offered_rules.rules_for(method.preset, model.preprocessing, question.rules, prefix, dict(question.numbers))
    return {**method.construct, "rules": rules}


def constructed(model: LoadedModel, question: Question) -> dict[str, Any]:
    """The keyword arguments with the values of the calls."""
    values: dict[str, Any] = python_calls.evaluate(arguments(model, question))
    return values
