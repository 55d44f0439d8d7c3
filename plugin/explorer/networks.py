"""Networks to explain, opened once and shared by every session."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import nn

from plugin import models


@dataclass(frozen=True)
class Subject:
    """A network that is ready to be explained.

    Attributes:
        model: the network with its preprocessing and class names.
        layers: output shape, without the batch dimension, of every module that is called exactly once and returns one
            tensor, by dotted name; in the order in which they finish.
        lock: held while the network runs. Captum's layer methods hook the shared modules: two at a time would read each
            other's activations.
    """

    model: models.LoadedModel
    layers: dict[str, tuple[int, ...]]
    lock: Any = field(default_factory=Lock, compare=False)


def choices() -> tuple[str, ...]:
    """The bundled networks, then torchvision's classification networks by name."""
    from torchvision import models as torchvision_models

    return (*models.names(), *sorted(torchvision_models.list_models(module=torchvision_models)))


def missing_download(name: str) -> str:
    """What has to be downloaded before `open_network`: one sentence, or nothing if nothing has."""
    if name in models.names():
        return ""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)["DEFAULT"]
    if (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).is_file():
        return ""
    size = weights.meta.get("_file_size")
    return f"The weights of {name} are not on this machine yet{f' ({size:.0f} MB)' if size else ''}."


def open_network(name: str) -> Subject:
    """Load a network and list its layers.

    Raises:
        ValueError: unknown name.
        RuntimeError: the weights are neither here nor can they be downloaded.
    """
    try:
        model = models.load(name)
    except OSError as error:
        raise RuntimeError(f"The weights of {name} cannot be read: {error}.") from error
    return Subject(model, layer_shapes(model))


def layer_shapes(model: models.LoadedModel) -> dict[str, tuple[int, ...]]:
    """`Subject.layers` of a network, found by running it once on a grey picture.

    Its modules are hooked while it runs: call this before the network is shared.
    """
    names = {module: name for name, module in model.network.named_modules() if name}
    finished: list[tuple[str, Any]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        finished.append((names[module], output))

    hooks = [module.register_forward_hook(record) for module in names]
    try:
        with torch.no_grad():
            model.network(model.preprocess(Image.new("RGB", (64, 64), "grey")))
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(name for name, _ in finished)
    tensors = {name: output for name, output in finished if calls[name] == 1 and isinstance(output, torch.Tensor)}
    return {name: tuple(output.shape[1:]) for name, output in tensors.items() if 2 <= output.ndim <= 4}
