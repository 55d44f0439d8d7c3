"""A network that is ready to be explained, with its layers and the Python that opens it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from plugin.heads import LOGITS
from plugin.models import LoadedModel
from plugin.observing import ModuleTrace

from ..server.turns import PROCESSOR
from .refusals import require_logits


@dataclass(frozen=True)
class Subject:
    """A network that is ready to be explained. It is never changed: all sessions and threads share it.

    Two are equal, and hash alike, if their `identity` and their `device` are the same.

    Attributes:
        name: a name of `offered_networks.choices`.
        model: the network with its preprocessing and class names.
        layers: output shape, without the batch dimension, of every module that is called exactly once and returns one
            tensor, by dotted name; in the order in which they finish.
        source: the Python expression that gives `model`, for programs.
        imports: the import statements that the expression needs beyond `plugin.models`.
        identity: tells its answers from those of other networks, also of the same architecture.
        device: the name of its device; results on another one differ by rounding.
        head: the kind of its outputs, one of `plugin.heads.HEADS`.
    """

    name: str = field(compare=False)
    model: LoadedModel = field(compare=False)
    layers: dict[str, tuple[int, ...]] = field(compare=False)
    source: str = field(compare=False)
    imports: tuple[str, ...] = field(default=(), compare=False)
    identity: str = ""
    device: str = PROCESSOR
    head: str = field(default=LOGITS, compare=False)

    @property
    def channels(self) -> int:
        """The number of channels of the input."""
        return len(self.model.preprocessing.mean)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, (C, H, W)."""
        return self.channels, self.model.preprocessing.crop, self.model.preprocessing.crop

    def preprocess(self, image: Image.Image) -> Tensor:
        """The input `(1, C, H, W)` for a picture of any size and mode, on the network's device."""
        return self.model.preprocess(image).to(self.device)


def layer_shapes(model: LoadedModel, device: str = PROCESSOR) -> tuple[dict[str, tuple[int, ...]], Tensor]:
    """`Subject.layers` of a network on a device, and its outputs `(1, classes)` for a grey picture, with their graph.

    Raises:
        Refused: it does not return a number for each class. Errors of the network itself are passed on.
    """
    names = {module: name for name, module in model.network.named_modules() if name}
    shapes: dict[str, tuple[int, ...]] = {}
    calls = Counter[str]()

    def record(module: nn.Module, output: Any) -> None:
        if name := names.get(module):
            calls[name] += 1
            if isinstance(output, torch.Tensor) and 2 <= output.ndim <= 4:
                shapes[name] = tuple(output.shape[1:])

    grey = model.preprocess(Image.new("RGB", (64, 64), "grey")).to(device).requires_grad_()
    with torch.enable_grad(), ModuleTrace(on_exit=record):
        outputs = model.network(grey.clone())  # a copy, which the network may overwrite
    return {name: shape for name, shape in shapes.items() if calls[name] == 1}, require_logits(outputs)
