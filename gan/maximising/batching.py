"""Batches computed in blocks of one size, so that the result for a row does not depend on the rows beside it.

Kernels choose their order of summation by the shape of a batch. The output for one image therefore differs in its last
digits between batches of 1, 16 and 160. An ascent compares values at every step, so such differences grow to whole
steps. In blocks of one size the same kernels always run on the same shapes. The price is that a single small image
costs a whole block; blocks need not be filled if runs need not agree between batches.

Some kernels also round a row by its place in the batch: a linear layer from 50 to 10 numbers rounds even and odd rows
differently. Networks with such a layer are computed one image at a time.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from plugin.seeds import normal, random_generator

# Rows of a block: on a CPU as many as keep it busy and fit its cache, elsewhere more, as calls cost more there.
ON_CPU, ELSEWHERE = 16, 128


# A single image with more numbers than LARGE, such as 3 x 32 x 32, keeps a CPU busy: larger blocks save nothing. On
# other devices LARGE_ELSEWHERE such images make a block.
LARGE, LARGE_ELSEWHERE = 2_000, 8


def rows_of_block(image_shape: Sequence[int], device: torch.device) -> int | None:
    """Images per block for a shape (C, H, W); None for the usual number."""
    return rows_of_large(device) if math.prod(image_shape) > LARGE else None


def rows_of_large(device: torch.device) -> int:
    """Images per block if each of them takes long: a single run must not pay for many."""
    return 1 if device.type == "cpu" else LARGE_ELSEWHERE


def depends_on_place(function: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    """Whether a function's values for a row, or its slopes, change with the row's place in the batch.

    Args:
        function: of batches, with a graph.
        batch: rows that differ `(n, ...)`.
    """
    found: list[list[Tensor]] = []
    for rows in (batch, batch.roll(1, 0)):
        inputs = rows.detach().requires_grad_()
        values = function(inputs)
        weights = normal(random_generator(0), *values.shape[1:]).to(values)
        slopes = []
        if values.requires_grad:
            slopes = [*torch.autograd.grad((values * weights).sum(), inputs, allow_unused=True)]
        found.append([part.detach().nan_to_num() for part in (values, *slopes) if part is not None])
    return not all(torch.equal(first.roll(1, 0), second) for first, second in zip(*found, strict=True))


def in_blocks(
    function: Callable[..., Sequence[Tensor | None]], *batches: Tensor, rows: int | None = None, filled: bool = True
) -> list[Any]:
    """The results of a function of batches, computed block by block, with their graph.

    Args:
        function: takes a block of each batch and returns tensors with as many rows; rows must not mix. A None among
            its results stays None.
        batches: `(n, ...)` each, n at least 1.
        rows: per block; None for the usual number of the device.
        filled: whether the last block is filled up with repetitions of the last row. If not, the result for a row may
            differ in its last digits with n.
    """
    count = len(batches[0])
    size = rows or (ON_CPU if batches[0].device.type == "cpu" else ELSEWHERE)
    missing = -count % size if filled else 0
    whole = [torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) for batch in batches]
    found = [function(*blocks) for blocks in zip(*(batch.split(size) for batch in whole), strict=True)]
    return [None if parts[0] is None else torch.cat(parts)[:count] for parts in zip(*found, strict=True)]
