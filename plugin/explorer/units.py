"""Units of two networks side by side: which layer stands for which, where a unit looks, and what its pictures show."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import torch
from captum.attr import LayerActivation
from numpy.typing import NDArray
from PIL import Image

from plugin import figures
from plugin.attr import DeconvNet

from .attributions import Result, largest
from .methods import NO_IMAGE, WITHOUT_SWITCHES
from .networks import Subject
from .state import Settings, axes

# The network with max-pooling and the one without, of equal depth: each is shown beside the other.
TWINS = {"all-cnn-c": "model-c", "model-c": "all-cnn-c"}
CONDITIONED = ("deconvnet", "guided-backprop", "gradient")
_SQUARES_ACROSS = 32

Box = tuple[tuple[int, int], tuple[int, int]]


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


def is_pooled(subject: Subject, layer: str) -> bool:
    """Whether there is max-pooling between the input and a layer, so that switches matter.

    Raises:
        ValueError: no deconvnet goes through what lies between; the message is one sentence.
    """
    with subject.lock:
        DeconvNet(subject.model.network, layer, subject.input_shape, "center")
        try:
            DeconvNet(subject.model.network, layer, subject.input_shape)
        except ValueError:
            return True
    return False


def methods(pooled: bool) -> tuple[str, ...]:
    """The keys of the methods that are compared."""
    return (NO_IMAGE, *CONDITIONED, *(WITHOUT_SWITCHES if pooled else ()))


def box(maps: Iterable[NDArray[np.float32]], margin: int = 1) -> Box:
    """The smallest square of rows and columns that holds all that is not zero in maps `(C, H, W)`, and a margin."""
    used = np.any([np.any(values != 0, axis=0) for values in maps], axis=0)
    if not used.any():
        return (0, used.shape[0]), (0, used.shape[1])
    ends = [np.flatnonzero(used.any(axis))[[0, -1]] for axis in (1, 0)]
    side = max(int(last - first) + 1 for first, last in ends) + 2 * margin
    firsts = [
        min(max(0, int(first + last + 1 - side) // 2), max(0, length - side))
        for (first, last), length in zip(ends, used.shape, strict=True)
    ]
    (top, left), (height, width) = firsts, (min(side, length) for length in used.shape)
    return (top, top + height), (left, left + width)


def likeness(result: Result, other: Result) -> float:
    """The cosine between two maps: 1 if one is a multiple of the other; 0 if either is zero."""
    one, two = (values.attribution.ravel().astype(np.float64) for values in (result, other))
    norms = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / norms if norms else 0.0


def excitation(
    subject: Subject, image: Image.Image, layer: str, neuron: tuple[int, ...], result: Result
) -> float | None:
    """The unit's response to its own picture instead of the photograph, over its response to the photograph.

    The picture is scaled to the norm of the photograph on the pixels that it covers. None if the unit does not respond
    to the photograph, or the picture is zero.
    """
    inputs, picture = subject.model.preprocess(image), torch.from_numpy(result.attribution)[None]
    rows, columns = (slice(*ends) for ends in box([result.attribution], margin=0))
    scale = inputs[..., rows, columns].norm() / picture.norm()
    module = subject.model.network.get_submodule(layer)
    with subject.lock:
        both = torch.cat([inputs, picture * scale])
        output = LayerActivation(subject.model.network, module).attribute(both)
    before, after = (float(values[neuron]) for values in output)
    return after / before if before > 0 and np.isfinite(after) else None


def channels_figure(responses: NDArray[np.float32], neuron: tuple[int, ...]) -> tuple[go.Figure, list[tuple[int, ...]]]:
    """A square per channel, coloured by its largest response; and the unit that each square stands for."""
    axis = axes(responses.shape).index("channel") if "channel" in axes(responses.shape) else 0
    flat = np.moveaxis(responses, axis, 0).reshape(responses.shape[axis], -1)
    places = [np.unravel_index(int(i), np.delete(responses.shape, axis)) for i in flat.argmax(1)]
    units = [(*map(int, place[:axis]), channel, *map(int, place[axis:])) for channel, place in enumerate(places)]
    names = [f"{axes(responses.shape)[axis]} {channel}" for channel in range(len(flat))]
    return figures.unit_squares(flat.max(1), names, _across(len(flat)), neuron[axis], width=400), units


def positions_figure(
    responses: NDArray[np.float32], neuron: tuple[int, ...]
) -> tuple[go.Figure, list[tuple[int, ...]]] | None:
    """A square per position of the chosen channel, or per block of positions where there are many; None without any."""
    if axes(responses.shape) != ("channel", "row", "column"):
        return None
    values = responses[neuron[0]]
    block = -(-max(values.shape) // _SQUARES_ACROSS)
    units: list[tuple[int, ...]] = []
    heights, names = [], []
    for top in range(0, values.shape[0], block):
        for left in range(0, values.shape[1], block):
            row, column = largest(values[top : top + block, left : left + block])
            units.append((neuron[0], top + row, left + column))
            heights.append(values[units[-1][1:]])
            names.append(f"row {top + row}, column {left + column}")
    across = -(-values.shape[1] // block)
    chosen = neuron[1] // block * across + neuron[2] // block
    return figures.unit_squares(np.array(heights), names, across, chosen, width=220), units


def _across(count: int) -> int:
    """Squares in a row, so that the whole is about three times as wide as high."""
    return max(10, min(_SQUARES_ACROSS * 2, round((3 * count) ** 0.5)))


def statement(image_free: Result | None, pooled: bool) -> str:
    """What to look at, in Markdown."""
    if image_free is None:
        return "No deconvnet without a picture leads here."
    if pooled:
        return (
            "There is max-pooling below this layer. With its switches the deconvnet follows the picture; "
            "without them it is the same for every picture."
        )
    return "No max-pooling below this layer: the deconvnet is the same for every picture, and needs none."
