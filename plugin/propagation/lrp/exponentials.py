"""Attention by hand, whose product comes before its division: `(exp(a) @ v) / exp(a).sum(-1, keepdim=True)`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..calls import Call
from ..letters import letters

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def note_attention(mode: RelevancePropagation, call: Call, result: Any) -> Any:
    """Note a product of exponentials and values, from which attention by hand begins."""
    if isinstance(result, Tensor) and any(_is_exponential(mode, signal) for signal in call.signals):
        mode.noted(result).attended = call
    return result


def by_total(mode: RelevancePropagation, call: Call) -> Any:
    """`exp(a) @ v` by the sum of the exponentials, or times its reciprocal: softmax by v; None for any other call."""
    if len(call.given) != 2:
        return None
    for product, total in (call.given, call.given[::-1]):
        attended = mode.note(product).attended
        if attended is None or not mode.note(total).statistic:
            continue
        for exponential in filter(partial(_is_exponential, mode), attended.signals):
            if _is_total(attended, exponential, total):
                with mode.seeing():
                    return attended.run_with({id(exponential): call.run_with({id(product): exponential})})
    return None


def _is_exponential(mode: RelevancePropagation, tensor: Tensor) -> bool:
    note = mode.note(tensor)
    return note.exponential and not note.statistic


def _is_total(call: Call, exponential: Tensor, total: Tensor) -> bool:
    """Whether a divisor of a product is one number for each sum over exponentials."""
    written = letters(call)
    if written is None or total.ndim != exponential.ndim:
        return False
    tensors, indices, output = written
    index = next(index for tensor, index in zip(tensors, indices, strict=True) if tensor is exponential)
    return len(index) == len(output) and all(
        letter == place or (letter not in output and size == 1)
        for letter, place, size in zip(index, output, total.shape, strict=True)
    )
