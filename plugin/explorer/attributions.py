"""From a question about a network and a picture to a map."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from captum.attr import LayerActivation
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from plugin.attr import DeconvNet, LRPTranspose
from plugin.errors import NoRuleError
from plugin.models import LoadedModel

from . import lrp_rules
from .memory import Meter
from .methods import METHODS, NO_IMAGE, lrp_key
from .networks import Subject
from .state import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What one map answers; hashable, so that results can be cached by it.

    Attributes:
        method: a key of `METHODS`.
        target: the class whose logit is explained; None when a neuron is.
        contrast: a class whose logit is subtracted first.
        layer: dotted module name, for a neuron or for a method that looks at a layer; else empty.
        neuron: index into that layer's output; empty when a class is explained.
        rules: pairs of a layer and a key of `lrp_rules.RULES` that replace the rules of an LRP preset there.
        unpooling: where max-pooling hands the signal of a method that sees no picture; empty where there is no pooling.
    """

    method: str
    target: int | None = None
    contrast: int | None = None
    layer: str = ""
    neuron: tuple[int, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    unpooling: str = ""

    @property
    def needs_picture(self) -> bool:
        """Whether the answer is another for another picture."""
        return self.method != NO_IMAGE


@dataclass(frozen=True)
class Result:
    """An attribution `(C, H, W)`, float32, with the seconds and bytes (None if unknown) it took."""

    attribution: NDArray[np.float32]
    seconds: float
    peak_bytes: int | None


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
        logits = self.network(inputs)
        return logits[:, self.first, None] - logits[:, self.second, None]


def question_of(settings: Settings, method: str, top_class: int) -> Question:
    """The question that valid settings ask of one method; `top_class` stands in for an open target."""
    if settings.explain == "neuron":
        return Question(method, layer=settings.layer, neuron=settings.neuron)
    target = top_class if settings.target is None else settings.target
    contrast = None if settings.contrast == target else settings.contrast
    return Question(method, target, contrast, settings.layer if METHODS[method].needs_layer else "")


def lrp_question(settings: Settings, top_class: int) -> Question:
    """The question of the LRP page: always a class, by one preset, with the rules that were changed."""
    question = question_of(replace(settings, explain="class"), lrp_key(settings.preset), top_class)
    return replace(question, rules=settings.rules)


def probabilities(subject: Subject, image: Image.Image) -> NDArray[np.float32]:
    """The softmax of the logits, `(classes,)`."""
    with subject.lock, torch.no_grad():
        logits = subject.model.network(subject.model.preprocess(image))
    return np.asarray(logits[0].softmax(0).numpy())


def responses(subject: Subject, image: Image.Image, layer: str) -> NDArray[np.float32]:
    """The output of a layer for a picture, without the batch dimension."""
    module = subject.model.network.get_submodule(layer)
    with subject.lock:
        output = LayerActivation(subject.model.network, module).attribute(subject.model.preprocess(image))
    return np.asarray(output[0].numpy())


def largest(values: NDArray[np.float32]) -> tuple[int, ...]:
    """Index of the largest value."""
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def unit_question(settings: Settings, method: str, pooled: bool) -> Question:
    """The question of one method about the chosen unit; `pooled` tells that there is max-pooling in the network."""
    unpooling = settings.unpooling if method == NO_IMAGE and pooled else ""
    return Question(method, layer=settings.layer, neuron=settings.neuron, unpooling=unpooling)


def compute(subject: Subject, image: Image.Image, question: Question) -> Result:
    """Answer a question.

    Args:
        subject: the network.
        image: RGB, any size.
        question: valid for the network.

    Raises:
        ValueError: the method cannot answer it; the message is one sentence.
    """
    inputs = subject.model.preprocess(image)
    with answering(subject, question), Meter(inputs.device) as meter:
        attribution = attribute(subject.model.network, inputs, question, subject.model)
    return Result(attribution[0].numpy().astype(np.float32), meter.seconds, meter.peak_bytes)


@contextmanager
def answering(subject: Subject, question: Question) -> Iterator[None]:
    """A context in which the network is ours alone, and any failure becomes a `ValueError` of one sentence."""
    with subject.lock:
        try:
            yield
        except Exception as error:  # any network may fail in a way of its own
            logger.info("%s failed on %s", question, subject.model.name, exc_info=True)
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            label = METHODS[question.method].label
            raise ValueError(f"{label} has no answer for {subject.model.name}: {reason}.") from error


def explained(network: nn.Module, question: Question) -> tuple[nn.Module, int | None]:
    """The module whose output is explained, and which output."""
    if question.contrast is None or question.target is None:
        return network, question.target
    return LogitDifference(network, question.target, question.contrast), 0


def arguments(model: LoadedModel, question: Question) -> dict[str, Any]:
    """Keyword arguments of the method's constructor, in which a `lrp_rules.Call` may stand for its value."""
    method = METHODS[question.method]
    if not method.preset:
        return dict(method.construct)
    prefix = "" if question.contrast is None else LogitDifference.PREFIX
    rules = lrp_rules.rules_for(method.preset, model.preprocessing, question.rules, prefix)
    return {**method.construct, "rules": rules}


def constructed(model: LoadedModel, question: Question) -> dict[str, Any]:
    """The same with their values."""
    values: dict[str, Any] = lrp_rules.evaluate(arguments(model, question))
    return values


def attribute(network: nn.Module, inputs: Tensor, question: Question, model: LoadedModel) -> Tensor:
    """The answer for inputs `(1, C, H, W)` of a network that is built like the model's."""
    method, neuron = METHODS[question.method], bool(question.neuron)
    if not question.needs_picture:
        reconstruction = DeconvNet(network, question.layer, tuple(inputs.shape[1:]), question.unpooling or None)
        return reconstruction.reconstruct([question.neuron])
    layer = [network.get_submodule(question.layer)] if question.layer else []
    whole, target = explained(network, question)
    attribution = method.attribution_class(neuron)(whole, *layer, **constructed(model, question))
    try:
        return _attributed(attribution, inputs, question, target, method.call)
    except NoRuleError:
        if isinstance(attribution, LRPTranspose):  # names all that has no rule, not only the first
            attribution.check(inputs).require()
        raise


def _attributed(
    attribution: Any, inputs: Tensor, question: Question, target: int | None, options: Mapping[str, Any]
) -> Tensor:
    if question.neuron:
        neurons: Tensor = attribution.attribute(inputs, neuron_selector=question.neuron)
        return neurons
    scores: Tensor = attribution.attribute(inputs, target=target, **options)
    return scores
