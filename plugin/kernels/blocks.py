"""Pointwise arithmetic in pieces that stay in the processor's cache.

A rule costs passes over memory, besides its convolutions: y / (y + eps sgn y) * m as four calls reads and writes each
activation ten times. In blocks, each tensor is read once and the result is written once, for any arithmetic.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .tracing import is_tracing

# Four blocks of float32 fill 2 MB, the cache of a core or two.
BLOCK = 1 << 17


def in_blocks(compute: Callable[..., None], *tensors: Tensor) -> Tensor:
    """The `result` that `compute(result, *tensors)` writes: a pointwise function of tensors of one shape."""
    first = tensors[0]
    dtype = first.dtype
    for tensor in tensors:
        if tensor.dtype is not dtype:
            dtype = torch.promote_types(dtype, tensor.dtype)
    result = torch.empty_like(first, dtype=dtype)
    parts = (result, *tensors)
    if first.numel() < 2 * BLOCK or not first.is_cpu or is_tracing() or not _have_one_dense_layout(parts):
        compute(*parts)
        return result
    flat = [tensor.as_strided((first.numel(),), (1,)) for tensor in parts]
    for blocks in zip(*(tensor.split(BLOCK) for tensor in flat), strict=True):
        compute(*blocks)
    return result


def _have_one_dense_layout(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the values of all tensors lie in memory without gaps and in the same order."""
    if any(one.stride() != other.stride() or one.dtype != other.dtype for one, other in pairwise(tensors)):
        return False
    span = sum((size - 1) * stride for size, stride in zip(tensors[0].shape, tensors[0].stride(), strict=True)) + 1
    return span == tensors[0].numel() and all(stride > 0 for stride in tensors[0].stride())
