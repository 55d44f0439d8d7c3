"""Products of several factors, a few of which are an activation: `(a * v) * sigmoid(v)` is `a * (v * sigmoid(v))`.

The factors of a product may be written in any order. An activation is computed from all factors that are functions of
one tensor, and from the numbers beside them, as in `0.5 * b * a * (1 + erf(a / sqrt(2)))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .calls import Call
from .operations import operation_of

if TYPE_CHECKING:
    from .notes import Factors
    from .reading import ReadingMode

# Longer products, such as those of a recurrence, are no activation.
_MANY = 8


def note_factors(mode: ReadingMode, call: Call, result: Tensor) -> None:
    """Note the factors of a product of several tensors that vary, and of numbers."""
    factors = [factor for side in _sides(mode, call) for factor in side]
    if 2 <= len(factors) <= _MANY:
        mode.noted(result).factors = tuple(factors)


def regrouped(mode: ReadingMode, call: Call) -> Tensor | None:
    """A product computed in an order in which it has an activation; None for any other product."""
    left, right = _sides(mode, call)
    if not left or not right or len(left) + len(right) < 3:
        return None
    if isinstance(right[0], float) and len(right) == 1:
        return _with_number(mode, left, right[0])
    if isinstance(left[0], float) and len(left) == 1:
        return _with_number(mode, right, left[0])
    for one in left:
        for other in right:
            if isinstance(one, Tensor) and isinstance(other, Tensor) and _is_activation(mode, one, other):
                rest = [factor for factor in (*left, *right) if factor is not one and factor is not other]
                return _product(mode, one, [other, *_numbers_first(rest)])
    return None


def _with_number(mode: ReadingMode, factors: Factors, number: float) -> Tensor | None:
    """The product with a number that belongs to one of the factors, an activation written by hand."""
    owners = [factor for factor in factors if isinstance(factor, Tensor) and mode.pointwise.takes_number(factor)]
    rest = [factor for factor in factors if factor is not owners[0]] if len(owners) == 1 else []
    if number <= 0 or not any(isinstance(factor, Tensor) for factor in rest):
        return None
    return _product(mode, owners[0], [number, *_numbers_first(rest)])


def _sides(mode: ReadingMode, call: Call) -> tuple[Factors, Factors]:
    """The factors of both operands of a product; empty for an operand that is neither a number nor varies."""
    if call.name not in ("mul", "div") or len(call.args) != 2 or call.kwargs:
        return (), ()
    first, second = call.args
    if call.name == "div":
        if not isinstance(second, (int, float)) or second == 0:
            return (), ()
        second = 1 / second
    return _factors(mode, call, first), _factors(mode, call, second)


def _factors(mode: ReadingMode, call: Call, operand: Tensor | float) -> Factors:
    if not isinstance(operand, Tensor):
        return (float(operand),) if isinstance(operand, (int, float)) else ()
    if not any(operand is signal for signal in call.signals) and not mode.pointwise.varies(operand):
        return ()
    return mode.note(operand).factors or (operand,)


def _is_activation(mode: ReadingMode, one: Tensor, other: Tensor) -> bool:
    signals = [tensor for tensor in (one, other) if tensor.requires_grad]
    inner = Call(operation_of(torch.mul), torch.mul, (one, other), {}, signals, [one, other])
    return bool(signals) and mode.pointwise.read(inner).activation is not None


def _numbers_first(factors: list[Tensor | float]) -> list[Tensor | float]:
    return sorted(factors, key=lambda factor: isinstance(factor, Tensor))


def _product(mode: ReadingMode, first: Tensor, factors: list[Tensor | float]) -> Tensor:
    with mode.seeing():
        for factor in factors:
            first = first * factor
    return first
