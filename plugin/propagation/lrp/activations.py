"""The rule of activations: relevance passes unchanged, so the multiplier is m f(x) / x."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...kernels.pointwise import ratio
from ...kernels.tracing import untraced
from ..activation import Activation
from ..chains import Step
from ..shapes import keep
from ..whole import run_module

_slopes: dict[Any, float] = {}


class ActivationLayer(torch.autograd.Function):
    """y = f(x) forwards, m * f(x) / x backwards: relevance passes unchanged."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, activation: Activation, repeated: bool) -> Tensor:
        result = activation.function(value) if activation.value is None else activation.value.detach()
        ctx.save_for_backward(value, result)
        ctx.function, ctx.repeated, ctx.ratio = activation.function, repeated, None
        return result

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor, None, None]:
        if ctx.ratio is not None:
            return multiplier * ctx.ratio, None, None
        value, result = ctx.saved_tensors
        slope = slope_at_zero(ctx.function, value)
        if ctx.repeated:
            ctx.ratio = ratio(value, result, slope)
            return multiplier * ctx.ratio, None, None
        return ratio(value, result, slope, multiplier), None, None


def slope_at_zero(function: Step, like: Tensor) -> Tensor | float:
    """f'(0) if f(0) = 0, else 0, as relevance at x = 0 cannot be written as a multiple of x.

    The result is a tensor if the function differs between values.
    """
    key = function.key
    if key is None:
        return _slope(function, like)
    key = (key, like.dtype, like.device, like.ndim)
    slope = _slopes.get(key)
    if slope is None:  # computed once, as reading a value from a GPU waits for it
        with untraced():
            slope = float(_slope(function.on_numbers, like.new_zeros((1,) * like.ndim)))
        keep(_slopes, key, slope)
    return slope


def _slope(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    with torch.enable_grad():
        # A module may accept only one shape, and only tensors of one shape can be joined.
        whole = isinstance(function, Step) and (function.function is run_module or function.joins)
        shape = like.shape if whole else (1,) * like.ndim
        origin = like.new_zeros(shape, requires_grad=True)
        result = function(origin)
        if result.shape != origin.shape:
            origin = origin.detach().expand_as(result).requires_grad_()
            result = function(origin)
        if not result.requires_grad:  # a constant
            return torch.zeros_like(result)
        (slope,) = torch.autograd.grad(result.sum(), origin)
    # A square root rises without bound at 0; there is no relevance there to pass down.
    return torch.where((result.detach() == 0) & slope.isfinite(), slope, 0.0)
