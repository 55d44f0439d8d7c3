"""Seeds of random generators."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LEAST, _MOST = -(2**63), 2**64 - 1


def check_seed(seed: int) -> int:
    """The seed, if a random generator takes it.

    Raises:
        ValueError: it does not.
    """
    number = operator.index(seed)
    if not _LEAST <= number <= _MOST:
        raise ValueError(f"seed={number}: give a whole number from -2^63 to 2^64 - 1")
    return number


def random_generator(seed: int) -> torch.Generator:
    """A random generator on the processor, which a seed decides."""
    return torch.Generator().manual_seed(check_seed(seed))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """The global random generators begin at `seed`, and are as before afterwards.

    Args:
        seed: see `check_seed`.
        device: whose generator is used, besides the processor's.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(check_seed(seed))
        yield
