"""Activation maximisation: which image does a unit answer most, in a generator's codes or in pixels?"""

from .ascent import Result
from .code_space import CodeSpaceAM
from .pixels import PixelAM
from .priors import PRIORS, Prior

__all__ = ["PRIORS", "CodeSpaceAM", "PixelAM", "Prior", "Result"]
