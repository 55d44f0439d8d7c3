"""Maps of one unit: the pixels that they use, their similarity, and their excitation of the unit."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from plugin.observing import outputs_of

from ..inputs.subject import Subject
from .answers import Answer, deconvnet

Box = tuple[tuple[int, int], tuple[int, int]]


def is_pooled(subject: Subject, layer: str) -> bool:
    """Whether there is max-pooling between the input and a layer, so that switches matter.

    Raises:
        ValueError: no deconvnet passes through the layers between; the message is one sentence.
    """
    return deconvnet(subject.model.network, layer, subject.input_shape, "center").pooled


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


def likeness(result: Answer, other: Answer) -> float:
    """The cosine between two maps: 1 if one is a multiple of the other; 0 if either is zero."""
    one, two = (values.attribution.ravel().astype(np.float64) for values in (result, other))
    norms = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / norms if norms else 0.0


def excitations(
    subject: Subject, image: Image.Image, layer: str, neuron: tuple[int, ...], results: Sequence[Answer]
) -> list[float | None]:
    """The unit's response to each picture of it instead of the photograph, over its response to the photograph.

    A picture is scaled to the norm of the photograph on the pixels that it covers. None if the unit does not respond to
    the photograph, or the picture is zero. The network looks at all of them at once.
    """
    inputs = subject.preprocess(image)
    seen = [inputs, *(_at_contrast(inputs, result) for result in results)]
    outputs = outputs_of(subject.model.network, [layer], torch.cat(seen), used_once=True)[layer]
    before, *after = (float(values[neuron]) for values in outputs)
    return [value / before if before > 0 and np.isfinite(value) else None for value in after]


def _at_contrast(inputs: torch.Tensor, result: Answer) -> torch.Tensor:
    """The picture of a unit `(1, C, H, W)` with the norm of the photograph on the pixels that it covers."""
    picture = torch.from_numpy(result.attribution)[None].to(inputs.device)
    rows, columns = (slice(*ends) for ends in box([result.attribution], margin=0))
    scale: torch.Tensor = inputs[..., rows, columns].norm() / picture.norm()
    return picture * scale
