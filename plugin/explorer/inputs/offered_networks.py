"""Networks to explain, by name: the list, and opening one of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import nn

from plugin import devices, models
from plugin.heads import LOGITS, find_head
from plugin.models import LoadedModel, hugging_face
from plugin.models.exported_programs import ENDING as PROGRAM
from plugin.models.timm_networks import timm_names

from ..server.device_memory import OutOfDeviceMemory, guarded
from ..server.turns import PROCESSOR
from . import own_weights, refusals, saved_networks
from .own_weights import Opened, OwnWeights
from .subject import Subject, layer_shapes

# The classifier of handwritten digits: grey values in [0, 1], 28 x 28 pixels.
DIGITS = "mnist-classifier"
# The family of the networks that see the ten classes of CIFAR-10, in 32 x 32 pixels.
CIFAR10 = "CIFAR-10"

# Networks of the person who started the explorer, by the name of their factory. Filled before the first page is drawn,
# and only from the command line: code that comes through the browser is never run.
_own: dict[str, Callable[[], LoadedModel | nn.Module]] = {}


def add(name: str) -> None:
    """Offer a network of the user's own.

    Args:
        name: `package.module:factory`, where the factory takes nothing and returns a module or a `LoadedModel`; the
            path of a program of `torch.export` that is trusted; or a network of Hugging Face, see `models.load`.

    Raises:
        ValueError: there is no such factory or file.
    """
    if hugging_face.is_named(name):
        _own[name] = partial(models.load, name)
        return
    if name.endswith(PROGRAM):
        if not Path(name).is_file():
            raise ValueError(f"{name} is no file: give the path of a program of torch.export")
        _own[name] = partial(models.load, name)
        return
    module, _, factory = name.partition(":")
    try:
        found = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported ({error}): give package.module:factory") from error
    if not callable(found):
        raise ValueError(f"{name} is not callable: give a function or class that returns a network")
    _own[name] = found


def choices() -> tuple[str, ...]:
    """The user's own networks, those known to `plugin.models`, then the classification networks of torchvision by name,
    and of timm, where that is installed."""
    return (*_own, *models.known_names(), DIGITS, *torchvisions(), *timm_names())


@cache
def torchvisions() -> tuple[str, ...]:
    """The names of torchvision's classification networks."""
    from torchvision import models as torchvision_models

    return tuple(sorted(torchvision_models.list_models(module=torchvision_models)))


def architectures() -> tuple[str, ...]:
    """The names of `choices` that take a checkpoint: those whose code is bundled, torchvision's or timm's."""
    return tuple(name for name in choices() if name not in _own and name != DIGITS)


def family(name: str) -> str:
    """The family of a network: networks of one family have the same classes, and the same kind of picture."""
    if name in models.known_names():
        return CIFAR10
    return "ImageNet" if name in torchvisions() else name


def digit_classifier() -> LoadedModel:
    """The bundled classifier of MNIST's digits, for pictures: their grey values in [0, 1]."""
    from gan import load_classifier

    classifier = load_classifier(DIGITS)
    grey = models.Preprocessing(28, 28, (0.0,), (1.0,))
    return replace(models.load(classifier, classes=classifier.classes, preprocessing=grey), name=DIGITS)


def open_network(name: str, weights: OwnWeights | None = None, device: str = PROCESSOR) -> Subject:
    """Load a network and list its layers.

    Args:
        name: one of `choices`, or of `saved_networks.named`.
        weights: a checkpoint, for one of `architectures`.
        device: one of `devices.available`, to which the network is moved.

    Raises:
        ValueError: unknown name, the checkpoint or the number of names does not fit, the user's network does not take
            pictures, or the device has no memory left for it.
        RuntimeError: the weights are not on this machine and cannot be downloaded.
    """
    try:
        opened = _open(name, weights)
    except OSError as error:
        raise RuntimeError(f"The weights of {name} cannot be read: {error}.") from error
    try:
        with guarded(device):
            model = replace(
                opened.model, network=devices.on_device(opened.model.network, devices.choose_device(device))
            )
            layers, outputs = layer_shapes(model, device)
            if name.endswith(PROGRAM):
                _check_batches(model, device)
    except OutOfDeviceMemory:
        raise
    except Exception as error:  # the user's own network may fail in any way
        why = refusals.reason(name, opened.model, error, weights.file.name if weights else "")
        raise ValueError(f"{name} cannot process a picture: {why}.") from error
    count = outputs.shape[1]
    names = model.classes or tuple(f"class {index}" for index in range(count))
    if weights is None and len(names) != count:  # a network of Hugging Face may state any names
        names = tuple(f"class {index}" for index in range(count))
    if weights and weights.names and len(names) != count:
        raise ValueError(
            f"{weights.names.name} has {len(names)} names, and the network in {weights.file.name} {count} classes: "
            "give one name for each class"
        )
    identity = f"{name}@{weights.identity}" if weights else name
    if name.startswith(hugging_face.HUB):  # the Hub may have another version tomorrow
        identity = f"{name}@{Path(model.metadata['folder']).name}"
    head = find_head(outputs) or LOGITS
    return Subject(name, replace(model, classes=names), layers, opened.source, opened.imports, identity, device, head)


def _check_batches(model: LoadedModel, device: str) -> None:
    """Refuse a program that was exported for one picture at a time: pages ask for several."""
    pictures = model.preprocess(Image.new("RGB", (64, 64), "grey")).repeat(2, 1, 1, 1).to(device)
    try:
        with torch.no_grad():
            model.network(pictures)
    except Exception as error:  # a program may raise any error
        raise refusals.Refused(
            "it takes one batch size only; give dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) to torch.export.export"
        ) from error


def _open(name: str, weights: OwnWeights | None) -> Opened:
    if weights is not None:
        return own_weights.opened(name, weights)
    if name == DIGITS:
        imports = (f"from {__name__} import {digit_classifier.__name__}",)
        return Opened(digit_classifier(), f"{digit_classifier.__name__}()", imports)
    if name in _own:
        module, _, factory = name.partition(":")
        try:
            made = _own[name]()
        except Exception as error:  # the user's code may fail in any way
            raise ValueError(f"{name} failed with {type(error).__name__}: {error}".splitlines()[0]) from error
        if name.endswith(PROGRAM) or hugging_face.is_named(name):
            return Opened(cast(LoadedModel, made), f"models.load({name!r})")
        imports = (f"from {module} import {factory}",)
        if isinstance(made, LoadedModel):
            return Opened(made, f"{factory}()", imports)
        return Opened(models.load(made), f"models.load({factory}())", imports)
    if hugging_face.is_named(name):
        return saved_networks.opened(name)
    return Opened(models.load(name), f"models.load({name!r})")
