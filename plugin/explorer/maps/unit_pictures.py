"""Maps of one unit: which pixels they use, how alike they are, and how strongly they excite the unit."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from plugin.attr import DeconvNet
from plugin.observing import outputs_of

from ..inputs.subject import Subject
from .answers import Result

Box = tuple[tuple[int, int], tuple[int, int]]


def is_pooled(subject: Subject, layer: str) -> bool:
    """Whether there is max-pooling between the input and a layer, so that switches matter.

    Raises:
        ValueError: no deconvnet goes through what lies between; the message is one sentence.
    """
    DeconvNet(subject.model.network, layer, subject.input_shape, "center")
    try:
        DeconvNet(subject.model.network, layer, subject.input_shape)
    except ValueError:
        return True
    return False


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
    inputs = subject.preprocess(image)
    picture = torch.from_numpy(result.attribution)[None].to(inputs.device)
    rows, columns = (slice(*ends) for ends in box([result.attribution], margin=0))
    scale = inputs[..., rows, columns].norm() / picture.norm()
    both = torch.cat([inputs, picture * scale])
    before, after = (float(values[neuron]) for values in outputs_of(subject.model.network, [layer], both)[layer])
    return after / before if before > 0 and np.isfinite(after) else None
