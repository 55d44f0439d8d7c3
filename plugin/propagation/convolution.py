"""Convolutions of 1, 2 and 3 dimensions, as a linear map and the tensors it is applied to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..kernels.linear import Convolution
from .kinds import Operation

# A size that is given once for all dimensions, or once for each.
Size = int | Sequence[int]


@dataclass(eq=False, slots=True)
class ConvolutionLayer:
    """y = W x + b for a weight that receives no signal.

    Attributes:
        input: x `(N, C, ...)`.
        weight: W `(outputs, C / groups, ...)`.
        linear: the geometry.
        function: computes y.
    """

    input: Tensor
    weight: Tensor
    linear: Convolution
    function: Callable[[Tensor], Tensor]


class ConvolutionGradient(torch.autograd.Function):
    """W x + b upwards, W^T s downwards: the gradient, by the operators of `plugin.kernels.linear`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, operation: ConvolutionLayer) -> Tensor:
        ctx.weight, ctx.linear, ctx.size = operation.weight, operation.linear, value.shape
        return operation.function(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.transpose(signal, ctx.weight, signal.new_empty(ctx.size)), None


def differentiate(operation: ConvolutionLayer) -> Tensor:
    """The convolution unchanged; its gradient by products of matrices, where they are faster than PyTorch's own."""
    # Under autocast the signal will not have the type of the weight.
    if operation.linear.is_product(operation.input, operation.weight) and not torch.is_autocast_enabled("cpu"):
        result: Tensor = ConvolutionGradient.apply(operation.input, operation)
        return result
    return operation.function(operation.input)


def per_dimension(value: Size, dimensions: int) -> tuple[int, ...]:
    """A size for each dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def convolution_of(
    dimensions: int,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int = 1,
    output_padding: Size | None = None,
    extra: tuple[int, ...] = (),
) -> Convolution:
    """The map of a convolution; of a transposed one if there is an output padding."""
    sizes = stride, padding, dilation, output_padding
    try:
        return _convolution_of(dimensions, groups, extra, *sizes)
    except TypeError:  # a list is no key
        return _convolution_of(dimensions, groups, extra, *map(_fixed, sizes))


def _fixed(size: Size | None) -> Size | None:
    return size if size is None or isinstance(size, int) else tuple(size)


@lru_cache(maxsize=4096)
def _convolution_of(
    dimensions: int,
    groups: int,
    extra: tuple[int, ...],
    stride: Size,
    padding: Size,
    dilation: Size,
    output_padding: Size | None,
) -> Convolution:
    return Convolution(
        per_dimension(stride, dimensions),
        per_dimension(padding, dimensions),
        per_dimension(dilation, dimensions),
        groups,
        transposed=output_padding is not None,
        output_padding=() if output_padding is None else per_dimension(output_padding, dimensions),
        extra=extra,
    )


def parse_convolution(
    row: Operation, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ConvolutionLayer | None:
    """The layer that a call of a convolution computes.

    Returns:
        None where the plain gradient must do: padding by name, no batch dimension, a computed weight.
    """
    return _convolution(int(row.name[-2]), function, *args, **kwargs)


def _convolution(
    dimensions: int,
    function: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> ConvolutionLayer | None:
    if isinstance(padding, str) or input.ndim != dimensions + 2 or weight.grad_fn is not None:
        return None
    linear = convolution_of(dimensions, stride, padding, dilation, groups)
    rest = (weight, bias, linear.stride, linear.padding, linear.dilation, groups)
    return ConvolutionLayer(input, weight, linear, partial(_apply, function, rest))


def _apply(function: Callable[..., Tensor], rest: tuple[Any, ...], value: Tensor) -> Tensor:
    return function(value, *rest)
