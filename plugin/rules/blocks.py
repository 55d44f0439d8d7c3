"""Pointwise arithmetic in pieces that stay in the processor's cache.

Beside its convolutions, a rule costs passes over memory: m * y / (y + eps sgn y) as five calls reads and writes each
activation eleven times. In blocks, whatever the arithmetic, each tensor is read once and the result written once.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..tracing import is_tracing

# Four blocks of float32 fill 2 MB, the cache of a core or two.
BLOCK = 1 << 17


def in_blocks(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`compute(*tensors)`, for a pointwise function of tensors of one shape and type that changes none of them."""
    first = tensors[0]
    if first.numel() < 2 * BLOCK or not first.is_cpu or is_tracing() or not _have_one_dense_layout(tensors):
        return compute(*tensors)
    result = torch.empty_like(first)
    flat = [tensor.as_strided((first.numel(),), (1,)) for tensor in (result, *tensors)]
    for target, *parts in zip(*(tensor.split(BLOCK) for tensor in flat), strict=True):
        target.copy_(compute(*parts))
    return result


def _have_one_dense_layout(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the values of all tensors lie in memory without gaps and in the same order."""
    if any(one.stride() != other.stride() or one.dtype != other.dtype for one, other in pairwise(tensors)):
        return False
    span = sum((size - 1) * stride for size, stride in zip(tensors[0].shape, tensors[0].stride(), strict=True)) + 1
    return span == tensors[0].numel() and all(stride > 0 for stride in tensors[0].stride())
