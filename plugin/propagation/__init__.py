"""A network under backward rules: the function mode, and its knowledge of operations and modules."""

from .activation import Activation
from .backward import backward
from .convolution import ConvolutionLayer
from .mode import Propagation
from .pooling import MaxPooling
from .visibility import check_visible

__all__ = [
    "Activation",
    "ConvolutionLayer",
    "MaxPooling",
    "Propagation",
    "backward",
    "check_visible",
]
