"""The network with max-pooling and the one without, side by side: the counterparts of their layers and units."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...choices.offered_methods import NO_IMAGE, WITHOUT_SWITCHES
from ...choices.settings import Settings
from ...inputs.subject import Subject
from ...maps.answers import Answer, largest

# Networks of equal depth; each is shown beside the other.
TWINS = {"all-cnn-c": "model-c", "model-c": "all-cnn-c"}
CONDITIONED = ("deconvnet", "guided-backprop", "gradient")


def counterpart(layer: str, layers: dict[str, tuple[int, ...]], others: dict[str, tuple[int, ...]]) -> str:
    """The layer of another network that stands where `layer` stands: of the same shape, or else as deep.

    Args:
        layer: a key of `layers`.
        layers, others: output shapes by name, in order of execution.
    """
    same = [name for name, shape in others.items() if shape == layers[layer]]
    group = [name for name, shape in layers.items() if shape == layers[layer]] if same else list(layers)
    candidates = same or list(others)
    return candidates[group.index(layer) * len(candidates) // len(group)]


def twin_settings(settings: Settings, subject: Subject, twin: Subject, responses: NDArray[np.float32]) -> Settings:
    """The settings for the twin: the counterpart of the layer, and there the class of the same name or the most active
    unit.

    Args:
        settings: with a layer and a unit of the first network.
        subject, twin: the networks.
        responses: of the counterpart to the picture.
    """
    layer = counterpart(settings.layer, subject.layers, twin.layers)
    is_class = responses.shape[0] == len(twin.model.classes) and subject.layers[settings.layer] == responses.shape
    neuron = settings.neuron if is_class else largest(responses)
    return replace(settings, network=twin.name, checkpoint="", layer=layer, neuron=neuron, rules=())


def methods(pooled: bool) -> tuple[str, ...]:
    """The keys of the methods that are compared."""
    return (NO_IMAGE, *CONDITIONED, *(WITHOUT_SWITCHES if pooled else ()))


def statement(image_free: Answer | None, pooled: bool) -> str:
    """The effect of the picture on the deconvnet, in Markdown."""
    if image_free is None:
        return "There is no deconvnet without a picture for this unit."
    if pooled:
        return (
            "There is max-pooling below this layer. With its switches the deconvnet follows the picture; "
            "without them it is the same for every picture."
        )
    return "No max-pooling below this layer: the deconvnet is the same for every picture, and needs none."
