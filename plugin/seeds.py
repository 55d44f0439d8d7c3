"""Seeds of random generators."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
    """The global random generators begin at `seed`, and are as before afterwards; those of other devices are untouched.

    Args:
        seed: see `check_seed`.
        device: a device with a generator of its own, which is seeded besides the processor's.
    """
    place = torch.device("cpu") if device is None else device
    before = global_states(place)
    kinds = [torch.device("cpu"), place][: len(before)]
    # `torch.manual_seed` would also seed the devices that nothing restores.
    set_global_states([torch.Generator(kind).manual_seed(check_seed(seed)).get_state() for kind in kinds], place)
    try:
        yield
    finally:
        set_global_states(before, place)


def global_states(device: torch.device) -> list[Tensor]:
    """The states of the global random generators from which a computation on a device draws."""
    states, own = [torch.get_rng_state()], _own_generator(device)
    return states if own is None else [*states, own.get_rng_state(device)]


def set_global_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Undo all draws since `global_states`, which may have been called for another device."""
    torch.set_rng_state(states[0])
    own = _own_generator(device)
    # Those of another kind of device have another length.
    if own is not None and len(states) > 1 and len(states[1]) == len(own.get_rng_state(device)):
        own.set_rng_state(states[1], device)


def _own_generator(device: torch.device) -> Any:
    """PyTorch's module for the generator of a device (`torch.cuda`, `torch.mps`, `torch.xpu` ...); None without one."""
    module = None if device.type in ("cpu", "meta") else getattr(torch, device.type, None)
    return module if hasattr(module, "get_rng_state") else None
