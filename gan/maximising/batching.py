"""Batches computed in blocks of one size, so that what a row gives does not depend on the rows beside it.

Kernels choose by the shape of a batch in which order they add. What a network says of one image therefore differs in
its last digits between batches of 1, 16 and 160, and an ascent, which asks again and again which of two values is
larger, makes whole steps of them. In blocks of one size the same kernels run on the same shapes, always. The price is
that a single small image is computed as often as fill a block; where nobody compares runs, blocks need not be filled.

Some kernels round a row by its place in the batch, too: a linear layer from 50 to 10 numbers in one way in even rows
and in another in odd ones. Networks with such a layer are computed one image at a time.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from plugin.seeds import normal

# Rows of a block: on a processor as many as fill it and stay in its cache, elsewhere more, as a call costs more there.
ON_CPU, ELSEWHERE = 16, 128


# Images with more numbers than this, such as 3 x 32 x 32, fill a processor one by one: blocks of them save nothing. On
# other devices so many make a block.
LARGE, LARGE_ELSEWHERE = 2_000, 8


def rows_of_block(image_shape: Sequence[int], device: torch.device) -> int | None:
    """How many images of a shape (C, H, W) make a block; None for the usual number."""
    return rows_of_large(device) if math.prod(image_shape) > LARGE else None


def rows_of_large(device: torch.device) -> int:
    """How many images make a block where each of them takes long: a single run must not pay for many."""
    return 1 if device.type == "cpu" else LARGE_ELSEWHERE


def depends_on_place(function: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    """Whether what a function gives for a row, or its slope there, changes with the row's place in the batch.

    Args:
        function: of batches, with a graph.
        batch: rows that differ `(n, ...)`.
    """
    found: list[list[Tensor]] = []
    for rows in (batch, batch.roll(1, 0)):
        inputs = rows.detach().requires_grad_()
        values = function(inputs)
        weights = normal(torch.Generator().manual_seed(0), *values.shape[1:]).to(values)
        slopes = []
        if values.requires_grad:
            slopes = [*torch.autograd.grad((values * weights).sum(), inputs, allow_unused=True)]
        found.append([part.detach().nan_to_num() for part in (values, *slopes) if part is not None])
    return not all(torch.equal(first.roll(1, 0), second) for first, second in zip(*found, strict=True))


def in_blocks(
    function: Callable[..., Sequence[Tensor | None]], *batches: Tensor, rows: int | None = None, filled: bool = True
) -> list[Any]:
    """What a function of batches gives, computed block by block, with its graph.

    Args:
        function: takes a block of each batch and returns tensors with as many rows; rows must not mix. What it returns
            may hold None, which stays None.
        batches: `(n, ...)` each, n at least 1.
        rows: of a block; None is the usual number for the device.
        filled: whether the last block is filled up with repetitions of the last row. If it is not, what a row gives
            may differ in its last digits with n.
    """
    count = len(batches[0])
    size = rows or (ON_CPU if batches[0].device.type == "cpu" else ELSEWHERE)
    missing = -count % size if filled else 0
    whole = [torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) for batch in batches]
    found = [function(*blocks) for blocks in zip(*(batch.split(size) for batch in whole), strict=True)]
    return [None if parts[0] is None else torch.cat(parts)[:count] for parts in zip(*found, strict=True)]
