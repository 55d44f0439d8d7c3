"""Norms under LRP: linear in the signal, as the deviation is held constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.linear import along_channels
from ...kernels.pointwise import normalised
from ..calls import Call

if TYPE_CHECKING:
    from .mode import RelevancePropagation


class NormalisationLayer(torch.autograd.Function):
    """y = (x - mean) / deviation over the last dimensions, linear in x as the deviation is held constant.

    The backward pass is (m - mean of m) / deviation. The mean is linear, so only the deviation is kept.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, dims: list[int], epsilon: float, centre: bool = True) -> Tensor:
        result, inverse = normalised(value, dims, epsilon, centre)
        ctx.save_for_backward(inverse)
        ctx.dims, ctx.centre = dims, centre
        return result

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        scaled = multiplier * inverse.to(multiplier.dtype)
        below = scaled - scaled.mean(ctx.dims, keepdim=True) if ctx.centre else scaled
        return below, None, None, None


def norm(mode: RelevancePropagation, call: Call) -> Any:
    """Layer, RMS, group and instance norm, and `F.normalize`."""
    return _NORMS[call.name](mode, call)


def _layer_norm(mode: RelevancePropagation, call: Call) -> Tensor:
    value, shape = call.argument("input"), call.argument("normalized_shape")
    normal = NormalisationLayer.apply(value, list(range(-len(shape), 0)), call.argument("eps", 1e-5), True)
    return _affine(mode, normal, call.argument("weight"), call.argument("bias"))


def _rms_norm(mode: RelevancePropagation, call: Call) -> Tensor:
    value, epsilon = call.argument("input"), call.argument("eps")
    epsilon = torch.finfo(value.dtype).eps if epsilon is None else epsilon
    shape = call.argument("normalized_shape")
    normal = NormalisationLayer.apply(value, list(range(-len(shape), 0)), epsilon, False)
    return _affine(mode, normal, call.argument("weight"), None)


def _group_norm(mode: RelevancePropagation, call: Call) -> Tensor:
    value = call.argument("input")
    grouped = value.reshape(value.shape[0], call.argument("num_groups"), -1)
    normal = NormalisationLayer.apply(grouped, [-1], call.argument("eps", 1e-5)).reshape(value.shape)
    return _affine(mode, normal, *(_per_channel(mode, call.argument(name), value.ndim) for name in ("weight", "bias")))


def _instance_norm(mode: RelevancePropagation, call: Call) -> Tensor:
    value, mean = call.argument("input"), call.argument("running_mean")
    weight, bias, epsilon = call.argument("weight"), call.argument("bias"), call.argument("eps", 1e-5)
    if not call.argument("use_input_stats", True) and mean is not None:
        with mode.seeing():
            return F.batch_norm(value, mean, call.argument("running_var"), weight, bias, False, 0.0, epsilon)
    normal = NormalisationLayer.apply(value, list(range(2, value.ndim)), epsilon)
    return _affine(mode, normal, *(_per_channel(mode, part, value.ndim) for part in (weight, bias)))


def _normalize(mode: RelevancePropagation, call: Call) -> Tensor:
    value, p, dim = call.argument("input"), call.argument("p", 2.0), call.argument("dim", 1)
    least = call.argument("eps", 1e-12)
    if not mode.note(value).weight:
        result: Tensor = value / value.detach().norm(p, dim, keepdim=True).clamp_min(least)
        return result
    with mode.seeing():  # shares of weights are weights; of exponentials, a softmax
        sums = p == 1 and mode.note(value).non_negative
        length = value.sum(dim, keepdim=True) if sums else value.norm(p, dim, keepdim=True)
        result = value / length.clamp_min(least)
    return result


def _affine(mode: RelevancePropagation, normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """normal * weight + bias; the bias absorbs relevance and is seen by the ledger. Both may be signals."""
    if weight is not None and not weight.requires_grad:
        normal, weight = normal * weight, None
    with mode.seeing():
        scaled = normal if weight is None else normal * weight
        return scaled if bias is None else scaled + bias


def _per_channel(mode: RelevancePropagation, values: Tensor | None, ndim: int) -> Tensor | None:
    if values is None:
        return None
    with mode.seeing():
        return along_channels(values, ndim)


_NORMS = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "normalize": _normalize,
}
