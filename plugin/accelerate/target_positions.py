"""Targets as inputs of a graph: for each example, the position of the explained value among its outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..captum_api import plain_target
from ..errors import OptionTypeError, TargetError


class Pick:
    """Selects by position, and stores the sizes it selected from.

    Args:
        index: for each example, the position in its output, row by row `(N,)`, int64.

    Attributes:
        sizes: the sizes of the output, without the batch dimension.
        selected: the values `(N,)`.
    """

    def __init__(self, index: Tensor) -> None:
        self.index = index
        self.sizes: tuple[int, ...] = ()
        self.selected: Tensor | None = None

    def __call__(self, output: Tensor) -> Tensor:
        self.sizes = tuple(output.shape[1:])
        self.selected = output.reshape(len(output), -1).gather(1, self.index[:, None]).squeeze(1)
        return self.selected


def positions(target: Any, count: int, sizes: Sequence[int]) -> list[int]:
    """The position of each example's target in its output, row by row.

    Args:
        target: None, an int, a tuple of ints, a tensor, or a list with one int or tuple for each example; integers may
            be NumPy's.
        count: number of examples.
        sizes: the sizes of the output, without the batch dimension.

    Raises:
        TargetError: there is no such target, or it leaves more than one value per example.
        OptionTypeError: it is a function or a slice, which changes the computation and cannot be an input.
    """
    target = plain_target(target)
    if not isinstance(target, list):
        return [_position(target, sizes)] * count
    if len(target) != count:
        raise TargetError(f"{len(target)} targets for {count} examples: give one, or one for each")
    return [_position(entry, sizes) for entry in target]


def _position(entry: Any, sizes: Sequence[int]) -> int:
    indices = () if entry is None else entry if isinstance(entry, tuple) else (entry,)
    if not all(isinstance(index, int) for index in indices):
        raise OptionTypeError(
            f"target {entry!r} is no index: a recording takes ints and tuples of ints, one or a list with one for "
            "each example; call the attribution itself, without create_graph, for slices and functions"
        )
    if len(indices) > len(sizes):
        raise TargetError(f"target {entry} has more indices than the output (N, {_listed(sizes)})")
    left = sizes[len(indices) :]
    if any(size != 1 for size in left):
        raise TargetError(
            f"target {entry} leaves {tuple(left)} values per example of the output (N, {_listed(sizes)}): name one"
        )
    position = 0
    for index, size in zip((*indices, *(0 for _ in left)), sizes, strict=True):
        if not -size <= index < size:
            raise TargetError(
                f"target {entry} is out of range for the output (N, {_listed(sizes)}): it must be between {-size} and "
                f"{size - 1}"
            )
        position = position * size + index % size
    return position


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def index_tensor(target: Any, count: int, sizes: Sequence[int], device: torch.device) -> Tensor:
    """`positions` as a tensor `(N,)`, int64."""
    return torch.tensor(positions(target, count, sizes), dtype=torch.int64, device=device)
