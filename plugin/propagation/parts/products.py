"""Sums of products, gates and similarities, in their parts."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..convolution import per_dimension

Number = float | Tensor


def _scaled(value: Tensor, factor: Number) -> Tensor:
    return value if isinstance(factor, (int, float)) and factor == 1 else value * factor


def _plus(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """beta * input + alpha * product(first, second); the product comes first, so that the sum is the layer's bias."""

    def compute(input: Tensor, first: Tensor, second: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        # A constant factor is scaled, if there is one: the product is then a linear layer.
        constant_first = not first.requires_grad
        result = product(_scaled(first, alpha), second) if constant_first else product(first, _scaled(second, alpha))
        return result if isinstance(beta, (int, float)) and beta == 0 else result + _scaled(input, beta)

    return compute


_addmm, _addmv, _baddbmm, _addr = map(_plus, (torch.matmul, torch.mv, torch.bmm, torch.outer))


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta input + alpha mat1 mat2."""
    return _addmm(input, mat1, mat2, beta=beta, alpha=alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta input + alpha mat vec."""
    return _addmv(input, mat, vec, beta=beta, alpha=alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta input + alpha batch1 batch2, one product for each entry of the batch."""
    return _baddbmm(input, batch1, batch2, beta=beta, alpha=alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta input + alpha times the sum of the products of a batch."""
    return _scaled(torch.bmm(batch1, batch2).sum(0), alpha) + _scaled(input, beta)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta input + alpha vec1 vec2^T."""
    return _addr(input, vec1, vec2, beta=beta, alpha=alpha)


def scaled_add(input: Tensor, other: Number, *, alpha: Number) -> Tensor:
    """input + alpha other."""
    return input + alpha * other


def scaled_sub(input: Tensor, other: Number, *, alpha: Number) -> Tensor:
    """input - alpha other."""
    return input - alpha * other


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value tensor1 tensor2."""
    return input + _scaled(tensor1 * tensor2, value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value tensor1 / tensor2."""
    return input + _scaled(tensor1 / tensor2, value)


def lerp(input: Tensor, end: Tensor, weight: Number) -> Tensor:
    """input + weight (end - input)."""
    return input + weight * (end - input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second (Dauphin et al. 2017)."""
    signal, gate = input.chunk(2, dim)
    return signal * torch.sigmoid(gate)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha mean x^2)^beta, the mean over neighbouring channels (Krizhevsky et al. 2012)."""
    with torch.no_grad():
        squares = input.detach().square().flatten(2).unsqueeze(1)
        padded = F.pad(squares, (0, 0, size // 2, (size - 1) // 2))
        mean = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).view(input.shape)
        denominator = (mean * alpha + k).pow(beta)
    return input / denominator


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 x2 / (|x1| |x2|), the lengths held constant."""
    first, second = (x.detach().norm(2, dim, keepdim=True).clamp_min(eps) for x in (x1, x2))
    result: Tensor = ((x1 / first) * (x2 / second)).sum(dim)
    return result


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """|d|_p with d = x1 - x2 + eps: each difference d times its gradient, sgn(d) |d|^(p-1) / |d|_p^(p-1), constant."""
    return _length(x1 - x2 + eps, p, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The distance of each row of the first to each row of the second, as `pairwise_distance`."""
    return _length(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, keepdim=False)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The distance of each row to each later row."""
    rows, others = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _length(input[rows] - input[others], p, keepdim=False)


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The length of a difference, all of its entries in one row."""
    return _length((input - other).flatten(), p, keepdim=False)


def _length(difference: Tensor, p: float, keepdim: bool) -> Tensor:
    if difference.shape[-1] == 1 and p > 0:  # the length of a number is its magnitude, an activation
        return difference.abs() if keepdim else difference.abs().squeeze(-1)
    # Out of the mode's sight: as a function of the difference, the weight would be a part of an activation.
    with torch.no_grad(), torch._C.DisableTorchFunction():
        length = difference.norm(p, -1, keepdim=True)
        weight = difference.sign() * (difference.abs() / length.clamp_min(torch.finfo(length.dtype).tiny)).pow(p - 1)
    result: Tensor = (difference * weight).sum(-1, keepdim)
    return result


def mse_loss(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """(x - y)^2, or its mean or sum."""
    return _reduced((input - target).square(), *args, **kwargs)


def l1_loss(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """|x - y|, or its mean or sum."""
    return _reduced((input - target).abs(), *args, **kwargs)


def _reduced(
    values: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """As the losses of `torch.nn.functional` reduce."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    if weight is not None:
        values = values * weight
    if reduction == "none":
        return values
    if reduction == "mean" and weight is None:
        return values.mean()
    total: Tensor = values.sum()
    return total if weight is None or reduction == "sum" else total / weight.expand_as(values).sum()


def copy(input: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """The values of the second, in the form of the first."""
    return src.to(input).expand_as(input)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """The root of the sum of two squares."""
    both = (input, other) if input.shape == other.shape else torch.broadcast_tensors(input, other)
    length: Tensor = torch.stack(both).norm(dim=0)
    return length


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices, from the left."""
    return reduce(torch.matmul, tensors)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The same, each matrix an argument."""
    return multi_dot(matrices[0] if isinstance(matrices[0], (tuple, list)) else matrices)


def rrelu_with_noise_functional(
    input: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> tuple[Tensor, Tensor]:
    """Randomised leaky ReLU of an exported program."""
    return F.rrelu(input, lower, upper, training), noise


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (1 + input.abs())


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - torch.tanh(input)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """The convolution of its dimension, or its transpose."""
    convolve = getattr(F, f"conv{'_transpose' if transposed else ''}{weight.ndim - 2}d")
    rest = (output_padding, groups, dilation) if transposed else (dilation, groups)
    result: Tensor = convolve(input, weight, bias, stride, padding, *rest)
    return result


def _native_batch_norm_legit_no_training(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, None, None]:
    """Batch norm by the running statistics, with two further results that are never read."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps), None, None


def _native_batch_norm_legit(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, None, None]:
    """Batch norm by running statistics, or by those of the values; `rest` begins with the running ones, if any."""
    if len(rest) == 5:
        return F.batch_norm(input, rest[0], rest[1], weight, bias, *rest[2:]), None, None
    one = input.transpose(0, 1).flatten(1).unsqueeze(0)  # all values of a channel in one place
    normal = F.instance_norm(one, weight=weight, bias=bias, eps=rest[-1])
    return normal.view(input.shape[1], len(input), *input.shape[2:]).transpose(0, 1), None, None


def native_layer_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, None, None]:
    """Layer norm, with two further results that are never read."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps), None, None


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, area: int, group: int, eps: float
) -> tuple[Tensor, None, None]:
    """Group norm, with two further results that are never read."""
    return F.group_norm(input, group, weight, bias, eps), None, None


def _lp_pool(dimensions: int) -> Callable[..., Tensor]:
    average = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[dimensions]

    def lp_pool(
        input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> Tensor:
        """The root of a sum of powers."""
        count = math.prod(per_dimension(kernel_size, dimensions))
        return (average(input.pow(norm_type), kernel_size, stride, 0, ceil_mode) * count).pow(1.0 / norm_type)

    return lp_pool


lp_pool1d, lp_pool2d, lp_pool3d = map(_lp_pool, (1, 2, 3))
