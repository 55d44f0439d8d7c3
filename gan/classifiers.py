"""Classifiers to maximise and to judge with, for images in [0, 1].

`ConvolutionalClassifier` is the network whose units are maximised. `StridedClassifier` is another architecture (no
pooling, batch norm, ELU, average over positions): a judge that took no part. `ResidualClassifier` is a judge of natural
images, which need a deeper network than digits.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .data import ImageSet


class Classifier(nn.Module):
    """Logits of images `(N, C, H, W)` in [0, 1].

    Attributes:
        classes: the name of each output.
        image_shape: (C, H, W) of the images that it was made for; None if unknown.
        accuracy: share of test images classified right, in [0, 1]; NaN if unknown.
    """

    image_shape: tuple[int, int, int] | None = None

    def __init__(self, body: nn.Sequential, feature_count: int, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.feature_count, self.classes, self.accuracy = body, feature_count, classes, math.nan
        self.head = nn.Linear(feature_count, len(classes))

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer `(N, feature_count)`."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class ConvolutionalClassifier(Classifier):
    """Three convolutions with ReLU, two of them followed by max pooling, and a hidden layer of 128 units."""

    def __init__(self, image_shape: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        channels, height, width = image_shape
        body = nn.Sequential()
        for index, (inputs, outputs, size) in enumerate(((channels, 16, 5), (16, 32, 3), (32, 64, 3)), start=1):
            body.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, size, padding=size // 2))
            body.add_module(f"relu{index}", nn.ReLU())
            if index < 3:
                body.add_module(f"pool{index}", nn.MaxPool2d(2))
        body.add_module("flatten", nn.Flatten())
        body.add_module("dropout", nn.Dropout(0.3))
        body.add_module("hidden", nn.Linear(64 * (height // 4) * (width // 4), 128))
        body.add_module("relu4", nn.ReLU())
        super().__init__(body, 128, classes)
        self.image_shape = image_shape


class StridedClassifier(Classifier):
    """Five strided or plain convolutions with batch norm and ELU, averaged over positions: 96 features."""

    def __init__(self, image_shape: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        body = nn.Sequential()
        sizes = ((image_shape[0], 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1))
        for index, (inputs, outputs, stride) in enumerate(sizes, start=1):
            body.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
            body.add_module(f"norm{index}", nn.BatchNorm2d(outputs))
            body.add_module(f"elu{index}", nn.ELU())
        body.add_module("average", nn.AdaptiveAvgPool2d(1))
        body.add_module("flatten", nn.Flatten())
        super().__init__(body, 96, classes)
        self.image_shape = image_shape


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, batch norm and ReLU before each (He et al. 2016, identity mappings)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        active = self.norm1(images).relu()
        residual: Tensor = self.conv2(self.norm2(self.conv1(active)).relu())
        beside: Tensor = self.shortcut(active if isinstance(self.shortcut, nn.Conv2d) else images)
        return residual + beside


class ResidualClassifier(Classifier):
    """A residual network of eleven 3 x 3 convolutions, averaged over positions: 128 features."""

    def __init__(self, image_shape: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        body = nn.Sequential(nn.Conv2d(image_shape[0], 32, 3, 1, 1, bias=False))
        inputs = 32
        for outputs, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
            body.append(ResidualBlock(inputs, outputs, stride))
            inputs = outputs
        body.extend([nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        super().__init__(body, inputs, classes)
        self.image_shape = image_shape


def check_fit(classifier: Classifier, data: "ImageSet") -> None:
    """Check before hours of training that the classifier can score images of the data.

    Raises:
        ValueError: the classifier does not take the data's images, or knows other classes.
    """
    expected = classifier.image_shape or data.image_shape
    if tuple(expected) != data.image_shape:
        raise ValueError(
            f"the classifier does not take images {data.image_shape}, but {tuple(expected)}: give one that was trained "
            f"on {data.name}"
        )
    if data.labels is not None and tuple(classifier.classes) != tuple(data.classes):
        raise ValueError(
            f"the classifier knows the classes {_some(classifier.classes)}, {data.name} has {_some(data.classes)}: "
            "give one that was trained on these data"
        )
    try:
        with torch.inference_mode():
            classifier(data.images[:1].to(next(classifier.parameters()).device).float() / 255)
    except RuntimeError as error:
        raise ValueError(f"the classifier does not take images {data.image_shape}: {error}") from error


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (f" ... ({len(classes)})" if len(classes) > 3 else "")


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "classifier": ConvolutionalClassifier,
    "judge": StridedClassifier,
    "residual-judge": ResidualClassifier,
}
