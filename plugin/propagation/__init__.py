"""A network under backward rules: the function mode, and its knowledge of operations and modules."""

from .activation import Activation
from .backward import backward
from .convolution import ConvolutionLayer
from .mode import Propagation
from .pooling import MaxPooling
from .visibility import check_all_handled, check_all_ruled, check_current, check_visible, unruled

__all__ = [
    "Activation",
    "ConvolutionLayer",
    "MaxPooling",
    "Propagation",
    "backward",
    "check_all_handled",
    "check_all_ruled",
    "check_current",
    "check_visible",
    "unruled",
]
