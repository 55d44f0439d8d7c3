"""Linear maps and their transposes: a convolution, a transposed convolution or a linear layer, as a rule needs it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .tracing import is_tracing

_convolution_backward = torch.ops.aten.convolution_backward.default
# Measured with oneDNN and MKL: for several examples, products are faster from this number of positions on,
_POSITIONS = 128
# and, back to this number of channels, with kernels of any width.
_FEW = 4


def along_channels(values: Tensor, ndim: int) -> Tensor:
    """One value per channel, as a factor of `(N, C, ...)` with so many dimensions."""
    return values.view(-1, *(1,) * (ndim - 2))


class LinearMap(Protocol):
    """z = W x for a weight given at each call, so that rules may pass modified weights."""

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x + b, with one entry of b per output channel."""
        ...

    def channels(self, output: Tensor) -> int:
        """How many output channels there are."""
        ...

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """W^T s, in the shape of `like`."""
        ...

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weight of diag(scale) W, with one scale per output channel."""
        ...

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        """One entry per output channel, in a shape that broadcasts over an output with `ndim` dimensions."""
        ...

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """1^T s, the transpose of the map whose weights are all 1, in the shape of `like`."""
        ...


@dataclass(frozen=True)
class Convolution:
    """Convolutions of 1, 2 and 3 dimensions and their transposes; geometry as in `torch.nn.functional.conv2d`."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    # Zeros beyond the padding at the end of each dimension: padding="same" of kernels with an even reach.
    extra: tuple[int, ...] = ()

    @cached_property
    def _geometry(self) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
        output_padding = list(self.output_padding or (0,) * len(self.stride))
        return list(self.stride), list(self.padding), list(self.dilation), self.transposed, output_padding, self.groups

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.extra:
            value = self._extended(value)
        if self._is_pointwise(weight) and self.is_product(value, weight):
            read = value[self._steps]
            product = _each(weight.flatten(1), read.flatten(2))
            return (product if bias is None else product.add_(bias[:, None])).view(read.shape[0], -1, *read.shape[2:])
        return torch.convolution(value, weight, bias, *self._geometry)

    def is_product(self, value: Tensor, weight: Tensor) -> bool:
        """Whether a CPU is faster at W x and W^T s as products of matrices, one for each example.

        This holds if either only mixes channels, or W^T s has few. A recorded graph keeps its convolutions:
        compilers and file formats know them. In half precision, the sums of overlaps would also be rounded.
        """
        return (
            self.groups == 1
            and not self.transposed
            and value.is_cpu
            and value.dtype == weight.dtype
            and weight.dtype in (torch.float32, torch.float64)
            # A product has its channels first, and networks with the channels last would rearrange it: not at an image.
            and (
                (weight.ndim == 4 and weight.shape[1] <= _FEW) or (self._is_pointwise(weight) and value.is_contiguous())
            )
            and (value.shape[0] == 1 or value.shape[2:].numel() >= _POSITIONS)
            and not is_tracing()
        )

    def _extended(self, value: Tensor) -> Tensor:
        return F.pad(value, [amount for size in reversed(self.extra) for amount in (0, size)])

    @cached_property
    def _steps(self) -> Any:
        """The positions that a kernel 1 wide reads."""
        return (..., *(slice(None, None, step) for step in self.stride))

    @cached_property
    def _is_padded(self) -> bool:
        return any(self.padding)

    def _is_pointwise(self, weight: Tensor) -> bool:
        return not self._is_padded and weight.shape[2:].numel() == 1

    def around(self, zeros: Sequence[int]) -> "Convolution | None":
        """This map and the padding with zeros before it, as one map; `zeros` are the numbers that `F.pad` receives.

        Returns:
            None where there is no such map: other dimensions are padded, a number is negative, or there are more zeros
            at the beginning of a dimension than at its end.
        """
        dimensions = len(self.stride)
        if self.transposed or any(zeros[2 * dimensions :]):
            return None
        last_first = (*zeros, *(0,) * (2 * dimensions))[: 2 * dimensions]
        begins, ends = last_first[-2::-2], last_first[::-2]
        extra = [e + end - begin for e, begin, end in zip(self.extra or (0,) * dimensions, begins, ends, strict=True)]
        if min(*begins, *extra) < 0:
            return None
        padding = tuple(p + begin for p, begin in zip(self.padding, begins, strict=True))
        return replace(self, padding=padding, extra=tuple(extra) if any(extra) else ())

    def channels(self, output: Tensor) -> int:
        return output.shape[1]

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        if self.extra:
            whole = replace(self, extra=()).transpose(signal, weight, self._extended(like))
            return whole[(slice(None), slice(None), *(slice(size) for size in like.shape[2:]))]
        if self.is_product(signal, weight):
            matrix = weight.flatten(1).t()
            if self._is_pointwise(weight):
                product = _each(matrix, signal.flatten(2)).view(signal.shape[0], -1, *signal.shape[2:])
                if product.shape == like.shape:
                    return product
                below = product.new_zeros(like.shape)
                below[self._steps] = product
                return below
            # One example after the other: overlapping contributions take memory until they are summed.
            geometry = (like.shape[2:], weight.shape[2:], self.dilation, self.padding, self.stride)
            return torch.stack([F.fold(matrix @ one, *geometry) for one in signal.flatten(2)])
        # The transposed operator of both kinds; unlike conv_transpose, it knows the size that a stride made ambiguous.
        result: Tensor = _convolution_backward(signal, like, weight, None, *self._geometry, [True, False, False])[0]
        return result

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        if not self.transposed:
            return weight * scale.view(-1, *(1,) * (weight.ndim - 1))
        grouped = weight.unflatten(0, (self.groups, -1))
        result: Tensor = (grouped * scale.view(self.groups, 1, -1, *(1,) * (weight.ndim - 2))).flatten(0, 1)
        return result

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return along_channels(values, ndim)

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        # All input channels of a group receive the same, so one channel per group is enough.
        summed = signal.unflatten(1, (self.groups, -1)).sum(2)
        ones = weight.new_ones(self.groups, 1, *weight.shape[2:])
        one_each = like[:, :1].expand(-1, self.groups, *like.shape[2:])
        spread = self.transpose(summed, ones, one_each)
        return spread.repeat_interleave(like.shape[1] // self.groups, 1)


@dataclass(frozen=True, eq=False)
class Reaching:
    """A linear map of values and of zeros beside them that are no input, such as padding.

    Attributes:
        linear: the map of all of them.
        reached: False at these zeros; broadcasts over x.
    """

    linear: LinearMap
    reached: Tensor

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.linear(value * self.reached, weight, bias)

    def channels(self, output: Tensor) -> int:
        return self.linear.channels(output)

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return self.linear.transpose(signal, weight, like) * self.reached

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        return self.linear.scale_outputs(weight, scale)

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return self.linear.per_channel(values, ndim)

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return self.linear.spread(signal, weight, like) * self.reached


def _each(matrix: Tensor, columns: Tensor) -> Tensor:
    """The product with each of N matrices `(N, rows, columns)`; `matmul` would rearrange them."""
    return torch.bmm(matrix.expand(columns.shape[0], -1, -1), columns)


@dataclass(frozen=True)
class MatrixProduct:
    """`F.linear`: the last dimension is mapped by a matrix `(outputs, inputs)`, the others are examples."""

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(value, weight, bias)

    def channels(self, output: Tensor) -> int:
        return output.shape[-1]

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return signal @ weight

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale[:, None]

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return values

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return signal.sum(-1, keepdim=True).expand_as(like)


@dataclass(frozen=True)
class Scaling:
    """z = w * x with one number per channel: a batch norm that follows no linear layer."""

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        scaled = value * self.per_channel(weight, value.ndim)
        return scaled if bias is None else scaled + self.per_channel(bias, value.ndim)

    def channels(self, output: Tensor) -> int:
        return output.shape[1]

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return signal * self.per_channel(weight, like.ndim)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return along_channels(values, ndim)

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return signal


@dataclass(frozen=True)
class Contraction:
    """Any product with a constant tensor, as `torch.einsum` writes it: one letter for each dimension.

    The output channels are the entries of those dimensions of y that W has: outputs, also for each of several groups.

    Attributes:
        value, weight, output: the letters of x, W and y.
        size: W's shape.
    """

    value: str
    weight: str
    output: str
    size: tuple[int, ...]

    @cached_property
    def dimensions(self) -> tuple[int, ...]:
        """The dimensions of y with the output channels."""
        return tuple(d for d, letter in enumerate(self.output) if letter in self.weight)

    @cached_property
    def _sizes(self) -> list[int]:
        """The shape of a tensor with one entry per output channel that broadcasts over y."""
        sizes = dict(zip(self.weight, self.size, strict=True))
        return [sizes.get(letter, 1) for letter in self.output]

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product = torch.einsum(f"{self.value},{self.weight}->{self.output}", value, weight)
        return product if bias is None else product + self.per_channel(bias, product.ndim)

    def channels(self, output: Tensor) -> int:
        return math.prod(self._sizes)

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        reached = [letter for letter in self.value if letter in self.output or letter in self.weight]
        passed = torch.einsum(f"{self.output},{self.weight}->{''.join(reached)}", signal, weight)
        # Along the dimensions of x alone, which y sums over, each position receives the same.
        for dimension, letter in enumerate(self.value):
            if letter not in reached:
                passed = passed.unsqueeze(dimension)
        return passed.expand_as(like)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        own = "".join(self.output[d] for d in self.dimensions)
        return torch.einsum(
            f"{self.weight},{own}->{self.weight}", weight, scale.view([self._sizes[d] for d in self.dimensions])
        )

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return values.view(self._sizes)

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return self.transpose(signal, torch.ones_like(weight), like)


@dataclass(frozen=True, eq=False)
class SparseProduct:
    """The product with a constant sparse matrix, whose weight is the vector of its stored entries.

    Attributes:
        indices: row and column of each entry `(2, entries)`.
        size: outputs and inputs.
        dimension: the dimension of x that is mapped; y has its outputs there.
    """

    indices: Tensor
    size: tuple[int, int]
    dimension: int

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product = self._along(self.indices, self.size, weight, value)
        return product if bias is None else product + self.per_channel(bias, product.ndim)

    def _along(self, indices: Tensor, size: tuple[int, int], weight: Tensor, tensor: Tensor) -> Tensor:
        matrix = torch.sparse_coo_tensor(indices, weight, size, check_invariants=False)  # known to hold
        columns = tensor.movedim(self.dimension, 0)
        columns = columns.expand(size[1], *columns.shape[1:])  # one for all
        product: Tensor = torch.sparse.mm(matrix, columns.reshape(size[1], -1))
        return product.view(-1, *columns.shape[1:]).movedim(0, self.dimension)

    def channels(self, output: Tensor) -> int:
        return output.shape[self.dimension]

    def transpose(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return self._along(self.indices.flip(0), (self.size[1], self.size[0]), weight, signal)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale[self.indices[0]]

    def per_channel(self, values: Tensor, ndim: int) -> Tensor:
        return values.view(-1, *(1,) * (ndim - 1 - self.dimension))

    def spread(self, signal: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return self.transpose(signal, torch.ones_like(weight), like)
