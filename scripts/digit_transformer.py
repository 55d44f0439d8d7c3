"""A small vision transformer for MNIST, on which the presets for attention are measured.

It is torchvision's `VisionTransformer` with two layers of 64 features and patches of 7 x 7 pixels. Its training takes
less than a minute on one core. `python scripts/digit_transformer.py` trains it and prints its accuracy; MNIST is read
from the folder `REAL_DATA`.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import gan.data
from plugin import models

NAME = "digit-transformer"
PREPROCESSING = models.Preprocessing(resize=28, crop=28, mean=(0.1307,), std=(0.3081,))
BATCH, RATE = 128, 2e-3


def digits(train: bool, normalised: bool = True) -> tuple[Tensor, Tensor]:
    """MNIST's images `(N, 1, 28, 28)`, normalised or in [0, 1], and their labels `(N,)`."""
    found = gan.data.read("mnist", train, os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data"))
    assert found.labels is not None
    images = PREPROCESSING.normalised(found.images.permute(0, 2, 3, 1)) if normalised else found.values()
    return images, found.labels


def untrained(seed: int) -> nn.Module:
    """The network at the start of its training."""
    torch.manual_seed(seed)
    network = VisionTransformer(28, patch_size=7, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
    network.conv_proj = nn.Conv2d(1, 64, 7, stride=7)  # digits have one channel
    return network


def trained(seed: int = 0) -> models.LoadedModel:
    """The network after one epoch, with its accuracy on the 10,000 test images."""
    images, labels = digits(train=True)
    network = untrained(seed)
    batches = torch.randperm(len(images)).split(BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=len(batches))
    for batch in batches:
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    images, labels = digits(train=False)
    right = torch.cat([network(some).argmax(1) for some in images.split(1000)]) == labels
    metadata = {"accuracy": float(right.float().mean())}
    return models.LoadedModel(NAME, network, PREPROCESSING, gan.data.DIGITS, metadata)


if __name__ == "__main__":
    print(f"{trained().metadata['accuracy']:.2%} of the test images are right")
