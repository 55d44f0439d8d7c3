"""Products, quotients and statistics under LRP, by the sort of each factor.

signal * constant       linear
signal * weight         all relevance to the signal
signal * signal         half to each
signal / weight         the same as times its reciprocal; a statistic as a divisor is a weight
signal / total          the same, for a sum of values that are not negative, of which each takes its share
signal / activation     the same as times its reciprocal, if that is finite, such as 1 / (1 + |b|)
number / signal         has no meaning, unless it is a part of an activation
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..calls import Call, exponent_of
from ..kinds import Kind
from ..letters import own_entries, sums_with
from ..tensors import hooked, tensors_in
from .exponentials import by_total
from .folding import fold_affine

if TYPE_CHECKING:
    from .mode import RelevancePropagation

_DIVISOR = "a signal divides: explain the values before the division, or hold the divisor constant with detach()"


def weigh_signal(tensor: Tensor, weight: float) -> Tensor:
    """The same tensor; the signal that passes it is multiplied by `weight`."""
    return hooked(tensor, lambda signal: signal if signal is None else signal * weight)


def product(mode: RelevancePropagation, call: Call) -> Any:
    """a * b, of two or more factors, element by element or summed."""
    if len(call.signals) == 1:
        return _scaled(mode, call)
    if (attention := by_total(mode, call)) is not None:
        return attention
    elementwise = call.operation is not None and call.operation.kind is Kind.PRODUCT
    notes = [mode.note(signal) for signal in call.signals]
    # Attention sums over the weighted values: there, AttnLRP gives the softmax its half.
    weights = [
        note.weight and (elementwise or not note.softmax or not sums_with(call, signal))
        for signal, note in zip(call.signals, notes, strict=True)
    ]
    if not any(note.weight for note in notes):
        weights = [
            note.mixture > 0 and ((note.softmax and not elementwise) or _is_kernel(call, signal, note.mixture))
            for signal, note in zip(call.signals, notes, strict=True)
        ]
    held = {} if all(weights) else {id(s): s for s, is_weight in zip(call.signals, weights, strict=True) if is_weight}
    return shared(call, held)


def _is_kernel(call: Call, mixture: Tensor, mixed: int) -> bool:
    """Whether a factor is a matrix for each set of weights that mixed it, as a kernel is."""
    return 1 < own_entries(call, mixture) <= mixed


def is_nothing(mode: RelevancePropagation, call: Call) -> bool:
    """Whether a factor is zeros, such as the first state of a recurrence, or a weight is multiplied by the number 0.

    A signal times the number 0 stays a signal, to which nothing passes: so a state can begin that gates are to meet.
    """
    if any(mode.note(tensor).number == 0 for tensor in call.given):
        return True
    weights = bool(call.signals) and all(mode.note(signal).weight for signal in call.signals)
    return weights and any(isinstance(factor, (int, float)) and factor == 0 for factor in call.args)


def shared(call: Call, held: Mapping[int, Tensor] = MappingProxyType({})) -> Any:
    """Each factor takes its share, except those that are held constant."""
    signals = [signal for signal in call.signals if id(signal) not in held]
    share = 1 / len(signals)
    swap = {id(signal): signal if share == 1 else weigh_signal(signal, share) for signal in signals}
    return call.run_with(swap | {identity: weight.detach() for identity, weight in held.items()})


def _scaled(mode: RelevancePropagation, call: Call) -> Any:
    """One factor is constant."""
    (signal,) = call.signals
    if call.operation is not None and call.operation.kind is Kind.PRODUCT:
        folded = fold_affine(mode, call)
        if folded is not None:
            return folded
    result = call.run()
    others = [tensor for tensor in call.given if tensor is not signal]
    if len(others) == 1 and others[0].ndim and mode.owner_of(others[0]) is not None and isinstance(result, Tensor):
        mode.noted(result).scaled = (signal, others[0])
    return result


def factors(mode: RelevancePropagation, call: Call) -> Any:
    """The product of n values along a dimension: a share of 1 / n to each."""
    (signal,), result = call.signals, call.run()
    return weigh_signal(result, result.numel() / signal.numel())


def quotient(mode: RelevancePropagation, call: Call) -> Any:
    """a / b."""
    dividend, divisor = call.argument("input"), call.argument("other")
    if not any(divisor is signal for signal in call.signals):
        folded = fold_affine(mode, call) if len(call.signals) == 1 and call.name == "div" else None
        return call.run() if folded is None else folded
    if (attention := by_total(mode, call)) is not None:
        return attention
    note = mode.note(divisor)
    if note.softmax and not note.statistic and isinstance(dividend, Tensor) and mode.note(dividend).softmax:
        return mode.as_it_is(call)  # shares of a softmax are a softmax, of which less than all was chosen
    if any(dividend is signal for signal in call.signals) and (note.weight or note.statistic or note.total):
        return call.run_with({id(divisor): divisor.detach()})
    if mode.pointwise.divisor(call) is not None:
        with mode.seeing():  # the reciprocal completes an activation, such as 1 / (1 + |b|)
            return dividend * divisor.reciprocal()
    result = call.run()
    mode.refuse(result, call, _DIVISOR)
    note_share(mode, call, result)
    return result


def note_share(mode: RelevancePropagation, call: Call, result: Tensor) -> None:
    """Note that the reciprocal of a total, or of its root, is a weight: it scales each value to its share."""
    divides = call.name in ("rdiv", "reciprocal", "rsqrt") or (exponent_of(call) or 0) < 0
    if divides and all(mode.note(signal).total for signal in call.signals):
        mode.noted(result).weight = True


def statistic(mode: RelevancePropagation, call: Call) -> Any:
    """A variance, a deviation or a length; explained itself, it gives each value in proportion to its square."""
    result = mode.as_it_is(call)
    if call.name.startswith("var"):  # of degree 2, like a product of two factors
        halved = call.run_with({id(signal): weigh_signal(signal, 0.5) for signal in call.signals})
        result = halved if isinstance(result, Tensor) else type(result)((halved[0], result[1]))
    notes = [mode.note(signal) for signal in call.signals]
    for tensor in tensors_in(result)[:1]:
        noted = mode.noted(tensor)
        noted.weight = noted.statistic = noted.non_negative = True
        if all(note.plain is not None for note in notes):
            noted.plain, noted.exponential = partial(mode.plainly, call), all(note.exponential for note in notes)
    return result
