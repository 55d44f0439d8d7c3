"""Quality of a generator: Fréchet distance in a classifier's features, balance of the classes, memorisation.

The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017),

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)),

is shown as a multiple of its value between the training and the test images, which no generator can be asked to beat.
The kernel distance needs no Gaussians: it is the squared maximum mean discrepancy of the kernel (x y / k + 1)^3 for k
features (Binkowski et al. 2018), unbiased, so that it is near 0, on either side, for two samples of one distribution.
"""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from plugin.extras import require
from plugin.seeds import normal, random_generator, seeded

from ..classifiers import Classifier
from ..data import ImageSet
from ..networks import Generator

CONFIDENT = 0.99


@torch.inference_mode()
def sample(generator: Generator, count: int, seed: int = 0, batch_size: int = 1000) -> Tensor:
    """Images `(count, C, H, W)` in [0, 1] of codes z ~ N(0, I), on the CPU, computed on the generator's device."""
    codes = normal(random_generator(seed), count, generator.code_size)
    device = next(generator.parameters(), codes).device
    return torch.cat([generator(part.to(device)).cpu() for part in codes.split(batch_size)])


class _Identity(nn.Module):
    """Passes features through: the metric gets features instead of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def require_torchmetrics() -> Any:
    """The module of torchmetrics that computes the Fréchet distance.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    return require("torchmetrics.image.fid", extra="gan", purpose="the Fréchet distance")


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The distance between Gaussians fitted to features `(N, k)` and `(M, k)`, by torchmetrics, in float64."""
    metric = require_torchmetrics().FrechetInceptionDistance(feature=_Identity(first.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    return float(metric.compute())


def kernel_distance(first: Tensor, second: Tensor, seed: int = 0, subsets: int = 100, subset_size: int = 1000) -> float:
    """The kernel distance of features `(N, k)` and `(M, k)`: the mean over random subsets, by torchmetrics, in float64.

    Args:
        first, second: features.
        seed: of the choice of the subsets.
        subsets: number of subsets.
        subset_size: the number of features in each, at most N and M.
    """
    kid = require("torchmetrics.image.kid", extra="gan", purpose="the kernel distance")
    with warnings.catch_warnings(), seeded(seed):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")  # about its use of memory
        size = min(subset_size, len(first), len(second))
        metric = kid.KernelInceptionDistance(_Identity(first.shape[1]), subsets, size)
        metric.update(first.double(), real=True)
        metric.update(second.double(), real=False)
        return float(metric.compute()[0])


@torch.inference_mode()
def describe(classifier: Classifier, images: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Features `(N, k)` and class probabilities `(N, classes)` of images in [0, 1], on the CPU."""
    device = next(classifier.parameters(), images).device
    features = torch.cat([classifier.features(part.to(device)) for part in images.split(batch_size)])
    return features.cpu(), classifier.head(features).softmax(dim=1).cpu()


def imbalance(probabilities: Tensor) -> float:
    """log(classes) - entropy of the shares of images in each predicted class, in nats: 0 if all are equal."""
    count = probabilities.shape[1]
    shares = probabilities.argmax(dim=1).bincount(minlength=count).double() / len(probabilities)
    return math.log(count) + float(torch.special.xlogy(shares, shares).sum())


def nearest_distances(images: Tensor, references: Tensor, chunk: int = 500) -> Tensor:
    """Euclidean distance in pixels from each image to the nearest reference, `(N,)`."""
    flat = references.flatten(1)
    parts: Iterable[Tensor] = images.flatten(1).split(chunk)
    return torch.cat([torch.cdist(part, flat).amin(dim=1) for part in parts])


def evaluate(
    generator: Generator, train: ImageSet, test: ImageSet, classifier: Classifier | None = None, seed: int = 0
) -> dict[str, float]:
    """The scores stored with a checkpoint.

    Args:
        generator: in eval mode.
        train: the images it was trained on.
        test: images it has not seen.
        classifier: of these images; without one only memorisation is measured.
        seed: of the codes.

    Returns:
        `nearest_train` and `nearest_train_of_test`: mean distance of 1,000 made, or test, images to the nearest
        training image, `closest_train` and `closest_train_of_test` their 1 % quantiles. With a classifier also `fid`
        (as many made images as there are training images, against the test images), `fid_of_train`, `fid_ratio`,
        `kid` and `kid_of_train` (the kernel distance of the same sets), `imbalance` in nats, `confident_share` and
        `confident_share_of_test` (probability of some class >= 0.99).
    """
    made, real = sample(generator, len(train), seed), test.values()
    distances = nearest_distances(made[:1000], train.values())
    reference = nearest_distances(real[:1000], train.values())
    scores = {
        "nearest_train": float(distances.mean()),
        "nearest_train_of_test": float(reference.mean()),
        "closest_train": float(distances.quantile(0.01)),
        "closest_train_of_test": float(reference.quantile(0.01)),
    }
    if classifier is None:
        return scores
    features, probabilities = describe(classifier, made)
    test_features, test_probabilities = describe(classifier, real)
    train_features, _ = describe(classifier, train.values())
    fid, fid_of_train = (frechet_distance(one, test_features) for one in (features, train_features))
    return scores | {
        "fid": fid,
        "fid_of_train": fid_of_train,
        "fid_ratio": fid / fid_of_train,
        "kid": kernel_distance(features, test_features, seed),
        "kid_of_train": kernel_distance(train_features, test_features, seed),
        "imbalance": imbalance(probabilities),
        "confident_share": float((probabilities.amax(dim=1) >= CONFIDENT).double().mean()),
        "confident_share_of_test": float((test_probabilities.amax(dim=1) >= CONFIDENT).double().mean()),
    }
