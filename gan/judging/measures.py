"""Distances of images from real ones, and from each other, in a network's features.

Features are rows `(n, k)`; distances are Euclidean. Precision is that of Kynkäänniemi et al. (2019), coverage that of
Naeem et al. (2020). The Vendi score is in `plugin.statistics`.
"""

import math

import torch
from torch import Tensor


def diversity(features: Tensor) -> float:
    """Mean distance between two of the rows; NaN for a single row."""
    return float(torch.pdist(features).mean()) if len(features) > 1 else math.nan


def nearest(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the distance to its nearest real one `(n,)`, and the index of that one `(n,)`."""
    found = torch.cdist(features, real).min(dim=1)
    return found.values, found.indices


def neighbour_distances(real: Tensor, k: int = 1) -> Tensor:
    """For each row the distance `(n,)` to the k-th nearest of the others.

    Raises:
        ValueError: there are fewer than k other rows, or k is below 1.
    """
    if not 1 <= k < len(real):
        raise ValueError(f"{len(real)} rows have no {k}-th nearest other: give more")
    distances = torch.cdist(real, real).fill_diagonal_(math.inf)
    return distances.topk(k, largest=False).values[:, -1]


def precision(features: Tensor, real: Tensor, k: int = 3) -> float:
    """Share of the rows at most as far from some real one as its k-th nearest real neighbour."""
    return float((torch.cdist(features, real) <= neighbour_distances(real, k)).any(dim=1).float().mean())


def coverage(features: Tensor, real: Tensor, k: int = 3) -> float:
    """Share of the real ones with a row at most as far as their k-th nearest real neighbour."""
    return float((torch.cdist(features, real) <= neighbour_distances(real, k)).any(dim=0).float().mean())
