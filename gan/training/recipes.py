"""Settings of a GAN's training, and the recipes of the shipped GANs."""

import math
from dataclasses import dataclass, field
from typing import Any

from ..networks import NETWORKS

PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class Recipe:
    """Every setting that decides the result, besides the images.

    Attributes:
        architecture: "mlp" or "dcgan".
        arguments: of the network's class, except `image_shape` (`code_size`, `hidden`, `width`).
        steps: updates of each network.
        batch_size: images per update.
        seed: decides first weights, codes and the choice of images.
        learning_rate: of Adam (0.5, 0.99) for both networks.
        penalty: weight of R1, for images in [0, 1].
        penalty_every: steps between two evaluations of R1.
        average_decay: of the moving average, per step.
        precision: "bfloat16" (by autocast, on devices that compute with it) or "float32".
        conditional: tell both networks the classes of the images.
        mirror: show half of the real images mirrored; right for photographs, wrong for digits.

    Raises:
        ValueError: a number is out of range, or there is no such network or precision.

    >>> from gan import Recipe
    >>> recipe = Recipe("mlp", {"code_size": 16}, steps=1000, seed=1)
    >>> recipe.rate(0), recipe.rate(1000)
    (0.0005, 0.0)
    """

    architecture: str = "dcgan"
    arguments: dict[str, Any] = field(default_factory=dict)
    steps: int = 4000
    batch_size: int = 128
    seed: int = 0
    learning_rate: float = 5e-4
    penalty: float = 0.5
    penalty_every: int = 16
    average_decay: float = 0.998
    precision: str = "bfloat16"
    conditional: bool = False
    mirror: bool = False

    def __post_init__(self) -> None:
        for name, found, names in (
            ("architecture", self.architecture, tuple(NETWORKS)),
            ("precision", self.precision, PRECISIONS),
        ):
            if found not in names:
                raise ValueError(f"{name}={found!r}: choose one of {', '.join(names)}")
        # Batch norm needs two images to estimate a variance.
        for name, least in (("steps", 1), ("batch_size", 2), ("penalty_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}: give a finite number above 0")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty={self.penalty}: give a finite number, 0 for none")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay={self.average_decay}: give a number from 0 on and below 1")

    def rate(self, step: int) -> float:
        """The learning rate: constant for half of the steps, then down to 0 along a cosine.

        Args:
            step: the number of the step, from 0.
        """
        late = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * (1 + math.cos(math.pi * late)) / 2


# Keys are networks, or networks and data with a recipe of their own.
RECIPES = {
    "mlp": Recipe("mlp", steps=36000, penalty=0.5, precision="float32"),
    "dcgan": Recipe("dcgan", {"branches": 32}, steps=12000, batch_size=64, penalty=0.2),
    "dcgan-cifar10": Recipe(
        "dcgan",
        {"code_size": 128, "width": 96, "detail": 48},
        steps=7000,
        batch_size=64,
        penalty=0.05,
        average_decay=0.999,
        conditional=True,
        mirror=True,
    ),
}


def recipe_for(network: str, data: str) -> Recipe:
    """The recipe of a network, "mlp" or "dcgan", for data of this name."""
    return RECIPES.get(f"{network}-{data}", RECIPES[network])
