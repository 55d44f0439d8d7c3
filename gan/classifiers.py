"""Classifiers to maximise and to judge with, for images in [0, 1].

`ConvolutionalClassifier` is the network whose units are maximised. `StridedClassifier` is another architecture (no
pooling, batch norm, ELU, average over positions): a judge that took no part.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from plugin.models.checkpoints import load_weights, save_checkpoint

from .data import ImageSet
from .precision import mixed_precision


class Classifier(nn.Module):
    """Logits of images `(N, C, H, W)` in [0, 1].

    Attributes:
        classes: the name of each output.
        accuracy: share of test images classified right, in [0, 1]; nan if not known.
    """

    def __init__(self, body: nn.Sequential, feature_count: int, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.feature_count, self.classes, self.accuracy = body, feature_count, classes, math.nan
        self.head = nn.Linear(feature_count, len(classes))

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer `(N, feature_count)`."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


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


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "classifier": ConvolutionalClassifier,
    "judge": StridedClassifier,
}


def jitter(images: Tensor, random: torch.Generator) -> Tensor:
    """Rotate by up to 12 degrees, scale and shift by up to 10 %, each image by itself; outside is 0.

    Args:
        images: `(N, C, H, W)`.
        random: decides the transformations.
    """
    angle, scale, right, down = (torch.rand(4, len(images), generator=random) * 2 - 1) * torch.tensor(
        [math.radians(12), 0.1, 0.2, 0.2]  # shifts in half sides
    ).view(4, 1)
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    matrices = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(matrices, list(images.shape), False), align_corners=False)


@torch.inference_mode()
def accuracy(classifier: nn.Module, data: ImageSet, batch_size: int = 1000) -> float:
    """Share of images classified as their labels say, in eval mode, in [0, 1]."""
    assert data.labels is not None
    classifier.eval()
    correct = 0
    for images, labels in zip(data.values().split(batch_size), data.labels.split(batch_size), strict=True):
        correct += int((classifier(images).argmax(1) == labels).sum())
    return correct / len(data)


def train_classifier(
    path: str | Path, train: ImageSet, test: ImageSet, kind: str = "classifier", epochs: int = 8, seed: int = 0
) -> dict[str, Any]:
    """Train a classifier and store it.

    Args:
        path: the `.safetensors` file to write.
        train: labelled images to learn from.
        test: labelled images to measure on.
        kind: "classifier" or "judge", a key of `CLASSIFIERS`.
        epochs: passes over `train`, each image jittered anew.
        seed: decides the first weights, the order and the jitter.

    Returns:
        The stored metadata; `accuracy` is that of the float16 weights as stored.

    Raises:
        ValueError: the images have no labels.
    """
    if train.labels is None or test.labels is None:
        raise ValueError(f"{train.name} has no classes to learn: put the pictures in one folder per class")
    torch.manual_seed(seed)
    classifier = CLASSIFIERS[kind](train.image_shape, train.classes).to(memory_format=torch.channels_last)
    random = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(train) / 128)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        classifier.train()
        batches = torch.randperm(len(train), generator=random).split(128)
        for batch in (bar := tqdm(batches, desc=f"{kind}, epoch {epoch + 1}/{epochs}", unit="batch", mininterval=2)):
            images = jitter(train.images[batch].float() / 255, random).contiguous(memory_format=torch.channels_last)
            with mixed_precision():
                logits = classifier(images)
            loss = F.cross_entropy(logits.float(), train.labels[batch])
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch + 1}: {path} is left as it was")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    metadata: dict[str, Any] = {
        "architecture": kind,
        "image_shape": train.image_shape,
        "classes": train.classes,
        "data": train.name,
        "seed": seed,
        "epochs": epochs,
        "torch": torch.__version__,
    }
    state = {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in classifier.state_dict().items()
    }
    classifier.load_state_dict(state)
    metadata["accuracy"] = accuracy(classifier, test)
    save_checkpoint(path, classifier, metadata)
    return metadata


def restore_classifier(path: str | Path, metadata: dict[str, Any]) -> Classifier:
    """The stored classifier, in eval mode, its parameters frozen."""
    image_shape, classes = tuple(metadata["image_shape"]), tuple(metadata["classes"])
    classifier = CLASSIFIERS[metadata["architecture"]](image_shape, classes)
    classifier.load_state_dict(load_weights(path))
    classifier.accuracy = metadata["accuracy"]
    return classifier.requires_grad_(False).eval()
