"""Networks to explain, opened once and shared by every session."""

import hashlib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib import import_module
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import nn

from plugin import models
from plugin.models import LoadedModel

from . import checkpoints, images
from .checkpoints import Opened
from .state import DRAWING, UPLOAD, Settings

# The classifier of handwritten digits: grey values in [0, 1], 28 x 28 pixels.
DIGITS = "mnist-classifier"


@dataclass(frozen=True)
class Subject:
    """A network that is ready to be explained.

    Attributes:
        name: a name of `choices`.
        model: the network with its preprocessing and class names.
        layers: output shape, without the batch dimension, of every module that is called exactly once and returns one
            tensor, by dotted name; in the order in which they finish.
        source: the Python expression that gives `model`, for snippets.
        imports: the import statements that the expression needs beyond `plugin.models`.
        identity: tells its answers from those of other networks, also of the same architecture.
        lock: held while the network runs. Captum's layer methods hook the shared modules: two at a time would read each
            other's activations.
    """

    name: str
    model: LoadedModel
    layers: dict[str, tuple[int, ...]]
    source: str
    imports: tuple[str, ...] = ()
    identity: str = ""
    lock: Any = field(default_factory=Lock, compare=False)

    @property
    def channels(self) -> int:
        """Of the input."""
        return len(self.model.preprocessing.mean)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example, (C, H, W)."""
        return self.channels, self.model.preprocessing.crop, self.model.preprocessing.crop

    def twin(self) -> nn.Module:
        """The network with modules of its own that share its weights, for threads that work long without the lock.

        Hooks on the network do not see what the twin computes.
        """
        with self.lock:
            network = self.model.network
            kept = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
            return deepcopy(network, kept)


# Networks of the person who started the explorer, by the name of their factory. Filled before the first page is drawn,
# and only from the command line: what comes through the browser is never run.
_own: dict[str, Callable[[], LoadedModel | nn.Module]] = {}


def add(name: str) -> None:
    """Offer a network of the user's own.

    Args:
        name: `package.module:factory`, where the factory takes nothing and returns a module or a `LoadedModel`.

    Raises:
        ValueError: there is no such factory.
    """
    module, _, factory = name.partition(":")
    try:
        found = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported ({error}): give package.module:factory") from error
    if not callable(found):
        raise ValueError(f"{name} is not callable: give a function or class that returns a network")
    _own[name] = found


def choices() -> tuple[str, ...]:
    """The user's own networks, the bundled ones, then torchvision's classification networks by name."""
    from torchvision import models as torchvision_models

    return (*_own, *models.names(), DIGITS, *sorted(torchvision_models.list_models(module=torchvision_models)))


def architectures() -> tuple[str, ...]:
    """The names of `choices` that take a checkpoint: those whose code is bundled or torchvision's."""
    return tuple(name for name in choices() if name not in _own and name != DIGITS)


def family(name: str) -> str:
    """Networks of one family answer with the same classes, and look at the same kind of picture."""
    if name in models.names():
        return "CIFAR-10"
    return name if name in _own or name == DIGITS else "ImageNet"


def with_suitable_picture(settings: Settings) -> Settings:
    """The settings of a network that was just chosen, with a digit for the classifier of digits and for no other."""
    is_digit = settings.image in (DRAWING, *images.DIGITS)
    if settings.image == UPLOAD or is_digit == (settings.network == DIGITS):
        return settings
    return replace(settings, image=images.DIGITS[3] if settings.network == DIGITS else Settings.image)


def digit_classifier() -> LoadedModel:
    """The bundled classifier of MNIST's digits, for pictures: their grey values in [0, 1]."""
    from gan.loading import load_classifier

    classifier = load_classifier(DIGITS)
    grey = models.Preprocessing(28, 28, (0.0,), (1.0,))
    return replace(models.load(classifier, classes=classifier.classes, preprocessing=grey), name=DIGITS)


def open_network(name: str, checkpoint: tuple[str, bytes] | None = None) -> Subject:
    """Load a network and list its layers.

    Args:
        name: one of `choices`.
        checkpoint: name and content of a file with other weights, for one of `architectures`.

    Raises:
        ValueError: unknown name, the checkpoint does not fit, or the user's network does not take pictures.
        RuntimeError: the weights are neither here nor can they be downloaded.
    """
    try:
        opened = _open(name, checkpoint)
    except OSError as error:
        raise RuntimeError(f"The weights of {name} cannot be read: {error}.") from error
    try:
        layers, outputs = layer_shapes(opened.model)
    except Exception as error:  # the user's own network may fail in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ValueError(f"{name} cannot process a picture: {reason}.") from error
    names = opened.model.classes or tuple(f"class {index}" for index in range(outputs))
    identity = f"{name}@{hashlib.sha256(checkpoint[1]).hexdigest()}" if checkpoint else name
    model = replace(opened.model, classes=names)
    return Subject(name, model, layers, opened.source, opened.imports, identity)


def _open(name: str, checkpoint: tuple[str, bytes] | None) -> Opened:
    if checkpoint is not None:
        return checkpoints.opened(name, *checkpoint)
    if name == DIGITS:
        imports = (f"from {__name__} import {digit_classifier.__name__}",)
        return Opened(digit_classifier(), f"{digit_classifier.__name__}()", imports)
    if name in _own:
        module, _, factory = name.partition(":")
        try:
            made = _own[name]()
        except Exception as error:  # the user's code may fail in any way
            raise ValueError(f"{name} failed with {type(error).__name__}: {error}".splitlines()[0]) from error
        imports = (f"from {module} import {factory}",)
        if isinstance(made, LoadedModel):
            return Opened(made, f"{factory}()", imports)
        return Opened(models.load(made), f"models.load({factory}())", imports)
    return Opened(models.load(name), f"models.load({name!r})")


def layer_shapes(model: LoadedModel) -> tuple[dict[str, tuple[int, ...]], int]:
    """`Subject.layers` of a network, and the number of its outputs, found by running it once on a grey picture.

    Its modules are hooked while it runs: call this before the network is shared.
    """
    names = {module: name for name, module in model.network.named_modules() if name}
    finished: list[tuple[str, Any]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        finished.append((names[module], output))

    hooks = [module.register_forward_hook(record) for module in names]
    try:
        with torch.no_grad():
            logits = model.network(model.preprocess(Image.new("RGB", (64, 64), "grey")))
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ValueError("it must return logits (N, classes)")
    calls = Counter(name for name, _ in finished)
    tensors = {name: output for name, output in finished if calls[name] == 1 and isinstance(output, torch.Tensor)}
    shapes = {name: tuple(output.shape[1:]) for name, output in tensors.items() if 2 <= output.ndim <= 4}
    return shapes, logits.shape[1]
