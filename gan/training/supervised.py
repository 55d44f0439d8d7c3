"""Training of the classifiers in `gan.classifiers`."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from plugin.devices import choose_device
from plugin.files import require_writable
from plugin.models.checkpoints import save_checkpoint
from plugin.statistics import accuracy

from ..classifiers import CLASSIFIERS, Classifier
from ..data import ImageSet
from ..seeds import random_generator, seeded
from .precision import mixed_precision


def jitter(images: Tensor, random: torch.Generator, mirror: bool = False) -> Tensor:
    """Rotate by up to 12 degrees, scale and shift by up to 10 %, each image by itself; outside is 0.

    Args:
        images: `(N, C, H, W)`.
        random: decides the transformations.
        mirror: mirror half of the images first.
    """
    if mirror:
        images = torch.where(torch.rand(len(images), 1, 1, 1, generator=random) < 0.5, images.flip(3), images)
    angle, scale, right, down = (torch.rand(4, len(images), generator=random) * 2 - 1) * torch.tensor(
        [math.radians(12), 0.1, 0.2, 0.2]  # shifts in half sides
    ).view(4, 1)
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    matrices = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(matrices, list(images.shape), False), align_corners=False)


def train_classifier(
    path: str | Path,
    train: ImageSet,
    test: ImageSet,
    kind: str = "classifier",
    epochs: int = 8,
    seed: int = 0,
    device: str | torch.device | None = None,
    mirror: bool = False,
) -> dict[str, Any]:
    """Train a classifier and store it.

    Args:
        path: the `.safetensors` file to write.
        train: labelled images to learn from.
        test: labelled images to measure on.
        kind: "classifier", "judge" or "residual-judge", a key of `CLASSIFIERS`.
        epochs: passes over `train`, each image jittered anew.
        seed: decides the first weights, the order and the jitter.
        device: where to compute; default CUDA, else MPS, else the processor.
        mirror: also show images mirrored; right for photographs, wrong for digits.

    Returns:
        The stored metadata; `accuracy` is that of the float16 weights as stored.

    Raises:
        ValueError: the images have no labels, the two splits differ in shape or classes, or a number is out of range.
        FloatingPointError: the training diverged; nothing is written.
        OSError: the file cannot be written.

    >>> from tempfile import mkdtemp
    >>> import torch
    >>> from gan import load_classifier, train_classifier
    >>> from gan.data import ImageSet
    >>> images, labels = torch.randint(256, (64, 1, 28, 28), dtype=torch.uint8), torch.randint(2, (64,))
    >>> pictures = ImageSet("noise", images, labels, ("left", "right"))  # yours: gan.data.read
    >>> path = f"{mkdtemp()}/classifier.safetensors"
    >>> metadata = train_classifier(path, pictures, pictures, epochs=1)
    >>> load_classifier(path).classes
    ('left', 'right')
    """
    if train.labels is None or test.labels is None:
        raise ValueError(f"{train.name} has no classes to learn: put the pictures in one folder per class")
    if (train.classes, train.image_shape) != (test.classes, test.image_shape):
        raise ValueError(
            f"the images to learn are {train.image_shape} of {len(train.classes)} classes, those to measure on "
            f"{test.image_shape} of {len(test.classes)}: give two splits of the same data"
        )
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: at least one is needed")
    if kind not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {kind!r}: choose one of {', '.join(CLASSIFIERS)}")
    require_writable(path)
    place = choose_device(device)
    with seeded(seed, place):  # dropout draws from the global generators
        classifier = _fitted(path, train, kind, epochs, seed, place, mirror)
    metadata: dict[str, Any] = {
        "architecture": kind,
        "image_shape": train.image_shape,
        "classes": train.classes,
        "data": train.name,
        "seed": seed,
        "epochs": epochs,
        "mirror": mirror,
        "torch": torch.__version__,
    }
    state = {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in classifier.state_dict().items()
    }
    classifier.load_state_dict(state)
    batches = zip(test.values().split(1000), test.labels.split(1000), strict=True)
    metadata["accuracy"] = accuracy(classifier, ((images.to(place), labels.to(place)) for images, labels in batches))
    save_checkpoint(path, classifier, metadata)
    return metadata


def _fitted(
    path: str | Path, train: ImageSet, kind: str, epochs: int, seed: int, place: torch.device, mirror: bool
) -> Classifier:
    assert train.labels is not None
    classifier = CLASSIFIERS[kind](train.image_shape, train.classes).to(place).to(memory_format=torch.channels_last)
    random = random_generator(seed)
    steps = epochs * math.ceil(len(train) / 128)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2, fused=place.type != "mps")
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        classifier.train()
        batches = torch.randperm(len(train), generator=random).split(128)
        for batch in (bar := tqdm(batches, desc=f"{kind}, epoch {epoch + 1}/{epochs}", unit="batch", mininterval=2)):
            images = jitter(train.images[batch].float() / 255, random, mirror)
            images = images.contiguous(memory_format=torch.channels_last)
            with mixed_precision(device=place):
                logits = classifier(images.to(place))
            loss = F.cross_entropy(logits.float(), train.labels[batch].to(place))
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch + 1}: {path} is left as it was")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return classifier
