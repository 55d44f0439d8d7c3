"""The units of a layer that carry the relevance of a map by layer-wise relevance propagation."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plugin.attr import LayerLRPTranspose

from ..inputs.layer_outputs import unit_axis
from ..inputs.subject import Subject
from .answers import answering
from .questions import Question, constructed, explained


def compute(subject: Subject, image: Image.Image, question: Question, layer: str) -> NDArray[np.float32]:
    """The relevance at the output of a layer, in the layer's shape.

    Args:
        subject: the network.
        image: RGB, any size.
        question: of one of the LRP presets, about a class.
        layer: one of the network's.

    Raises:
        ValueError: there is no answer; the message is one sentence.
    """
    inputs = subject.preprocess(image)
    with answering(subject, question):
        network, target = explained(subject.model.network, question)
        module = subject.model.network.get_submodule(layer)
        rules = constructed(subject.model, question)["rules"]
        relevance = LayerLRPTranspose(network, module, rules=rules).attribute(inputs, target)
    return np.asarray(relevance[0].cpu().numpy())


def of_units(relevance: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum over the positions of each unit, of a layer's relevance without the batch dimension."""
    axis = unit_axis(relevance.shape)
    return np.asarray(np.moveaxis(relevance, axis, 0).reshape(relevance.shape[axis], -1).sum(1))


def strongest(relevance: NDArray[np.float32], count: int) -> list[tuple[tuple[int, ...], float]]:
    """The units of most relevance, if positive: the index of each unit's maximum in the output, and the unit's sum."""
    axis = unit_axis(relevance.shape)
    sums = of_units(relevance)
    found = []
    for unit in np.argsort(-sums, kind="stable")[:count].tolist():
        if sums[unit] <= 0:
            break
        positions = np.take(relevance, unit, axis)
        position = [int(index) for index in np.unravel_index(int(positions.argmax()), positions.shape)]
        found.append(((*position[:axis], unit, *position[axis:]), float(sums[unit])))
    return found
