"""The names one function goes by in PyTorch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def spellings(name: str) -> list[Callable[..., Any]]:
    """Every public function, method and ATen operator called `name`."""
    found = [getattr(home, name) for home in (F, torch, Tensor, torch._C._nn) if hasattr(home, name)]
    packet = getattr(torch.ops.aten, name, None)
    return found + ([packet, *(getattr(packet, overload) for overload in packet.overloads())] if packet else [])
