"""Networks of the library timm, where that is installed, for weights from a file. Nothing is downloaded."""

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

from PIL import Image
from torch import nn

from ..extras import require
from .preprocessing import IMAGENET_PREPROCESSING, Preprocessing

# Before the names of timm's networks, as on the Hugging Face Hub: `timm/resnet18`, or `timm/resnet18.a1_in1k`.
PREFIX = "timm/"
_IMAGENET = 1000


@cache
def timm_names() -> tuple[str, ...]:
    """The architectures; none where timm is not installed."""
    if find_spec("timm") is None:
        return ()
    return tuple(f"{PREFIX}{name}" for name in _timm(PREFIX).list_models())


def build(name: str, **options: Any) -> nn.Module:
    """A network of timm's at its random start; `num_classes` among the options is the number of its classes.

    Raises:
        MissingExtraError: timm is not installed.
        ValueError: unknown name.
    """
    _configuration(name)
    network: nn.Module = _timm(name).create_model(name.removeprefix(PREFIX), pretrained=False, **options)
    return network


def described(name: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """The preprocessing and the names of the classes in the training whose tag ends the name; errors as for `build`."""
    found = _configuration(name)
    if found is None:
        return IMAGENET_PREPROCESSING, ()
    side = found.input_size[-1]
    preprocessing = Preprocessing(
        math.floor(side / (found.crop_pct or 1)), side, tuple(found.mean), tuple(found.std),
        Image.Resampling.BICUBIC if found.interpolation == "bicubic" else Image.Resampling.BILINEAR,
    )  # fmt: skip
    return preprocessing, _imagenet_classes() if found.num_classes == _IMAGENET else ()


def _configuration(name: str) -> Any:
    """timm's configuration of a training of the network; None if it has none."""
    library, known = _timm(name), name.removeprefix(PREFIX)
    if not library.is_model(known):
        raise ValueError(f"unknown network {name!r}: timm.list_models() has the names")
    return library.models.get_pretrained_cfg(known)


def _timm(name: str) -> Any:
    return require("timm", extra="zoo", purpose=f"the network {name}")


def _imagenet_classes() -> tuple[str, ...]:
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
