"""Batches computed in blocks of one size, so that what a row gives does not depend on the rows beside it.

Kernels choose by the shape of a batch in which order they add. What a network says of one image therefore differs in
its last digits between batches of 1, 16 and 160, and an ascent, which asks again and again which of two values is
larger, makes whole steps of them. In blocks of one size the same kernels run on the same shapes, always.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Rows of a block: on a processor as many as fill it and stay in its cache, elsewhere more, as a call costs more there.
ON_CPU, ELSEWHERE = 16, 128


def in_blocks(function: Callable[..., Sequence[Tensor | None]], *batches: Tensor) -> list[Any]:
    """What a function of batches gives, computed block by block, with its graph.

    Args:
        function: takes a block of each batch and returns tensors with as many rows; rows must not mix. What it returns
            may hold None, which stays None.
        batches: `(n, ...)` each, n at least 1. The last block is filled up with repetitions of the last row.
    """
    count = len(batches[0])
    size = ON_CPU if batches[0].device.type == "cpu" else ELSEWHERE
    missing = -count % size
    filled = [torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) for batch in batches]
    found = [function(*blocks) for blocks in zip(*(batch.split(size) for batch in filled), strict=True)]
    return [None if parts[0] is None else torch.cat(parts)[:count] for parts in zip(*found, strict=True)]
