"""Small GANs, and activation maximisation in their code space."""

from .classifiers import train_classifier
from .judging import scorecard
from .loading import LoadedGAN, load, load_classifier
from .maximization import CodeSpaceAM
from .networks import DCGAN, MLPGAN
from .pixel import PixelAM
from .training import RECIPES, Recipe, train

__all__ = [
    "DCGAN",
    "MLPGAN",
    "RECIPES",
    "CodeSpaceAM",
    "LoadedGAN",
    "PixelAM",
    "Recipe",
    "load",
    "load_classifier",
    "scorecard",
    "train",
    "train_classifier",
]
