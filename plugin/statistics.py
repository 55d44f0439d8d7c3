"""Numbers that describe sets of vectors and outputs of networks, shared by `gan` and the experiments."""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def vendi_score(features: Tensor) -> float:
    """The effective number of different rows (Friedman and Dieng 2023): exp(-sum_i l_i log l_i), in [1, n].

    l_i are the eigenvalues of K / n, and K holds the cosines between rows: 1 if all rows point in one direction, k if
    they form k orthogonal clusters of one size.

    Args:
        features: one row per item `(n, d)`.

    >>> import torch
    >>> from plugin.experiments.invariance import vendi_score
    >>> round(vendi_score(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])), 6)
    2.0
    """
    directions = F.normalize(features.double(), dim=1)
    values = torch.linalg.eigvalsh(directions @ directions.T / len(directions)).clamp(min=0)
    return float(torch.special.entr(values / values.sum()).sum().exp())


def mean_cosine(maps: Tensor) -> float:
    """Mean cosine over the pairs of maps `(n, ...)`; NaN for a single map."""
    directions = F.normalize(maps.flatten(1), dim=1)
    cosines = directions @ directions.T
    first, second = torch.triu_indices(len(maps), len(maps), offset=1, device=maps.device)
    return float(cosines[first, second].mean())


class Quartiles(NamedTuple):
    """The first quartile, the median and the third."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """The median, with the quartiles in brackets: "0.39 (0.10 to 0.92)"."""
        low, median, high = (round(value, 2) + 0.0 for value in self)  # never "-0.00"
        return f"{median:.2f} ({low:.2f} to {high:.2f})"


def quartiles(values: Iterable[float]) -> Quartiles:
    """The quartiles of numbers, at least one, linear between neighbours."""
    parts = torch.tensor([*values], dtype=torch.float64, device="cpu").quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device="cpu")
    )
    return Quartiles(*parts.tolist())


def median_of_known(values: Iterable[float]) -> float:
    """The median of the numbers that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


@torch.inference_mode()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of inputs whose largest output is that of their label, in [0, 1], in eval mode.

    Args:
        network: logits `(N, classes)` of inputs `(N, ...)`; it is left in eval mode.
        batches: pairs of inputs and labels `(N,)`, at least one.
    """
    network.eval()
    correct = total = 0
    for inputs, labels in batches:
        correct += int((network(inputs).argmax(1) == labels).sum())
        total += len(labels)
    return correct / total
