"""Checks that a network treats each row of a batch by itself, as independent runs need it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plugin.seeds import random_generator, uniform

# Errors that a network may raise for inputs that do not fit.
UNFIT = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
# A remedy for a network that treats its rows together.
ONE_BY_ONE = "pass lambda batch: torch.cat([network(row) for row in batch.split(1)])"
# The largest change of numbers by rounding, as a share of the largest number, also in half precision.
_ROUNDING = 2e-3


def reason_of(error: Exception) -> str:
    """The first line of an error, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def takes_one(call: Callable[[], object]) -> bool:
    """Whether a call with a batch of one row works."""
    try:
        call()
    except UNFIT:
        return False
    return True


def refuse_mixed_rows(network: Callable[[Tensor], Any], pair: Tensor, name: str) -> Tensor:
    """Refuse results that depend for one row on the row beside it: runs would not be independent.

    Args:
        network: of rows to results.
        pair: two rows that differ, `(2, ...)`.
        name: of the results, for the message.

    Returns:
        The results for the pair.

    Raises:
        ValueError: results depend on other rows, or differ from call to call, or a single row is not taken.
    """
    with torch.no_grad():
        beside = network(pair)
        off, size = _difference(network(pair), beside)
        if off > _ROUNDING * size:
            raise ValueError(
                f"{name} differs from pass to pass, by up to {off:.3g}: look for random numbers that "
                "torch.manual_seed does not decide (of NumPy, of Python, of a torch.Generator), and for counts of calls"
            )
        # In a batch of the same size, so that nothing but the other row differs.
        alone = torch.stack([network(row.expand_as(pair).contiguous())[n] for n, row in enumerate(pair.split(1))])
        off, size = _difference(beside, alone)
        if off > _ROUNDING * size:
            raise ValueError(
                f"{name} depends for one row of a batch on the others, by up to {off:.3g}: look for statistics of "
                "the batch (batch norm without running ones, softmax or normalisation along the first axis), or "
                f"{ONE_BY_ONE}"
            )
        if not takes_one(lambda: network(pair[:1])):
            raise ValueError(f"{name} comes for two rows and not for one: trace or export the network for any number")
    found: Tensor = beside
    return found


def _difference(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest difference of the results, and the largest magnitude of the expected ones."""
    off, size = (values.abs().nan_to_num(0.0, 0.0, 0.0).amax() for values in (found - expected, expected))
    return float(off), float(size)


def beside_another(image: Tensor) -> Tensor:
    """A batch `(2, C, H, W)` of an image `(1, C, H, W)` and another that differs everywhere."""
    other = uniform(random_generator(0), *image.shape).to(image)
    return torch.cat([image, (image + other) / 2])
