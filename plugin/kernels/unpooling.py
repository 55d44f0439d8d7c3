"""Max-pooling with a backward pass that does not use the position of the maximum.

With m_i the signal that arrives at window i, the signal handed down to position j of the input is

    sum_i S[i, j] m_i

so windows that overlap add. Where j is the t-th of the k positions that window i covers in one dimension, t from 0,

    =========  ========================================  ==================================================
    mode       S[i, j]                                   source
    =========  ========================================  ==================================================
    center     1 if t + 1 = ceil(k / 2), else 0          Mahendran and Vedaldi 2016
    corner     1 if t = 0, else 0 ("bed of nails")       Dosovitskiy et al. 2015
    uniform    1 / k                                     the transpose of average pooling
    replicate  1                                         nearest-neighbour enlargement, if nothing overlaps
    =========  ========================================  ==================================================

and 0 where window i does not cover j. In several dimensions a window is the product of one interval per dimension, so
S is the product of one matrix per dimension (`uniform` is 1 / k^2 in two), and unpooling one matrix product for each.
A window covers the positions of its kernel. Signal at padding, or beyond the input in ceil mode, is dropped.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Interval(Protocol):
    """The windows along one dimension, see `plugin.propagation.pooling.Windows`."""

    @property
    def first(self) -> Tensor: ...

    @property
    def length(self) -> Tensor: ...

    @property
    def dilation(self) -> int: ...

    @property
    def size(self) -> int: ...


class Pooling(Protocol):
    """A pooling as unpooling needs it: x, the function, and its windows along each dimension given its result."""

    @property
    def input(self) -> Tensor: ...

    @property
    def function(self) -> Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]: ...

    def windows(self, pooled: Tensor) -> tuple[Interval, ...]: ...


# The weight of the t-th of k positions; both are tensors that broadcast to (windows, positions).
_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "center": lambda t, k: t == (k - 1) // 2,
    "corner": lambda t, k: t == 0,
    "uniform": lambda t, k: k.double().reciprocal(),
    "replicate": lambda t, k: torch.ones_like(t),
}
SWITCH_FREE = tuple(_WEIGHTS)


def selection(windows: Interval, mode: str) -> Tensor:
    """The matrix S `(windows, positions)` of one dimension, float64."""
    distance = torch.arange(windows.size, device="cpu") - windows.first[:, None]
    length = windows.length[:, None]
    t = distance.div(windows.dilation, rounding_mode="floor")
    covered = (distance % windows.dilation == 0) & (t >= 0) & (t < length)
    return covered * _WEIGHTS[mode](t, length).double()


def unpool(signal: Tensor, windows: tuple[Interval, ...], mode: str) -> Tensor:
    """The signal `(..., windows)` at the pooled positions `(..., positions)`, along each of the last dimensions."""
    for dimension, interval in zip(range(-len(windows), 0), windows, strict=True):
        matrix = selection(interval, mode).to(signal)
        signal = (signal.movedim(dimension, -1) @ matrix).movedim(-1, dimension)
    return signal


class SwitchFree(torch.autograd.Function):
    """Max-pooling forwards, unpooling without switches backwards; nothing is saved."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, operation: Pooling, mode: str) -> Tensor | tuple[Tensor, Tensor]:
        result = operation.function(value)
        pooled, *winners = (result,) if isinstance(result, Tensor) else result
        ctx.mark_non_differentiable(*winners)
        ctx.windows, ctx.mode = operation.windows(pooled), mode
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor, *_: None) -> tuple[Tensor, None, None]:
        return unpool(signal, ctx.windows, ctx.mode), None, None
