"""Totals: sums of values that are not negative. A value over one is a share, as in `relu(v) / relu(v).sum()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .calls import Call
from .kinds import Kind
from .shapes import shape_of

if TYPE_CHECKING:
    from .reading import ReadingMode

_SUMS = frozenset({"sum", "mean", "nansum", "nanmean"})
_SCALES = frozenset({"mul", "div"})


def note_total(mode: ReadingMode, call: Call, result: Any) -> None:
    """Note a total, and the sums of totals and numbers, or their positive multiples."""
    if not call.signals or not isinstance(result, Tensor) or call.operation is None:
        return
    row = call.operation
    if call.name in _SUMS or row.kind is Kind.CONTRACTION:
        total = all(is_non_negative(mode, tensor) for tensor in call.given)
    elif row.kind is Kind.SUM and call.name == "add":
        total = _are_totals(mode, call) and not any(number < 0 for number in _numbers(call))
    elif call.name in _SCALES and len(call.signals) == 1:
        total = _are_totals(mode, call) and all(number > 0 for number in _numbers(call))
        total = total and not (call.name == "div" and call.args[0] is not call.signals[0])
    else:
        total = (row.identity or row.kind is Kind.POINTWISE) and _are_totals(mode, call) and _keeps(mode, result)
    if total:
        mode.noted(result).total = True


def is_non_negative(mode: ReadingMode, tensor: Tensor) -> bool:
    """Whether a tensor is known to have no negative entry."""
    note = mode.note(tensor)
    if note.non_negative or note.total:
        return True
    link = note.link if note.moved_link is None else note.moved_link.link
    shape = None if link is None or link.join is not None else shape_of(link.step, tensor.ndim)
    return shape is not None and shape.non_negative


def _are_totals(mode: ReadingMode, call: Call) -> bool:
    return all(mode.note(tensor).total for tensor in call.given)


def _keeps(mode: ReadingMode, result: Tensor) -> bool:
    """Whether a function of a total is the total, such as its maximum with a small number."""
    link = mode.note(result).link
    return link is not None and link.affine


def _numbers(call: Call) -> list[float]:
    return [float(value) for value in (*call.args, *call.kwargs.values()) if isinstance(value, (int, float))]
