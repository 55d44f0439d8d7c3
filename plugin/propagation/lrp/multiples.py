"""Multiples of a layer's result, as in `0.5 * convolution(x)`: the number is a part of the layer if a batch norm is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from .linear import fold, note_folded

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def settled(mode: RelevancePropagation, value: Tensor) -> Tensor:
    """A multiple of a layer's result as the result of one layer; any other tensor as it is."""
    multiple = mode.note(value).multiple
    produced = None if multiple is None else mode.note(multiple[0]).produced
    if multiple is None or produced is None or mode.is_kept(produced.record):
        return value
    source, factor = multiple
    before = produced.record

    def scaled() -> tuple[Tensor, Tensor | None]:
        factors = before.weight.new_ones(before.linear.channels(source)) * factor
        weight = before.linear.scale_outputs(before.weight, factors)
        return weight, None if before.bias is None else before.bias * factor

    if isinstance(factor, Tensor):  # it may be computed in the forward pass: nothing to keep
        weight, bias = scaled()
    else:
        others = [] if before.bias is None else [before.bias]
        weight, bias = mode.cache.get(before.weight, ("multiple", factor), scaled, others)
    record = before.changed(weight, bias, partial(mode.cache.get, weight))
    result = fold(mode, source, lambda output: output * factor, produced, record)
    note_folded(mode, value, result)
    return result


def folded_into_multiple(
    mode: RelevancePropagation, value: Tensor, into: Callable[[Tensor], Callable[[], Tensor] | None]
) -> Callable[[], Tensor] | None:
    """Computes an operation inside the layer of which a value is a multiple; None if it is no part of it.

    Args:
        mode: the propagation.
        value: the multiple.
        into: the same for a result of a layer.
    """
    multiple = mode.note(value).multiple
    if multiple is None or into(multiple[0]) is None:
        return None

    def run() -> Tensor:
        folding = into(settled(mode, value))
        return value if folding is None else folding()

    return run
