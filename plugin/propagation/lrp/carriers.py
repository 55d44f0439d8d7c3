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
    def forward(ctx: Any, carrier: Tensor, signal: Tensor, call: Call, position: int) -> Tensor:
        ctx.save_for_backward(signal)
        ctx.call, ctx.position = call, position
        return torch.zeros_like(tensors_in(call.run_with({id(signal): signal.detach()}))[position])

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None, None]:
        (signal,) = ctx.saved_tensors
        with torch.enable_grad():
            value = signal.detach().requires_grad_()
            result = tensors_in(ctx.call.run_with({id(signal): value}))[ctx.position]
        return torch.autograd.grad(result, value, relevance)[0], None, None, None


def carry_on(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Give the results of an operation the carriers to which their relevance passes on."""
    kind = call.operation.kind if call.operation is not None else None
    results = [tensor for tensor in tensors_in(result) if tensor.requires_grad]
    signals = list({id(signal): signal for signal in call.signals}.values())
    if kind is None or not results:
        return
    carriers: list[Tensor] | None = None
    if len(signals) == 1 and kind in _UNCHANGED and call.name != "assignment":
        carrier, shape = mode.note(signals[0]).carrier, results[0].shape
        if carrier is not None and len(results) == 1 and _stretches(carrier.shape, shape):
            carriers = [carrier if carrier.shape == shape else carrier.expand(shape)]
    elif kind is Kind.MOVEMENT or kind in _PROPORTIONAL or call.name == "assignment":
        carriers = _through(mode, call, signals, proportional=kind in _PROPORTIONAL)
    elif kind in _CHOICES and len(signals) == 1:
        carrier = mode.note(signals[0]).carrier
        if carrier is not None:
            carriers = [_Chosen.apply(carrier, signals[0], call, position) for position in range(len(results))]
    if carriers is None or len(carriers) != len(results):
        return
    covered = _covered(mode, call, signals)
    for position, (tensor, carrier) in enumerate(zip(results, carriers, strict=True)):
        noted = mode.noted(tensor)
        noted.carrier, noted.covered = carrier, None if covered is None else covered[position]


def _stretches(small: torch.Size, large: torch.Size) -> bool:
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(reversed(small), reversed(large), strict=False))


def _through(mode: RelevancePropagation, call: Call, signals: list[Tensor], proportional: bool) -> list[Tensor]:
    """The carriers after the operation has moved or mixed them, each share in proportion to its weight."""
    swap = {id(s): torch.zeros_like(s) if (c := mode.note(s).carrier) is None else c for s in signals}
    results = tensors_in(call.run_with(swap))
    results = [tensor for tensor in results if tensor.requires_grad]
    if not proportional:
        return results
    with torch.no_grad():
        totals = tensors_in(call.run_with({id(signal): torch.ones_like(signal) for signal in signals}))
        nothing = tensors_in(call.run_with({id(signal): torch.zeros_like(signal) for signal in signals}))
        weights = [total - none for total, none in zip(totals, nothing, strict=True) if total.is_floating_point()]
        weights = [torch.where(weight == 0, torch.ones_like(weight), weight) for weight in weights]
    return [result / weight for result, weight in zip(results, weights, strict=False)]


def _covered(mode: RelevancePropagation, call: Call, signals: list[Tensor]) -> list[Tensor] | None:
    """1 where the results' carriers lead to an input, 0 elsewhere; None if they do everywhere."""
    notes = [mode.note(signal) for signal in signals]
    if all(note.carrier is not None and note.covered is None for note in notes):
        return None

    def cover(signal: Tensor) -> Tensor:
        note = mode.note(signal)
        if note.covered is not None:
            return note.covered
        return torch.zeros_like(signal) if note.carrier is None else torch.ones_like(signal)

    with torch.no_grad():
        covers = {id(signal): cover(signal) for signal in signals}
        constants = {id(t): torch.ones_like(t) for t in call.given if id(t) not in covers and t.is_floating_point()}
        return tensors_in(call.run_with(covers | constants))
