"""How many different things there are in a set."""

import torch
from torch import Tensor
from torch.nn import functional as F


def vendi_score(features: Tensor) -> float:
    """The effective number of different rows (Friedman and Dieng 2023): exp(-sum_i l_i log l_i), in [1, n].

    l_i are the eigenvalues of K / n, and K holds the cosines between rows: 1 if all rows point in one direction, k if
    they form k orthogonal clusters of one size.

    Args:
        features: one row per thing `(n, d)`.
    """
    directions = F.normalize(features.double(), dim=1)
    values = torch.linalg.eigvalsh(directions @ directions.T / len(directions)).clamp(min=0)
    return float(torch.special.entr(values / values.sum()).sum().exp())
