"""The networks known by name: how to build each of them, how to feed it, and the names of its outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .all_cnn import AllCNNC, ClassMapNetwork, ModelC
from .data import CIFAR10_CLASSES
from .preprocessing import CIFAR10_PREPROCESSING, Preprocessing

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class KnownNetwork:
    """A row of `NETWORKS`.

    Attributes:
        build: makes the network with fresh weights; takes `classes` and `dropout` as `AllCNNC` does.
        preprocessing: from a picture to the input.
        classes: the name of each output.
        weights: the checkpoint that ships with the package; None if there is none.
    """

    build: Callable[..., ClassMapNetwork]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    weights: Path | None = None


NETWORKS: dict[str, KnownNetwork] = {
    "all-cnn-c": KnownNetwork(
        AllCNNC, CIFAR10_PREPROCESSING, CIFAR10_CLASSES, WEIGHTS_FOLDER / "all-cnn-c.safetensors"
    ),
    "model-c": KnownNetwork(ModelC, CIFAR10_PREPROCESSING, CIFAR10_CLASSES, WEIGHTS_FOLDER / "model-c.safetensors"),
}


def names() -> tuple[str, ...]:
    """The networks whose weights ship with the package: `load` needs only the name.

    >>> from plugin import models
    >>> models.names()
    ('all-cnn-c', 'model-c')
    """
    return tuple(name for name, known in NETWORKS.items() if known.weights is not None)


def known_names() -> tuple[str, ...]:
    """All networks that `load` knows how to build, those that need a checkpoint included.

    >>> from plugin import models
    >>> set(models.names()) <= set(models.known_names())
    True
    """
    return tuple(NETWORKS)
