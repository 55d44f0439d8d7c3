"""Operations that become a part of the linear layer before them: batch norm, or a scale and shift per channel.

A constant that is added to a linear layer, one number for each output channel, is its bias.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.linear import Contraction, Convolution, LinearMap, MatrixProduct, Scaling
from ...kernels.tracing import untraced
from ..calls import Call
from ..operations import operation_of
from .linear import fold, linear_layer

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def batch_norm(mode: RelevancePropagation, call: Call) -> Any:
    """y * s + t: folded into the layer that produced its input, else a linear layer of its own (epsilon)."""
    given = call.bound()
    input = given["input"]
    weight, bias, mean, variance = map(given.get, ("weight", "bias", "running_mean", "running_var"))
    row, training, eps = call.operation, given.get("training", False), given.get("eps", 1e-5)
    running_mean, running_var = mean, variance
    if training or mean is None or variance is None:  # computed from the batch: nothing to keep
        dims = [0, *range(2, input.ndim)]
        mean, variance = input.detach().mean(dims), input.detach().var(dims, unbiased=False)
    parts = [mode.cache.constant(part) for part in (variance, mean, weight, bias) if part is not None]

    def scale_and_shift() -> tuple[Tensor, Tensor]:
        scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
        return scale, (0.0 if bias is None else bias) - mean * scale

    def normalise(value: Tensor) -> Tensor:
        return F.batch_norm(value, running_mean, running_var, weight, bias, training, given.get("momentum", 0.1), eps)

    key = "batch norm", eps, weight is None, bias is None
    produced = mode.note(input).produced
    if produced is None or not _scales_its_channels(produced.record.linear, input) or mode.is_kept(produced.record):
        scale, shift = mode.cache.get(parts[0], key, scale_and_shift, parts)
        result = _normalised_moved(mode, call, input, scale, shift)
        if result is None:
            # As the first operation, it is an affine step: the first layer comes after it.
            result = linear_layer(mode, call, input, Scaling(), scale, shift, partial(normalise, input.detach()), False)
            carry_unchanged(mode, input, result)
    else:
        before = produced.record

        def folded() -> tuple[Tensor, Tensor]:
            scale, shift = scale_and_shift()
            return before.linear.scale_outputs(before.weight, scale), (
                shift if before.bias is None else shift + before.bias * scale
            )

        others = parts if before.bias is None else [*parts, before.bias]
        new_weight, new_bias = mode.cache.get(before.weight, key, folded, others)
        record = before.changed(new_weight, new_bias, partial(mode.cache.get, new_weight))
        result = fold(mode, input, normalise, produced, record)
    several = row is not None and row.name.startswith("native")
    return (result, None, None) if several else result


def _normalised_moved(
    mode: RelevancePropagation, call: Call, input: Tensor, scale: Tensor, shift: Tensor
) -> Tensor | None:
    """A batch norm folded into a layer whose result was moved, as from `(N, T, C)` to `(N, C, T)`, if it can be."""
    result: Tensor | None = input
    for function, constant in ((torch.mul, scale), (torch.add, shift)):
        moved = None if result is None else mode.note(result).moved
        if result is None or moved is None or moved[0].numel() != input.numel() or _is_kept(mode, moved[0]):
            return None  # values that are repeated, as by an interpolation, are none of the layer's own
        constant = constant.view(-1, *(1,) * (input.ndim - 2))
        mode.noted(constant).owner = mode.owner(call)
        step = Call(operation_of(function), function, (result, constant), {}, [result], [result, constant])
        result = _fold_moved(mode, step, constant, *moved)
    return result


def _is_kept(mode: RelevancePropagation, output: Tensor) -> bool:
    produced = mode.note(output).produced
    return produced is None or mode.is_kept(produced.record)


def fold_affine(mode: RelevancePropagation, call: Call, scales: bool) -> Tensor | None:
    """A sum or a product with one constant per channel, folded into the layer; None for any other call."""
    (value,) = call.signals
    note = mode.note(value)
    produced = note.produced
    constants = [tensor for tensor in call.given if tensor is not value]
    if note.moved is not None and len(constants) == 1:
        return _fold_moved(mode, call, constants[0], *note.moved)
    if produced is None or len(constants) != 1 or not set(call.kwargs) <= {"other", "input"}:
        return None
    if mode.owner_of(constants[0]) is None:
        return None  # none of the model's parameters or buffers, nor made from one
    before = produced.record
    channels = _per_output(before.linear, _of_one_example(mode, constants[0], before.linear, value), value)
    if channels is None or mode.is_kept(before) or len(call.args) + len(call.kwargs) != 2:
        return None
    sign = {"sub": (1.0, -1.0), "rsub": (-1.0, 1.0)}.get(call.name, (1.0, 1.0))
    if call.name == "sub" and (call.args[0] if call.args else call.kwargs.get("input")) is constants[0]:
        sign = (-1.0, 1.0)

    def folded() -> tuple[Tensor, Tensor | None]:
        if not scales:
            shift = sign[1] * channels
            weight = before.weight if sign[0] == 1 else -before.weight
            return weight, shift if before.bias is None else sign[0] * before.bias + shift
        scale = channels.reciprocal() if call.name == "div" else channels
        size = before.linear.channels(value)
        return before.linear.scale_outputs(before.weight, scale.expand(size)), (
            None if before.bias is None else before.bias * scale
        )

    if id(constants[0]) in mode.parameters:
        others = [constants[0], *([] if before.bias is None else [before.bias])]
        weight, bias = mode.cache.get(before.weight, (call.name, sign, id(constants[0])), folded, others)
    else:  # computed in the forward pass: nothing to keep
        weight, bias = folded()
    record = before.changed(weight, bias, partial(mode.cache.get, weight))
    return fold(mode, value, lambda output: call.run_with({id(value): output}), produced, record)


def _fold_moved(
    mode: RelevancePropagation, call: Call, constant: Tensor, before: Tensor, movements: tuple[Call, ...]
) -> Tensor | None:
    """Fold into a layer whose result was moved: moved back, the constant has one number per channel."""
    produced = mode.note(before).produced
    if produced is None or constant.ndim == 0 or not constant.is_floating_point():
        return None
    linear, size = produced.record.linear, produced.record.linear.channels(before)
    once = _of_one_example(mode, constant, linear, before)
    if once.numel() != size:
        return None

    def move(tensor: Tensor) -> Tensor:
        for movement in movements:
            tensor = movement.run_with({id(movement.signals[0]): tensor})
        return tensor

    with untraced():  # a question of places, whatever the values are
        channels = linear.per_channel(torch.arange(size, device=constant.device), before.ndim)
        places = move(channels.expand(before.shape))
        if torch.broadcast_shapes(places.shape, once.shape) != places.shape:
            return None
        entries = torch.arange(size, device=constant.device).view(once.shape).expand(places.shape)
        entry = torch.zeros_like(channels).flatten()
        entry[places] = entries
        if not torch.equal(entry[places], entries):
            return None
    own = once.detach().flatten()[entry]
    aligned = linear.per_channel(own, before.ndim)
    mode.noted(aligned).owner = mode.owner_of(constant)
    with mode.seeing():
        folded = call.run_with({id(call.signals[0]): before, id(constant): aligned})
        for movement in movements:
            folded = movement.run_with({id(movement.signals[0]): folded})
    return cast(Tensor, folded)


def _of_one_example(mode: RelevancePropagation, constant: Tensor, linear: LinearMap, output: Tensor) -> Tensor:
    """A constant that the model repeats for each example, such as a class token, as it is for a batch of one."""
    is_parameter, constant, count = id(constant) in mode.parameters, constant.detach(), len(output)
    if is_parameter or count == 1 or constant.numel() != count * linear.channels(output) or len(constant) != count:
        return constant
    with untraced():
        alike = torch.equal(constant, constant[:1].expand_as(constant))
    return constant[:1] if alike else constant


def _per_output(linear: LinearMap, constant: Tensor, output: Tensor) -> Tensor | None:
    """A constant as one number for each output channel of a layer; None if it has another shape."""
    size = linear.channels(output)
    if not constant.is_floating_point() or constant.ndim > output.ndim or constant.ndim == 0:
        return None
    shape = linear.per_channel(constant.new_zeros(size), output.ndim).shape
    aligned = (1,) * (output.ndim - len(shape)) + tuple(shape)
    own = (1,) * (output.ndim - constant.ndim) + tuple(constant.shape)
    if constant.numel() not in (1, size) or any(a != b and b != 1 for a, b in zip(aligned, own, strict=True)):
        return None
    if constant.numel() == 1 and size > 1:
        return None
    return constant.reshape(-1)


def carry_unchanged(mode: RelevancePropagation, value: Tensor, result: Tensor) -> None:
    """Pass relevance that a first layer gives to zeros through an affine step on one tensor unchanged."""
    note = mode.note(value)
    if note.carrier is not None:
        noted = mode.noted(result)
        noted.carrier, noted.covered = note.carrier, note.covered


def _scales_its_channels(linear: LinearMap, output: Tensor) -> bool:
    """Whether a batch norm's channels (dimension 1) are the layer's output channels; for sequences they are not."""
    if isinstance(linear, Contraction):
        return linear.channel == 1
    return isinstance(linear, Convolution) or (isinstance(linear, MatrixProduct) and output.ndim == 2)
