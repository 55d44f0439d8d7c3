"""From pixels to everything that a store holds of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ..attr import LRPTranspose
from ..attr.methods import METHODS
from ..models import LoadedModel, load
from ..rules.presets import epsilon_gamma_box

# What has a part in the numbers.
_PACKAGES = ("captum-simplicity", "captum", "torch", "torchvision", "pillow")


def load_model(model: str | nn.Module | LoadedModel, checkpoint: str | Path | None = None) -> LoadedModel:
    """A network by name or as it is.

    Args:
        model: a name that `plugin.models.load` knows; `package.module:factory`, a function without arguments that
            returns a module or a `LoadedModel`; or one of these two.
        checkpoint: weights to load instead of its own.

    Raises:
        ValueError: there is no such network or factory, or the checkpoint does not fit.
    """
    name = ""
    if isinstance(model, str) and ":" in model:
        name, model = model, _call_factory(model)
    if not isinstance(model, LoadedModel):
        model = load(model, checkpoint=checkpoint)
    elif checkpoint is not None:
        loaded = load(model.network, checkpoint=checkpoint)
        model = replace(model, network=loaded.network, metadata=loaded.metadata)
    return replace(model, name=name or model.name)


def _call_factory(specification: str) -> nn.Module | LoadedModel:
    module, _, name = specification.partition(":")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no {specification}: {error}") from error
    made = factory()
    if not isinstance(made, nn.Module | LoadedModel):
        raise ValueError(
            f"{specification} returned a {type(made).__name__}: it must return an nn.Module or LoadedModel"
        )
    return made


def weights_sha256(network: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a network's state dict: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Explainer:
    """Computes the rows of a store.

    Attributes:
        settings: JSON values that decide every number.
        row_shapes: shapes of a row of `maps` and of `logits`.
    """

    def __init__(
        self, model: LoadedModel, method: str, target: str | int, layer: str | None, dtype: str, device: str
    ) -> None:
        """
        Args:
            model: the network, which is moved to the device.
            method: a key of `METHODS`.
            target: "predicted", "label", or the number of an output.
            layer: for methods that look at a layer, its name.
            dtype: of the maps, "float32" or "float16".
            device: where to compute.

        Raises:
            ValueError: an argument is none of these, or the method has no answer for this network.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose among {', '.join(METHODS)}")
        if not isinstance(target, int) and target not in ("predicted", "label"):
            raise ValueError(f"unknown target {target!r}: choose 'predicted', 'label' or the number of an output")
        if dtype not in ("float32", "float16"):
            raise ValueError(f"unknown dtype {dtype!r}: choose 'float32' or 'float16'")
        self.model, self.method, self.target, self.layer, self.dtype = model, METHODS[method], target, layer, dtype
        if self.method.needs_layer == (layer is None):
            needs = "needs a layer: name one of the last convolutions" if layer is None else "takes no layer"
            raise ValueError(f"{method} {needs}")
        self.device = torch.device(device)
        model.network.to(self.device)
        self._attribution = self._construct()
        self.settings: dict[str, Any] = {
            "model": model.name,
            "weights_sha256": weights_sha256(model.network),
            "method": method,
            "layer": layer or "",
            "target": target,
            "dtype": dtype,
            "preprocessing": asdict(model.preprocessing) | {"interpolation": model.preprocessing.interpolation.name},
            "versions": {package: version(package) for package in _PACKAGES},
        }
        self._probe(method)

    def _construct(self) -> Any:
        arguments: dict[str, Any] = dict(self.method.construct)
        if self.method.preset == epsilon_gamma_box.__name__:
            arguments["rules"] = epsilon_gamma_box(*self.model.preprocessing.input_range)
        elif self.method.preset:
            arguments["rules"] = self.method.preset
        layer = [] if self.layer is None else [self.model.network.get_submodule(self.layer)]
        return self.method.attribution_class(neuron=False)(self.model.network, *layer, **arguments)

    def _probe(self, method: str) -> None:
        """One grey picture shows whether the method has an answer, before anything is written."""
        grey = self.model.preprocessing.pixels(Image.new("RGB", (64, 64), "grey"))
        try:
            if isinstance(self._attribution, LRPTranspose):  # names all that has no rule, not only the first
                pixels = torch.from_numpy(grey[np.newaxis]).to(self.device)
                self._attribution.check(self.model.preprocessing.normalised(pixels)).require()
            rows = self(grey[np.newaxis], [0])
        except Exception as error:  # any network may fail in a way of its own
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise ValueError(f"{method} has no answer for {self.model.name}: {reason}") from error
        self.row_shapes = {name: rows[name].shape[1:] for name in ("maps", "logits")}

    def __call__(self, pixels: NDArray[np.uint8], labels: Sequence[int] | None) -> dict[str, NDArray[Any]]:
        """Explain pictures.

        Args:
            pixels: what the network sees of them, `(n, H, W, C)`.
            labels: the class of each, for the target "label".

        Returns:
            Arrays with n rows, by the names of `plugin.datasets.store.COLUMNS` without "finished". A map that is not
            finite is NaN throughout, and has an error.
        """
        inputs = self.model.preprocessing.normalised(torch.from_numpy(pixels).to(self.device))
        with torch.no_grad():
            logits = self.model.network(inputs)
        if logits.ndim != 2:
            raise ValueError(f"its output has the shape {tuple(logits.shape)}, and must have (N, classes)")
        predicted = logits.argmax(1)
        if isinstance(self.target, int):
            target = torch.full_like(predicted, self.target)
        else:
            target = predicted if self.target == "predicted" else torch.tensor(labels, device=self.device)
        # Captum warns of inputs without this mark.
        maps = self._attribution.attribute(inputs.requires_grad_(), target=target, **self.method.call)
        maps = maps.to(getattr(torch, self.dtype))
        finite = maps.flatten(1).isfinite().all(1)
        maps[~finite] = torch.nan
        columns = {
            "maps": maps,
            "logits": logits.float(),
            "target": target,
            "predicted": predicted,
            "probability": logits.float().softmax(1).gather(1, target.unsqueeze(1)).squeeze(1),
        }
        error = np.where(finite.cpu().numpy(), "", f"The map holds values that {self.dtype} cannot.")
        return {name: column.cpu().numpy() for name, column in columns.items()} | {"error": error}
