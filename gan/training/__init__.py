"""Training of GANs and of the classifiers they are judged by."""

from .adversarial import RECIPES, Recipe, Trainer, train
from .supervised import train_classifier

__all__ = ["RECIPES", "Recipe", "Trainer", "train", "train_classifier"]
