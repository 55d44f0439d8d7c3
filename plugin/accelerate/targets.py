"""Targets as inputs of a graph: for each example, the position of the explained value among its outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Pick:
    """Selects by position, and remembers the sizes it selected from.

    Args:
        index: for each example the position in its output, row by row `(N,)`, int64.

    Attributes:
        sizes: of the output, without the batch dimension.
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
        target: None, an int, a tuple of ints, a tensor, or a list with one int or tuple for each example.
        count: number of examples.
        sizes: of the output, without the batch dimension.

    Raises:
        AssertionError: there is no such target, or it leaves more than one value per example.
        TypeError: it is none of these; functions and slices decide which operations are computed, and are not inputs.
    """
    if isinstance(target, Tensor):
        target = target.reshape(-1).tolist()
        target = target[0] if len(target) == 1 else target
    entries = target if isinstance(target, list) else [target] * count
    assert len(entries) == count, f"{len(entries)} targets for {count} examples: give one, or one for each"
    if not isinstance(target, list):
        return [_position(target, sizes)] * count
    return [_position(entry, sizes) for entry in entries]


def _position(entry: Any, sizes: Sequence[int]) -> int:
    indices = () if entry is None else entry if isinstance(entry, tuple) else (entry,)
    if not all(isinstance(index, int) and not isinstance(index, bool) for index in indices):
        raise TypeError(
            f"target {entry!r} is no index: a compiled attribution takes ints and tuples of ints, one or a list with "
            "one for each example; call the attribution itself for slices and functions"
        )
    assert len(indices) <= len(sizes), f"target {entry} has more indices than the output (N, {_listed(sizes)})"
    left = sizes[len(indices) :]
    assert all(size == 1 for size in left), (
        f"target {entry} leaves {tuple(left)} values per example of the output (N, {_listed(sizes)}): name one"
    )
    position = 0
    for index, size in zip((*indices, *(0 for _ in left)), sizes, strict=True):
        assert -size <= index < size, (
            f"target {entry} is out of range for the output (N, {_listed(sizes)}): "
            f"it must be between {-size} and {size - 1}"
        )
        position = position * size + index % size
    return position


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def index_tensor(target: Any, count: int, sizes: Sequence[int], device: torch.device) -> Tensor:
    """`positions` as a tensor `(N,)`, int64."""
    return torch.tensor(positions(target, count, sizes), dtype=torch.int64, device=device)
