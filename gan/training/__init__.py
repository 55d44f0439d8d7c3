"""Training of GANs and of the classifiers they are judged by."""

from .adversarial import Trainer, train
from .recipes import RECIPES, Recipe
from .supervised import train_classifier

__all__ = ["RECIPES", "Recipe", "Trainer", "train", "train_classifier"]
