"""The transposed convolution of a signal that is mostly zero: only where it is not zero is anything computed.

The signal of one unit fills a small part of the layers right below it, and at first one channel. Cut to the channels
and the box of positions that any example of the batch uses, W^T s is the same and costs what the cut costs.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .linear import Convolution

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Convolving(Protocol):
    """What must be known of a convolution: x, W, the geometry, and y as a function of x."""

    @property
    def input(self) -> Tensor: ...

    @property
    def weight(self) -> Tensor: ...

    @property
    def linear(self) -> Convolution: ...

    @property
    def function(self) -> Callable[[Tensor], Tensor]: ...


def transpose_support(signal: Tensor, weight: Tensor, linear: Convolution, size: torch.Size) -> Tensor:
    """W^T s `(N, C, ...)` of the given size for a signal s `(N, outputs, ...)`."""
    channels, *positions = _support(signal[:1])
    if any(len(indices) < length for indices, length in zip((channels, *positions), signal.shape[1:], strict=True)):
        channels, *positions = _support(signal)  # the first example alone does not use everything
    if not len(channels):
        return signal.new_zeros(size)
    for dimension, indices in enumerate(positions, start=2):
        signal = signal.narrow(dimension, indices[0], indices[-1] - indices[0] + 1)
    if linear.groups == 1 and len(channels) < signal.shape[1]:
        signal, weight = signal[:, channels], weight[channels]
    # Twice as fast on a CPU, and without consequences elsewhere.
    signal = signal.contiguous(memory_format=_CHANNELS_LAST.get(signal.ndim, torch.contiguous_format))
    none = [0] * len(positions)
    part = torch.convolution(
        signal, weight, None, list(linear.stride), none, list(linear.dilation), True, none, linear.groups
    )
    margins: list[int] = []
    for dimension, indices in enumerate(positions):
        before = indices[0] * linear.stride[dimension] - linear.padding[dimension]
        margins = [before, size[2 + dimension] - before - part.shape[2 + dimension], *margins]
    return F.pad(part, margins)  # a negative margin cuts what falls on padding


def _support(signal: Tensor) -> list[list[int]]:
    """The channels, and the indices along each other dimension, where any example is not zero."""
    if signal.is_contiguous():
        used = signal.abs().sum(dim=0) != 0
    else:  # channels last: summed in the order of memory, which is twenty times faster
        used = (signal.movedim(1, -1).abs().sum(dim=0) != 0).movedim(-1, 0)
    dimensions = range(used.ndim)
    return [used.any(dim=[d for d in dimensions if d != kept]).nonzero().flatten().tolist() for kept in dimensions]


class OfOneExample(torch.autograd.Function):
    """Downwards, W^T s for each example. Upwards, one example stands for the batch: its values are of no interest."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, operation: Convolving) -> Tensor:
        ctx.weight, ctx.linear, ctx.size = operation.weight, operation.linear, value.shape
        return operation.function(value[:1]).repeat(len(value), *(1,) * (value.ndim - 1))

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return transpose_support(signal, ctx.weight, ctx.linear, ctx.size), None
