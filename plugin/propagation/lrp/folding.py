"""Operations that become a part of the linear layer before them: batch norm, or a scale and shift per channel.

A constant that is added to a linear layer, one number for each output channel, is its bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.linear import Contraction, Convolution, LinearMap, MatrixProduct, Scaling, along_channels
from ...kernels.tracing import untraced
from ..calls import Call, with_tensors
from ..kinds import Kind
from ..notes import Movements
from ..noting import first_tensor
from ..operations import operation_of
from ..tensors import tensors_in
from .linear import Produced, carry_unchanged, fold, is_signal, linear_layer, note_folded
from .multiples import folded_into_multiple, settled

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def batch_norm(mode: RelevancePropagation, call: Call) -> Any:
    """y * s + t: folded into the layer that produced its input, else a linear layer of its own (epsilon)."""
    given = call.bound()
    input = settled(mode, given["input"])
    weight, bias, mean, variance = map(given.get, ("weight", "bias", "running_mean", "running_var"))
    row, training, eps = call.operation, given.get("training", False), given.get("eps", 1e-5)
    running_mean, running_var = mean, variance
    if training or mean is None or variance is None:  # computed from the batch: nothing to keep
        dims = [0, *range(2, input.ndim)]
        mean, variance = input.detach().mean(dims), input.detach().var(dims, unbiased=False)
    if is_signal(call, weight) or is_signal(call, bias):
        return _scaled_by_signals(mode, call, given)
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
        result = _normalised(mode, call, input, scale, shift)
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


def _scaled_by_signals(mode: RelevancePropagation, call: Call, given: dict[str, Any]) -> Any:
    """A batch norm whose scale or shift is computed from the input, as in adaptive instance norm."""
    swap: dict[int, Tensor | None] = {
        id(given[name]): None for name in ("weight", "bias") if given.get(name) is not None
    }
    with mode.seeing():
        result = call.run_with(swap)
        normal = first_tensor(result)
        for name, combine in (("weight", torch.mul), ("bias", torch.add)):
            if (part := given.get(name)) is not None:
                normal = combine(normal, along_channels(part, normal.ndim))
    return normal if isinstance(result, Tensor) else (normal, *result[1:])


def _normalised(mode: RelevancePropagation, call: Call, input: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
    """A batch norm folded into the layers whose results were moved or joined, as from `(N, T, C)` to `(N, C, T)`."""
    result = input
    for function, constant in ((torch.mul, scale), (torch.add, shift)):
        constant = along_channels(constant, input.ndim)
        mode.noted(constant).owner = mode.owner(call)
        folding = _folding(
            mode, Call(operation_of(function), function, (result, constant), {}, [result], [result, constant])
        )
        if folding is None:
            return None
        result = folding()
    return result


def fold_affine(mode: RelevancePropagation, call: Call) -> Tensor | None:
    """A sum or a product with one constant per channel, folded into the layers before it; None for any other call.

    As the first step of a batch norm written by hand, behind anything else, it is a linear layer of its own.
    """
    (value,) = call.signals
    constants = [tensor for tensor in call.given if tensor is not value]
    if len(constants) != 1 or not set(call.kwargs) <= {"other", "input"} or len(call.args) + len(call.kwargs) != 2:
        return None
    if mode.owner_of(constants[0]) is None:
        return None  # none of the model's parameters or buffers, nor made from one
    folding = _folding(mode, call)
    return _begun(mode, call, value, constants[0]) if folding is None else folding()


def _begun(mode: RelevancePropagation, call: Call, value: Tensor, constant: Tensor) -> Tensor | None:
    """A scale or a shift from a module that keeps running statistics, as a batch norm of its own; None for others."""
    owner = mode.owner_of(constant)
    statistics = [getattr(owner, name, None) for name in ("running_mean", "running_var")]
    if not all(isinstance(statistic, Tensor) for statistic in statistics) or not 1 < value.ndim >= constant.ndim > 0:
        return None
    once = _once(mode, constant, cast(Tensor, statistics[0]).numel())
    aligned = once.view((1,) * (value.ndim - once.ndim) + tuple(once.shape))
    dims = [d for d, size in enumerate(aligned.shape) if size > 1]
    dims = dims or [d for d, size in enumerate(value.shape) if size == 1][:1]  # of one channel
    if len(dims) != 1 or aligned.shape[dims[0]] != value.shape[dims[0]]:
        return None
    if dims != [1]:
        own = aligned.movedim(dims[0], 1)
        mode.noted(own).owner = owner
        with mode.seeing():
            moved = call.run_with({id(value): value.movedim(dims[0], 1), id(constant): own})
            return cast(Tensor, moved.movedim(1, dims[0]))
    signs, ones = _signs(call, constant), torch.ones_like(aligned.flatten())
    if call.operation is not None and call.operation.kind is Kind.SUM:
        scale, shift = signs[0] * ones, signs[1] * aligned.flatten()
    else:
        scale, shift = aligned.flatten().reciprocal() if call.name == "div" else aligned.flatten(), None
    result = linear_layer(mode, call, value, Scaling(), scale, shift, lambda: call.run().detach(), begins=False)
    carry_unchanged(mode, value, result)
    return result


def _signs(call: Call, constant: Tensor) -> tuple[float, float]:
    """Those of the value and of the constant in a sum or a difference."""
    if call.name == "sub" and (call.args[0] if call.args else call.kwargs.get("input")) is constant:
        return -1.0, 1.0
    return {"sub": (1.0, -1.0), "rsub": (-1.0, 1.0)}.get(call.name, (1.0, 1.0))


def _folding(mode: RelevancePropagation, call: Call) -> Callable[[], Tensor] | None:
    """Computes a sum or a product with a constant inside the layers before it; None if it is no part of these."""
    (value,) = call.signals
    (constant,) = (tensor for tensor in call.given if tensor is not value)
    note = mode.note(value)
    if note.produced is not None:
        return _into_layer(mode, call, value, constant, note.produced)
    if note.multiple is not None:
        return folded_into_multiple(mode, value, lambda own: _instead(mode, call, own, constant))
    if (note.moved is None and note.together is None) or constant.ndim == 0 or not constant.is_floating_point():
        return None
    before = value if note.moved is None else note.moved[0]
    multiple = mode.note(before).multiple
    produced = mode.note(before if multiple is None else multiple[0]).produced
    size = before.numel() if produced is None else produced.record.linear.channels(before)
    once = _once(mode, constant, size)
    if once.numel() > size or torch.broadcast_shapes(value.shape, once.shape) != value.shape:
        return None
    with untraced():  # a question of places, whatever the values are
        entries = torch.arange(once.numel(), device=value.device).view(once.shape).expand(value.shape)
    return _into_layers(mode, call, once, value, entries)


def _into_layers(
    mode: RelevancePropagation, call: Call, constant: Tensor, value: Tensor, entries: Tensor
) -> Callable[[], Tensor] | None:
    """Into the layers whose results were moved or joined to a value; `entries` of the constant meet its positions.

    An entry below 0 tells that the constant meets none of this value.
    """
    note = mode.note(value)
    if note.produced is not None:
        linear = note.produced.record.linear
        own = _moved_back(constant, entries, linear, linear.channels(value))
        return None if own is None else _instead(mode, call, value, linear.per_channel(own, value.ndim))
    if note.multiple is not None:
        return folded_into_multiple(mode, value, lambda own: _into_layers(mode, call, constant, own, entries))
    if note.moved is not None:
        return _into_moved(mode, call, constant, value, entries, *note.moved)
    if note.together is None or constant.numel() == 1:  # a number that meets several layers is no bias of each
        return None
    return _into_several(mode, call, constant, value, entries, note.together)


def _into_layer(
    mode: RelevancePropagation, call: Call, value: Tensor, constant: Tensor, produced: Produced
) -> Callable[[], Tensor] | None:
    before = produced.record
    size = before.linear.channels(value)
    channels = _per_output(before.linear, _once(mode, constant, size), value)
    if channels is None or mode.is_kept(before):
        return None
    sign = _signs(call, constant)

    def folded() -> tuple[Tensor, Tensor | None]:
        if call.operation is not None and call.operation.kind is Kind.SUM:
            shift = sign[1] * channels
            weight = before.weight if sign[0] == 1 else -before.weight
            return weight, shift if before.bias is None else sign[0] * before.bias + shift
        scale = channels.reciprocal() if call.name == "div" else channels
        return before.linear.scale_outputs(before.weight, scale), (None if before.bias is None else before.bias * scale)

    def run() -> Tensor:
        if id(constant) in mode.parameters:
            others = [constant, *([] if before.bias is None else [before.bias])]
            weight, bias = mode.cache.get(before.weight, (call.name, sign, id(constant)), folded, others)
        else:  # computed in the forward pass: nothing to keep
            weight, bias = folded()
        record = before.changed(weight, bias, partial(mode.cache.get, weight))
        return fold(mode, value, lambda output: call.run_with({id(value): output}), produced, record)

    return run


def _instead(mode: RelevancePropagation, call: Call, value: Tensor, own: Tensor) -> Callable[[], Tensor] | None:
    """The same operation on another value and its own constant, made from the constant of the call."""
    (signal,) = call.signals
    (constant,) = (tensor for tensor in call.given if tensor is not signal)
    mode.noted(own).owner = mode.owner_of(constant)
    args, kwargs = with_tensors(call.args, call.kwargs, {id(signal): value, id(constant): own})
    return _folding(mode, Call(call.operation, call.function, args, kwargs, [value], [value, own]))


def _into_moved(
    mode: RelevancePropagation,
    call: Call,
    constant: Tensor,
    value: Tensor,
    entries: Tensor,
    before: Tensor,
    movements: Movements,
) -> Callable[[], Tensor] | None:
    def moves(tensor: Tensor) -> Iterator[Tensor]:
        for movement, position in movements:
            tensor = tensors_in(movement.run_with({id(movement.signals[0]): tensor}))[position]
            yield tensor

    with untraced():
        index = torch.arange(1.0, before.numel() + 1, dtype=torch.float64, device=before.device).view(before.shape)
        *_, moved = moves(index)
        *_, negative = moves(-index)
        if not _is_of_one(moved, negative, before.numel()):
            return None
        own = entries.new_full((before.numel(),), -1)
        own[moved.long().flatten() - 1] = entries.flatten()
    folding = _into_layers(mode, call, constant, before, own.view(before.shape))
    if folding is None:
        return None

    def run() -> Tensor:
        folded = folding()
        with mode.seeing():
            results = list(moves(folded))
        passed = [*(movement.signals[0] for movement, _ in movements[1:]), value]
        for earlier, result in zip(passed, results, strict=True):
            note_folded(mode, earlier, result)
        return results[-1]

    return run


def _is_of_one(moved: Tensor, negative: Tensor, count: int) -> bool:
    """Whether each moved value is another one of a layer's `count`: no number beside them, and none repeated."""
    if bool((moved + negative).any()) or not bool(moved.all()):
        return False
    reached = torch.zeros(count + 1, dtype=torch.bool, device=moved.device)
    reached[moved.long()] = True
    return int(reached.sum()) == moved.numel()


def _into_several(
    mode: RelevancePropagation, call: Call, constant: Tensor, value: Tensor, entries: Tensor, joining: Call
) -> Callable[[], Tensor] | None:
    """Into the layers whose results were put together by `cat` or `stack`."""
    arguments = joining.bound()
    parts, dim = list(arguments["tensors"]), arguments.get("dim", 0)
    own = entries.unbind(dim) if joining.name == "stack" else entries.split([part.shape[dim] for part in parts], dim)
    if _are_repeated(mode, parts):
        return None
    foldings = [_into_layers(mode, call, constant, part, each) for part, each in zip(parts, own, strict=True)]

    def run() -> Tensor:
        folded = [folding() for folding in foldings if folding is not None]
        with mode.seeing():
            result: Tensor = joining.function(folded, dim)
        note_folded(mode, value, result)
        return result

    return run if all(foldings) else None


def _are_repeated(mode: RelevancePropagation, parts: Sequence[Tensor]) -> bool:
    """Whether values of one layer stand in several parts: they would be none of the layer's own."""
    counts: dict[int, int] = {}
    for part in parts:
        note = mode.note(part)
        before = part if note.moved is None else note.moved[0]
        counts[id(before)] = counts.get(id(before), 0) + part.numel()
        if counts[id(before)] > before.numel():
            return True
    return False


def _moved_back(constant: Tensor, entries: Tensor, linear: LinearMap, size: int) -> Tensor | None:
    """A constant with one number per output channel; None if there is none, or one number for several channels."""
    with untraced():
        channels = linear.per_channel(torch.arange(size, device=entries.device), entries.ndim).expand(entries.shape)
        channels, entries = channels[entries >= 0], entries[entries >= 0]
        entry = entries.new_zeros(size)
        entry[channels] = entries
        is_number = constant.numel() == 1 and len(channels.unique()) > 1
        if is_number or not torch.equal(entry[channels], entries):
            return None
    return constant.detach().flatten()[entry]


def _once(mode: RelevancePropagation, constant: Tensor, size: int) -> Tensor:
    """A constant without its repetitions: a bias expanded to the output, a class token for each example.

    Args:
        mode: the propagation.
        constant: of the model.
        size: how many numbers are left at least.
    """
    is_parameter, constant = id(constant) in mode.parameters, constant.detach()
    for d in range(constant.ndim) if not is_parameter else ():
        if constant.shape[d] == 1 or constant.numel() // constant.shape[d] < size:
            continue
        first = constant.narrow(d, 0, 1)
        with untraced():
            if constant.stride(d) == 0 or torch.equal(constant, first.expand_as(constant)):
                constant = first
    return constant


def _per_output(linear: LinearMap, constant: Tensor, output: Tensor) -> Tensor | None:
    """A constant as one number for each output channel of a layer; None if it has another shape."""
    size = linear.channels(output)
    if not constant.is_floating_point() or constant.ndim > output.ndim or constant.ndim == 0:
        return None
    shape = linear.per_channel(constant.new_zeros(size), output.ndim).shape
    aligned = (1,) * (output.ndim - len(shape)) + tuple(shape)
    own = (1,) * (output.ndim - constant.ndim) + tuple(constant.shape)
    if any(a != b and b != 1 for a, b in zip(aligned, own, strict=True)) or (constant.numel() == 1 and size > 1):
        return None
    return constant.view(own).expand(aligned).reshape(-1)


def _scales_its_channels(linear: LinearMap, output: Tensor) -> bool:
    """Whether a batch norm's channels (dimension 1) are the layer's output channels; for sequences they are not."""
    if isinstance(linear, Contraction):
        return linear.dimensions == (1,)
    return isinstance(linear, Convolution | Scaling) or (isinstance(linear, MatrixProduct) and output.ndim == 2)
