"""Preprocessing: from pictures to the inputs of a network."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .data import MEAN, STD


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `resize` pixels, central square of `crop` pixels, then (x - mean) / std per channel in [0, 1].

    Lengths and places are rounded as torchvision's `Resize` and `CenterCrop` do, with which networks are evaluated.

    Attributes:
        resize: length of the shorter side in pixels after scaling.
        crop: side of the central square in pixels.
        mean: per channel, of values in [0, 1]. With one mean and one deviation the input is the grey values.
        std: per channel.
        interpolation: how pictures are scaled.

    >>> from plugin import models
    >>> steps = models.Preprocessing(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> photograph = models.sample_images()["cat"]
    >>> steps(photograph).shape, steps.visible(photograph).size, steps.input_range
    (torch.Size([1, 3, 32, 32]), (32, 32), (-2.001, 2.001))
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Image.Resampling = Image.Resampling.BILINEAR

    def visible(self, image: Image.Image) -> Image.Image:
        """The pixels the network sees: an RGB image of `crop` x `crop` pixels, grey where the network sees grey values.

        Args:
            image: a picture of any size and mode.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        shorter = min(rgb.size)
        width, height = (max(self.crop, self.resize * side // shorter) for side in rgb.size)
        left, top = (round((side - self.crop) / 2) for side in (width, height))
        resized = rgb.resize((width, height), self.interpolation)
        seen = resized.crop((left, top, left + self.crop, top + self.crop))
        return seen.convert("L").convert("RGB") if len(self.mean) == 1 else seen

    def __call__(self, image: Image.Image) -> Tensor:
        """The normalised input `(1, C, crop, crop)`, float32; C is the number of means, 1 or 3."""
        return self.normalised(torch.from_numpy(self.pixels(image)).unsqueeze(0))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The network's view before normalisation: uint8 `(crop, crop, C)`.

        Args:
            image: a picture of any size and mode.
        """
        seen = self.visible(image).convert("L" if len(self.mean) == 1 else "RGB")
        return np.array(seen).reshape(self.crop, self.crop, -1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The inputs `(N, C, H, W)`, float32.

        Args:
            pixels: stacked results of the method `pixels`, uint8 `(N, H, W, C)`.
        """
        from torchvision.transforms.functional import normalize

        values = pixels.permute(0, 3, 1, 2).contiguous().float().div(255)
        result: Tensor = normalize(values, list(self.mean), list(self.std))
        return result

    @property
    def input_range(self) -> tuple[float, float]:
        """The smallest and the largest value that an input can hold, rounded outwards to three decimals."""
        pairs = list(zip(self.mean, self.std, strict=True))
        low = min((0 - mean) / std for mean, std in pairs)
        high = max((1 - mean) / std for mean, std in pairs)
        # The margin allows for float32, in which 2.64 is slightly larger than 2.64.
        return math.floor(low * 1000 - 0.01) / 1000, math.ceil(high * 1000 + 0.01) / 1000


CIFAR10_PREPROCESSING = Preprocessing(32, 32, MEAN, STD)
IMAGENET_PREPROCESSING = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
