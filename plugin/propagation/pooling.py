"""Max-pooling of 1, 2 and 3 dimensions, in every spelling of PyTorch.

`nn.MaxPool2d`, `F.max_pool2d`, `torch.max_pool2d`, `F.max_pool2d_with_indices` and the operators behind them are one
operation, with the windows of which it takes the maximum; adaptive max-pooling is the same with windows that follow
from the sizes. Random (fractional) pooling and reductions such as `amax` are not in the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .convolution import per_dimension
from .kinds import Operation

Pooled = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling along one dimension: window i covers `first[i] + dilation * t`, t < `length[i]`.

    Attributes:
        first: first position of each window `(windows,)`, int64; negative in the padding.
        length: number of positions in each window, padding included `(windows,)`, int64.
        dilation: distance between them.
        size: number of positions in the input; windows may reach beyond.
    """

    first: Tensor
    length: Tensor
    dilation: int
    size: int


WindowsAlong = Callable[[int, int, int], Windows]


@dataclass(frozen=True)
class MaxPooling:
    """The maximum of windows of the input.

    Attributes:
        input: x `(N, C, ...)`, or `(C, ...)` without a batch.
        function: computes y, and the positions of the maxima if the call asks for them.
        dimensions: the number of pooled dimensions, counted from the last: 1, 2 or 3.
        along: the windows of a dimension (counted from 0) of given sizes of input and output.
    """

    input: Tensor
    function: Callable[[Tensor], Pooled]
    dimensions: int
    along: WindowsAlong

    def windows(self, pooled: Tensor) -> tuple[Windows, ...]:
        """The windows along each of the pooled dimensions, given the result y."""
        sizes = zip(self.input.shape[-self.dimensions :], pooled.shape[-self.dimensions :], strict=True)
        return tuple(self.along(index, *pair) for index, pair in enumerate(sizes))


def regular(kernel: int, stride: int, padding: int, dilation: int, size: int, count: int) -> Windows:
    """`count` windows of one length at equal distances; in ceil mode the last ones reach beyond the input."""
    return Windows(
        torch.arange(count, device="cpu") * stride - padding, torch.full((count,), kernel, device="cpu"), dilation, size
    )


def adaptive(size: int, count: int) -> Windows:
    """`count` windows that together cover the input: from floor(i * size / count) to ceil((i + 1) * size / count)."""
    index = torch.arange(count, device="cpu")
    first, stop = index * size // count, -(-(index + 1) * size // count)
    return Windows(first, stop - first, 1, size)


def _regular_pooling(
    dimensions: int,
    function: Callable[..., Pooled],
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> MaxPooling:
    kernel = per_dimension(kernel_size, dimensions)
    strides = per_dimension(stride, dimensions) if stride or isinstance(stride, int) else kernel
    paddings, dilations = per_dimension(padding, dimensions), per_dimension(dilation, dimensions)
    geometry = (kernel, strides, paddings, dilations, ceil_mode)

    def along(index: int, size: int, count: int) -> Windows:
        return regular(kernel[index], strides[index], paddings[index], dilations[index], size, count)

    return MaxPooling(input, partial(_apply, function, geometry, return_indices), dimensions, along)


def _adaptive_pooling(
    dimensions: int,
    function: Callable[..., Pooled],
    input: Tensor,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
) -> MaxPooling:
    call = partial(_apply, function, (output_size,), return_indices)
    return MaxPooling(input, call, dimensions, lambda index, size, count: adaptive(size, count))


def _apply(function: Callable[..., Pooled], arguments: tuple[Any, ...], return_indices: bool, value: Tensor) -> Pooled:
    return function(value, *arguments, **({"return_indices": True} if return_indices else {}))


def parse_pooling(
    row: Operation, function: Callable[..., Pooled], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> MaxPooling:
    """The pooling that a call of a max-pooling computes."""
    parser = _adaptive_pooling if row.name.startswith("adaptive") else _regular_pooling
    dimensions = int(row.name.removesuffix("_with_indices")[-2])
    return parser(dimensions, function, *args, **kwargs)
