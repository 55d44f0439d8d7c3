"""From a question about a network and a picture to a map. Networks are only run, so that any threads may share one."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from plugin import heads
from plugin.attr import DeconvNet, LRPTranspose
from plugin.errors import NoRuleError
from plugin.models import LoadedModel
from plugin.observing import outputs_of

from ..choices.offered_methods import METHODS
from ..inputs.subject import Subject
from ..server.device_memory import OutOfDeviceMemory, guarded
from ..server.meter import Meter
from ..server.turns import PROCESSOR
from .questions import Question, constructed, explained

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """An attribution `(C, H, W)`, float32, with the seconds and bytes (None if unknown) it took, and the device."""

    attribution: NDArray[np.float32]
    seconds: float
    peak_bytes: int | None
    device: str = PROCESSOR


def outputs(subject: Subject, image: Image.Image) -> NDArray[np.float32]:
    """The outputs of the network, `(classes,)`: logits, or the values that its head computes from them."""
    with torch.no_grad():
        found = subject.model.network(subject.preprocess(image))
    return np.asarray(found[0].float().cpu().numpy())


def probabilities(head: str, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probabilities for outputs of a network with this head, both `(classes,)`."""
    return np.asarray(heads.probabilities(head, torch.from_numpy(outputs)[None])[0].numpy())


def responses(subject: Subject, image: Image.Image, layer: str) -> NDArray[np.float32]:
    """The output of a layer for a picture, without the batch dimension."""
    outputs = outputs_of(subject.model.network, [layer], subject.preprocess(image), used_once=True)
    return np.asarray(outputs[layer][0].cpu().numpy())


def largest(values: NDArray[np.float32]) -> tuple[int, ...]:
    """Index of the largest value."""
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def compute(subject: Subject, image: Image.Image, question: Question) -> Answer:
    """Answer a question.

    Args:
        subject: the network.
        image: RGB, any size.
        question: valid for the network.

    Raises:
        ValueError: the method cannot answer it, or the device has too little memory left; the message is one sentence.
    """
    inputs = subject.preprocess(image)
    with answering(subject, question), Meter(inputs.device) as meter:
        attribution = attribute(subject.model.network, inputs, question, subject.model)
    return Answer(attribution[0].cpu().numpy().astype(np.float32), meter.seconds, meter.peak_bytes, subject.device)


def equal_maps(results: Mapping[str, Answer]) -> list[list[str]]:
    """Groups of keys whose maps are equal bit by bit, in the order given; a map without its equal is in no group."""
    groups: dict[bytes, list[str]] = {}
    for key, result in results.items():
        groups.setdefault(result.attribution.tobytes(), []).append(key)
    return [group for group in groups.values() if len(group) > 1]


@contextmanager
def answering(subject: Subject, question: Question) -> Iterator[None]:
    """A context in which any failure becomes a `ValueError` of one sentence."""
    try:
        with guarded(subject.device):
            yield
    except OutOfDeviceMemory:
        raise
    except Exception as error:  # any network may fail in a way of its own
        logger.info("%s failed on %s", question, subject.model.name, exc_info=True)
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        label = METHODS[question.method].label
        raise ValueError(f"{label} has no answer for {subject.model.name}: {reason}.") from error


def attribute(network: nn.Module, inputs: Tensor, question: Question, model: LoadedModel) -> Tensor:
    """The answer for inputs `(1, C, H, W)` of a network with the architecture of the model's."""
    method, neuron = METHODS[question.method], bool(question.neuron)
    if not question.needs_picture:
        reconstruction = deconvnet(network, question.layer, tuple(inputs.shape[1:]), question.unpooling or "center")
        return reconstruction.reconstruct([question.neuron])
    layer = [network.get_submodule(question.layer)] if question.layer else []
    whole, target = explained(network, question)
    attribution = method.attribution_class(neuron)(whole, *layer, **constructed(model, question))
    try:
        return _attributed(attribution, inputs, question, target, method.call)
    except NoRuleError:
        if isinstance(attribution, LRPTranspose):  # names all layers without a rule, not only the first
            attribution.check(inputs).require()
        raise


@lru_cache(maxsize=2)
def deconvnet(network: nn.Module, layer: str, input_shape: tuple[int, ...], unpooling: str) -> DeconvNet:
    """A `DeconvNet`, made once for all units of a layer: its checks take longer than a picture.

    Args:
        network, layer, input_shape: see `DeconvNet`.
        unpooling: without max-pooling, any value.
    """
    return DeconvNet(network, layer, input_shape, unpooling)


def _attributed(
    attribution: Any, inputs: Tensor, question: Question, target: int | None, options: Mapping[str, Any]
) -> Tensor:
    if question.neuron:
        neurons: Tensor = attribution.attribute(inputs, neuron_selector=question.neuron)
        return neurons
    scores: Tensor = attribution.attribute(inputs, target=target, **options)
    return scores
