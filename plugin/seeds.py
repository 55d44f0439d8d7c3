"""Seeds of random generators."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

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
    """A random generator on the processor that begins at a seed."""
    return torch.Generator().manual_seed(check_seed(seed))


def normal(random: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers of this shape on the generator's device, whatever PyTorch's default device is."""
    return torch.randn(shape, generator=random, device=random.device)


def uniform(random: torch.Generator, *shape: int) -> Tensor:
    """Numbers in [0, 1) of this shape on the generator's device, whatever PyTorch's default device is."""
    return torch.rand(shape, generator=random, device=random.device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """The global random generators begin at `seed`, and are as before afterwards.

    Args:
        seed: see `check_seed`.
        device: a device with a generator of its own, which is seeded besides the processor's.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(check_seed(seed))
        yield


def global_states(device: torch.device) -> list[Tensor]:
    """The states of the global random generators from which a computation on a device draws."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_global_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Undo all draws since `global_states`, which may have been called for another device."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
