"""Pointwise arithmetic of the rules: the stabiliser, the ratio f(x) / x, and norms with their deviation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .blocks import in_blocks
from .tracing import is_tracing

STABILISER = 1e-6


def stabilise(denominator: Tensor, epsilon: float = STABILISER, out: Tensor | None = None) -> Tensor:
    """d + eps * sgn(d) with sgn(0) = +1.

    Args:
        denominator: d, of any shape.
        epsilon: eps, >= 0.
        out: the tensor of the result; by default a new one.

    >>> import torch
    >>> from plugin.rules import stabilise
    >>> stabilise(torch.tensor([2.0, 0.0, -2.0]), epsilon=0.5)
    tensor([ 2.5000,  0.5000, -2.5000])
    """
    # A number on the CPU is passed with the call; a number on a GPU would have to be copied there first.
    device = denominator.device if denominator.is_cuda and is_tracing() else "cpu"
    size = torch.scalar_tensor(epsilon, dtype=denominator.dtype, device=device)
    # Two passes over memory instead of four.
    return torch.copysign(size, denominator, out=out).add_(denominator)


# Where a tensor is larger, arithmetic on it takes longer than its launch.
_LAUNCH = 1 << 20


def waits_for_launches(value: Tensor) -> bool:
    """Whether arithmetic on a tensor takes as long as its launch, and may be done with that of other tensors."""
    return (
        not value.is_cpu
        and value.numel() <= _LAUNCH
        and value.dtype in (torch.float32, torch.float64)
        and not is_tracing()
    )


def stabilised_quotients(values: Sequence[Tensor], epsilons: Sequence[float]) -> Sequence[Tensor]:
    """d / (d + eps * sgn(d)) for several tensors d, each with its eps > 0, in three launches on a GPU."""
    quotients = torch._foreach_abs([*values])  # the same, as |d| / (|d| + eps)
    torch._foreach_div_(quotients, torch._foreach_add(quotients, epsilons))
    return quotients


def ratio(value: Tensor, result: Tensor, slope: Tensor | float, *factors: Tensor) -> Tensor:
    """result / value, `slope` where the value is 0, times the factors."""
    if isinstance(slope, Tensor) or is_tracing():
        zero = value == 0
        # There is no division by 0: the derivative of a recorded division would be 0 / 0 there.
        return math.prod(factors, start=torch.where(zero, slope, result / value.masked_fill(zero, 1)))

    def compute(ratio: Tensor, value: Tensor, result: Tensor, *factors: Tensor) -> None:
        # Finite except for 0 / 0, and for f(0) / 0 where f(0) is not 0. A test for zeros takes six times as long.
        torch.div(result, value, out=ratio).nan_to_num_(slope, slope, slope)
        for factor in factors:
            ratio.mul_(factor)

    return in_blocks(compute, value, result, *factors)


def may_have_values(signal: Tensor) -> bool:
    """Whether some value is not zero; True in a recording, which must hold for any values."""
    return is_tracing() or bool(signal.any())


def normalised(value: Tensor, dims: list[int], epsilon: float, centre: bool) -> tuple[Tensor, Tensor]:
    """(x - mean) / deviation over the last dimensions `dims`, and 1 / deviation."""
    if centre and not is_tracing():  # in one pass over memory, and rounded as in the model
        result, _, inverse = torch.native_layer_norm(value, value.shape[dims[0] :], None, None, epsilon)
        return result, inverse
    centred = value - value.mean(dims, keepdim=True) if centre else value
    inverse = (centred.square().mean(dims, keepdim=True) + epsilon).rsqrt()
    return centred * inverse, inverse


def keeps_no_scores() -> bool:
    """Whether attention may run as PyTorch's one operation, which keeps no scores; recordings see its parts."""
    return not is_tracing()
