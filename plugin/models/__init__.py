"""Networks to explain: All-CNN-C and its max-pooling twin, torchvision's, and the user's own."""

from .all_cnn import AllCNNC, ModelC
from .class_name_files import class_names
from .loading import LoadedModel, OtherArchitecture, WeightsUnavailable, load, preprocessing_of
from .networks import known_names, names
from .preprocessing import Preprocessing
from .samples import sample_images
from .tensor_files import UnreadableCheckpoint

__all__ = [
    "AllCNNC",
    "LoadedModel",
    "ModelC",
    "OtherArchitecture",
    "Preprocessing",
    "UnreadableCheckpoint",
    "WeightsUnavailable",
    "class_names",
    "known_names",
    "load",
    "names",
    "preprocessing_of",
    "sample_images",
]
