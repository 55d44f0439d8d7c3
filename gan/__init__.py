"""Small GANs, and activation maximisation in their code space."""

from . import _neighbour  # noqa: F401 - comes first: everything below imports `plugin`
from .judging import scorecard
from .loading import LoadedGAN, load, load_classifier
from .maximising import CodeSpaceAM, ImageSpaceAM, LatentGenerator, PixelAM, Result
from .networks import DCGAN, MLPGAN, branch_of
from .training import RECIPES, Recipe, train, train_classifier

__all__ = [
    "DCGAN",
    "MLPGAN",
    "RECIPES",
    "CodeSpaceAM",
    "ImageSpaceAM",
    "LatentGenerator",
    "LoadedGAN",
    "PixelAM",
    "Recipe",
    "Result",
    "branch_of",
    "load",
    "load_classifier",
    "scorecard",
    "train",
    "train_classifier",
]
