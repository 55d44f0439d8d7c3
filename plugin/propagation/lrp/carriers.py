"""The way of relevance that is no multiple of the input from the first linear layer to the inputs.

Flat, w^2 and z^B give relevance to zeros, too. A zero-valued tensor beside each input, its carrier, takes it. Each
operation before the first layer has a counterpart on the carrier: an affine step on one tensor, an activation or a norm
passes relevance unchanged; a movement moves it; resizing and pooling pass it in the proportion of their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..calls import Call
from ..kinds import Kind
from ..moving import reached
from ..tensors import tensors_in

if TYPE_CHECKING:
    from .mode import RelevancePropagation

_UNCHANGED = frozenset(
    {
        Kind.ACTIVATION,
        Kind.POINTWISE,
        Kind.SUM,
        Kind.PRODUCT,
        Kind.QUOTIENT,
        Kind.NORM,
        Kind.DROPOUT,
        Kind.MASK,
    }
)
_PROPORTIONAL = frozenset({Kind.SUM, Kind.LINEAR, Kind.SAMPLING})
_CHOICES = frozenset({Kind.SELECTION, Kind.MAX_POOLING, Kind.MASK})


class _Chosen(torch.autograd.Function):
    """The carrier of the values that an operation chose: relevance goes to the chosen."""

    @staticmethod
    def forward(ctx: Any, call: Call, signals: list[Tensor], position: int, *carriers: Tensor) -> Tensor:
        ctx.save_for_backward(*signals)
        ctx.call, ctx.keys, ctx.position = call, [id(signal) for signal in signals], position
        held = {id(signal): signal.detach() for signal in signals}
        return torch.zeros_like(tensors_in(call.run_with(held))[position])

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            values = {
                key: signal.detach().requires_grad_() for key, signal in zip(ctx.keys, ctx.saved_tensors, strict=True)
            }
            result = tensors_in(ctx.call.run_with(values))[ctx.position]
        return None, None, None, *torch.autograd.grad(result, list(values.values()), relevance)


def carry_on(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Give the results of an operation the carriers to which their relevance passes on."""
    kind = call.operation.kind if call.operation is not None else None
    results = [tensor for tensor in tensors_in(result) if tensor.requires_grad]
    if kind is None or not results:
        return
    signals = _weighed(mode, call, list({id(signal): signal for signal in call.signals}.values()))
    if kind is Kind.SUM and all(mode.note(signal).is_zero for signal in signals):
        mode.noted(results[0]).function_of = _origin(mode, signals[0])
        return
    carriers: list[Tensor] | None = None
    if _chooses(call, signals):
        own = [mode.note(signal) for signal in signals]
        parts = [note.carrier for note in own if note.carrier is not None]
        if len(parts) == len(own) and (len(own) == 1 or all(note.covered is None for note in own)):
            carriers = [_Chosen.apply(call, signals, position, *parts) for position in range(len(results))]
    elif len(signals) == 1 and kind in _UNCHANGED and call.name != "assignment":
        carrier, shape = mode.note(signals[0]).carrier, results[0].shape
        if carrier is not None and len(results) == 1 and _stretches(carrier.shape, shape):
            carriers = [_laid_out(carrier.expand(shape), results[0])]  # it takes the relevance of this result alone
    elif kind is Kind.MOVEMENT or kind in _PROPORTIONAL or call.name == "assignment":
        carriers = _through(mode, call, signals, proportional=kind in _PROPORTIONAL)
    if carriers is None or len(carriers) != len(results):
        return
    covered = _covered(mode, call, signals, results)
    for position, (tensor, carrier) in enumerate(zip(results, carriers, strict=True)):
        noted = mode.noted(tensor)
        noted.carrier, noted.covered = carrier, None if covered is None else covered[position]
        noted.function_of = _origin(mode, signals[0]) if kind in _UNCHANGED and len(signals) == 1 else None
        noted.is_zero = kind is Kind.PRODUCT and _is_zero(mode, call)


def _is_zero(mode: RelevancePropagation, call: Call) -> bool:
    """Whether a product has a factor 0, as to begin a state of a recurrence: then it has no relevance in a sum."""
    numbers = (value for value in (*call.args, *call.kwargs.values()) if isinstance(value, (int, float)))
    return any(value == 0 for value in numbers) or any(mode.note(signal).is_zero for signal in call.signals)


def _chooses(call: Call, signals: list[Tensor]) -> bool:
    """Whether each result is one of the values; of a mask and a constant the values stay where they are."""
    if call.operation is None or call.name == "assignment":
        return False
    kind = call.operation.kind
    return kind in _CHOICES and (kind is not Kind.MASK or len(signals) > 1 or len(call.given) == 1)


def _origin(mode: RelevancePropagation, signal: Tensor) -> Tensor | None:
    """The carrier of the tensor that a signal is a function of, such as its own."""
    note = mode.note(signal)
    return note.carrier if note.function_of is None else note.function_of


def _weighed(mode: RelevancePropagation, call: Call, signals: list[Tensor]) -> list[Tensor]:
    """One of functions of one tensor; the signal that is centred, or that weights divide or multiply; else all signals.

    So a norm written by hand is one step, as PyTorch's own.
    """
    kind = call.operation.kind if call.operation is not None else None
    first, whole = _origin(mode, signals[0]), all(mode.note(signal).covered is None for signal in signals)
    if kind in _UNCHANGED and whole and all(_origin(mode, signal) is first for signal in signals):
        rest = [signal for signal in signals if not (mode.note(signal).carrier is None or mode.note(signal).is_zero)]
        return (rest or signals)[:1]  # functions of one tensor
    if kind in (Kind.PRODUCT, Kind.QUOTIENT):
        rest = [signal for signal in signals if not (mode.note(signal).weight or mode.note(signal).statistic)]
    elif kind is Kind.SUM and len(signals) == 2:
        rest = [s for s in signals if all(mode.note(s).mean_of is not other for other in signals)]
        rest = [s for s in rest if not mode.note(s).is_zero]
    else:
        return signals
    return rest if len(rest) == 1 else signals


def _stretches(small: torch.Size, large: torch.Size) -> bool:
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(reversed(small), reversed(large), strict=False))


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """The same in the memory order of a tensor of this shape: a view of that tensor is then one of this, too."""
    order = zip(value.shape, value.stride(), like.stride(), strict=True)
    if all(size == 1 or own == other for size, own, other in order):
        return value
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)


def _through(mode: RelevancePropagation, call: Call, signals: list[Tensor], proportional: bool) -> list[Tensor]:
    """The carriers after the operation has moved or mixed them.

    A mixture gives each carrier a share in proportion to the size of its weight. All that arrives is shared: the part
    that goes to layers has been taken away, by `covered`.
    """
    carriers = {id(s): torch.zeros_like(s) if (c := mode.note(s).carrier) is None else c for s in signals}
    if not proportional:
        return [tensor for tensor in tensors_in(call.run_with(carriers)) if tensor.requires_grad]
    covers = {id(signal): _real_cover(mode, signal) for signal in signals}
    parts = _each_alone(call, covers)
    weights = _sizes(parts)
    shares = [torch.zeros_like(weight) for weight in weights]
    nothing = {key: torch.zeros_like(cover) for key, cover in covers.items()}
    for key, signs in parts.items():
        if not carriers[key].requires_grad:
            continue
        mixed = tensors_in(call.run_with(nothing | {key: carriers[key] * covers[key]}))
        mixed = [tensor for tensor in mixed if tensor.requires_grad]
        shares = [
            share + torch.where(sign < 0, -carrier, carrier)
            for share, sign, carrier in zip(shares, signs, mixed, strict=False)
        ]
    return [share / _not_zero(weight) for share, weight in zip(shares, weights, strict=True)]


def _cover(mode: RelevancePropagation, signal: Tensor) -> Tensor:
    """The share that the carrier of a signal leads to the inputs."""
    note = mode.note(signal)
    if note.covered is not None:
        return note.covered
    return torch.zeros_like(signal) if note.carrier is None else torch.ones_like(signal)


def _real_cover(mode: RelevancePropagation, signal: Tensor) -> Tensor:
    """The same without padding: values put beside the signal take no share."""
    note, cover = mode.note(signal), _cover(mode, signal)
    return cover if note.beside is None else cover * reached(*note.beside, signal.device)


def _moved(call: Call, values: dict[int, Tensor]) -> list[Tensor]:
    """A movement or a mixture of these values alone, without the constants that it adds."""
    with torch.no_grad():
        totals = tensors_in(call.run_with(dict(values)))
        nothing = tensors_in(call.run_with({key: torch.zeros_like(value) for key, value in values.items()}))
        return [total - none for total, none in zip(totals, nothing, strict=True) if total.is_floating_point()]


def _at_chosen(call: Call, signals: dict[int, Tensor], values: dict[int, Tensor]) -> list[Tensor]:
    """Values at the places that a call chooses by its signals."""
    with torch.enable_grad():
        held = {key: signal.detach().requires_grad_() for key, signal in signals.items()}
        results = [result for result in tensors_in(call.run_with(held)) if result.requires_grad]
        # The gradient is linear in the signal from above; the derivative by that signal gives the moved values.
        given = [torch.zeros_like(result).requires_grad_() for result in results]
        passed = torch.autograd.grad(results, list(held.values()), given, create_graph=True)
        return list(torch.autograd.grad(passed, given, [values[key].expand_as(held[key]) for key in held]))


def _each_alone(call: Call, values: dict[int, Tensor]) -> dict[int, list[Tensor]]:
    """A mixture of the values >= 0 of each signal, those of the others being 0."""
    nothing = {key: torch.zeros_like(value) for key, value in values.items()}
    return {key: _moved(call, nothing | {key: value}) for key, value in values.items()}


def _sizes(parts: dict[int, list[Tensor]]) -> list[Tensor]:
    """The same of all signals, each by the size of its weight."""
    return [sum(part.abs() for part in each) for each in zip(*parts.values(), strict=True)]


def _not_zero(weight: Tensor) -> Tensor:
    return torch.where(weight == 0, torch.ones_like(weight), weight)


def _covered(
    mode: RelevancePropagation, call: Call, signals: list[Tensor], results: list[Tensor]
) -> list[Tensor] | None:
    """The share of each result that its carrier leads to an input, or to a constant; None if it is 1 everywhere."""
    notes = [mode.note(signal) for signal in signals]
    if all(note.carrier is not None and note.covered is None for note in notes):
        return None
    rest = {id(signal): 1 - _cover(mode, signal) for signal in signals}
    kind = call.operation.kind if call.operation is not None else None
    if _chooses(call, signals):
        return [1 - part for part in _at_chosen(call, {id(signal): signal for signal in signals}, rest)]
    if len(signals) == 1 and kind in _UNCHANGED and call.name != "assignment":
        return [_laid_out(1 - rest[id(signals[0])].expand(results[0].shape), results[0])]
    if kind not in _PROPORTIONAL:
        return [1 - part for part in _moved(call, rest)]
    parts = _sizes(_each_alone(call, rest))
    weights = _sizes(_each_alone(call, {key: torch.ones_like(value) for key, value in rest.items()}))
    return [1 - part / _not_zero(weight) for part, weight in zip(parts, weights, strict=True)]
