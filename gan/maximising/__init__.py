"""Activation maximisation: images that excite a unit most, in a generator's codes, in Fourier space or in pixels."""

from .code_space import CodeSpaceAM
from .image_space import ImageSpaceAM
from .latents import LatentGenerator
from .pixels import PixelAM
from .priors import PRIORS, Prior
from .results import Result

__all__ = ["PRIORS", "CodeSpaceAM", "ImageSpaceAM", "LatentGenerator", "PixelAM", "Prior", "Result"]
