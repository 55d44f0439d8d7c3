"""One way to a network that is ready to be explained: bundled, torchvision's, or the user's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .checkpoints import load_weights, read_metadata
from .data import MEAN, STD
from .networks import NETWORKS

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


class WeightsUnavailable(RuntimeError):
    """Weights are neither on this machine nor can they be downloaded now."""


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `resize` pixels, central square of `crop` pixels, then (x - mean) / std per channel in [0, 1].

    With one mean and one deviation the input is the grey values.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Image.Resampling = Image.Resampling.BILINEAR

    def visible(self, image: Image.Image) -> Image.Image:
        """The pixels the network sees: an RGB image of `crop` x `crop` pixels."""
        rgb = image.convert("RGB")
        scale = self.resize / min(rgb.size)
        width, height = (max(self.crop, round(side * scale)) for side in rgb.size)
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        resized = rgb.resize((width, height), self.interpolation)
        return resized.crop((left, top, left + self.crop, top + self.crop))

    def __call__(self, image: Image.Image) -> Tensor:
        """The normalised input `(1, C, crop, crop)`, float32; C is 1 or 3, as there are means."""
        return self.normalised(torch.from_numpy(self.pixels(image)).unsqueeze(0))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """What the network sees before it is normalised: uint8 `(crop, crop, C)`."""
        seen = self.visible(image).convert("L" if len(self.mean) == 1 else "RGB")
        return np.array(seen).reshape(self.crop, self.crop, -1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The inputs `(N, C, H, W)`, float32, for what `pixels` returns, stacked: uint8 `(N, H, W, C)`."""
        from torchvision.transforms.functional import normalize

        values = pixels.permute(0, 3, 1, 2).contiguous().float().div(255)
        return normalize(values, list(self.mean), list(self.std))

    @property
    def input_range(self) -> tuple[float, float]:
        """The smallest and the largest value that an input can hold, rounded outwards to three decimals."""
        pairs = list(zip(self.mean, self.std, strict=True))
        low = min((0 - mean) / std for mean, std in pairs)
        high = max((1 - mean) / std for mean, std in pairs)
        # The margin is for a network that computes in float32, where 2.64 is a little more than 2.64.
        return math.floor(low * 1000 - 0.01) / 1000, math.ceil(high * 1000 + 0.01) / 1000


CIFAR10_PREPROCESSING = Preprocessing(32, 32, MEAN, STD)
IMAGENET_PREPROCESSING = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode with what is needed to feed it and to read its answer.

    Attributes:
        name: how `load` was asked for it.
        network: logits `(N, classes)` of normalised images `(N, 3, H, W)`.
        preprocessing: from a picture to the input.
        classes: the name of each output.
        metadata: what is known of the weights (data, seed, epochs, accuracy ...); empty if nothing is.
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def preprocess(self, image: Image.Image) -> Tensor:
        """The input `(1, 3, H, W)` for a picture of any size and mode."""
        return self.preprocessing(image)

    def visible(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the network sees, at the network's resolution."""
        return self.preprocessing.visible(image)


def names() -> tuple[str, ...]:
    """The networks that ship with the package."""
    return tuple(NETWORKS)


def load(
    model: str | nn.Module,
    weights: str | None = "DEFAULT",
    checkpoint: str | Path | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> LoadedModel:
    """Load a network for attribution.

    Args:
        model: a bundled name (`names()`), the name of a torchvision classification model, or a module of your own,
            which is put in eval mode.
        weights: torchvision weights; downloaded unless cached. None leaves a torchvision model at its random start.
        checkpoint: weights to load instead, a safetensors file or a `torch.save` of tensors. It is never executed.
        classes: names of the outputs, where they are not known.
        preprocessing: how pictures become inputs; default CIFAR-10's for bundled, ImageNet's for other networks.

    Raises:
        ValueError: unknown name, not a classification model, or a checkpoint that does not fit.
        WeightsUnavailable: torchvision's weights are not cached and there is no network.
    """
    if isinstance(model, nn.Module):
        found = LoadedModel(type(model).__name__, model, preprocessing or IMAGENET_PREPROCESSING, tuple(classes or ()))
    elif model in NETWORKS:
        found = _bundled(model, read_weights=checkpoint is None)
    else:
        found = _from_torchvision(model, weights if checkpoint is None else None)
    if checkpoint is not None:
        _load_state(found.network, Path(checkpoint))
    found.network.eval()
    return LoadedModel(
        found.name,
        found.network,
        preprocessing or found.preprocessing,
        tuple(classes or found.classes),
        found.metadata if checkpoint is None else {"checkpoint": str(checkpoint)},
    )


def _bundled(name: str, read_weights: bool) -> LoadedModel:
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    metadata = read_metadata(path)
    network = NETWORKS[name](classes=len(metadata["classes"])).requires_grad_(False)
    if read_weights:
        network.load_state_dict(load_weights(path))
    return LoadedModel(name, network, CIFAR10_PREPROCESSING, tuple(metadata["classes"]), metadata)


def _from_torchvision(name: str, weights: str | None) -> LoadedModel:
    from torchvision import models
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    try:
        choices = models.get_model_weights(name)
    except ValueError as error:
        known = ", ".join(names())
        raise ValueError(f"unknown network {name!r}: give one of {known}, or a torchvision model's name") from error
    try:
        chosen = choices[weights] if weights is not None else None
    except KeyError as error:
        available = ", ".join(choices.__members__)
        raise ValueError(f"{name} has no weights {weights!r}: choose among {available}") from error
    described = chosen or choices["DEFAULT"]
    transform = described.transforms()
    if not isinstance(transform, ImageClassification):
        raise ValueError(f"{name} is not an image classification network")
    try:
        network = models.get_model(name, weights=chosen)
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsUnavailable(
            f"the weights of {name} are not in {folder} and cannot be downloaded ({error}): "
            "connect once, or pass checkpoint= with a file of yours"
        ) from error
    bicubic = transform.interpolation == InterpolationMode.BICUBIC
    steps = Preprocessing(
        transform.resize_size[0],
        transform.crop_size[0],
        tuple(transform.mean),
        tuple(transform.std),
        Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR,
    )
    metadata = {"weights": str(chosen)} if chosen else {}
    return LoadedModel(name, network.requires_grad_(False), steps, tuple(described.meta["categories"]), metadata)


def _load_state(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        shown = reason if len(reason) < 200 else reason[:200] + " ..."
        raise ValueError(f"{path.name} does not fit {type(network).__name__}: {shown}") from error
