"""Networks to explain: All-CNN-C and its max-pooling twin, torchvision's, and the user's own."""

from .loading import LoadedModel, Preprocessing, WeightsUnavailable, load, names
from .networks import AllCNNC, ModelC
from .samples import sample_images

__all__ = [
    "AllCNNC",
    "LoadedModel",
    "ModelC",
    "Preprocessing",
    "WeightsUnavailable",
    "load",
    "names",
    "sample_images",
]
