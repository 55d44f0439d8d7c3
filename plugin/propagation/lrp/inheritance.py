"""Notes on the operands of an operation that also hold for its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from ..calls import Call, first_by_position
from ..kinds import Kind
from ..moving import Movement
from ..notes import NOTHING
from ..shapes import shape_of
from ..tensors import tensors_in
from .carriers import carry_on

if TYPE_CHECKING:
    from .mode import RelevancePropagation


# Operations that keep a mixture of constants one.
_JOINING = frozenset({"cat", "concat", "concatenate", "stack"})
# Operations that may multiply by a number, and how many operands those that do have.
_MULTIPLYING = frozenset({Kind.SUM, Kind.PRODUCT, Kind.QUOTIENT, Kind.POINTWISE})
_OPERANDS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1}
_MIXING = frozenset({Kind.MOVEMENT, Kind.SUM, Kind.LINEAR, Kind.PRODUCT, Kind.QUOTIENT, Kind.DROPOUT})


def inherit(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Copy the notes on the operands to the result, where they hold."""
    row = call.operation
    layers = (Kind.LINEAR, Kind.SAMPLING)
    of_layer = isinstance(result, Tensor) and (mode.note(result).produced or mode.note(result).moved)
    if row is None or (row.kind in layers and of_layer):
        return  # a sum or a deformable convolution that is a linear layer
    weight, non_negative, softmax, carried, known = True, row.keeps_signs, True, False, False
    mixes, mixture = row.kind in _MIXING, 0
    for signal in call.signals:
        note = mode.note(signal)
        weight, softmax = weight and note.weight, softmax and note.softmax
        mixes, mixture = mixes and (note.mixture > 0 or note.weight), max(mixture, note.mixture)
        non_negative = non_negative and note.non_negative
        carried, known = carried or note.carrier is not None, known or note is not NOTHING
    mixture = mixture if mixes else 0
    softmax, weight = softmax and (weight or mixture > 0), weight or row.weight
    if softmax and row.kind is Kind.PRODUCT and isinstance(result, Tensor):
        softmax = result.numel() == call.signals[0].numel()  # else it is spread over a kernel, as one of a mixture
    non_negative = row.non_negative or (non_negative and _keeps_signs(mode, call))
    if weight or non_negative or mixture:
        for tensor in tensors_in(result)[: 1 if row.kind is Kind.STATISTIC else None]:
            if tensor.requires_grad:
                noted = mode.noted(tensor)
                noted.weight, noted.softmax = noted.weight or weight, noted.softmax or softmax
                count = max(1, *(signal.numel() for signal in call.signals))
                noted.mixture = mixture * max(1, tensor.numel() // count)
                noted.non_negative = noted.non_negative or non_negative
    if carried:
        _note_mean(mode, call, result)
        carry_on(mode, call, result)
    if row.keeps_order and isinstance(result, Tensor) and (scaled := mode.note(call.signals[0]).scaled) is not None:
        mode.noted(result).scaled = scaled
    if row.kind in (Kind.DROPOUT, Kind.MOVEMENT) and not row.own:
        if known:
            _inherit_layer(mode, call, result)
        _inherit_zeros(mode, call, result)
    elif known and row.kind in _MULTIPLYING:
        _note_multiple(mode, call, result)


def begin_at(mode: RelevancePropagation, value: Any) -> None:
    """Compute the rest from the tensors of a value, whose relevance is asked for, and not from those before them."""
    for tensor in tensors_in(value):
        note = mode.notes.get(tensor)
        if note is not None:
            note.link = note.moved_link = note.scaled = note.attended = note.function_of = None


def _note_mean(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Note the tensor that means were taken of, possibly moved since: without them it is centred."""
    value, moves = call.signals[0], call.operation is not None and call.operation.kind is Kind.MOVEMENT
    source = mode.note(value).mean_of if moves else value
    if call.name in ("mean", "var_mean", "std_mean") or (moves and source is not None):
        for tensor in tensors_in(result)[-1:]:
            mode.noted(tensor).mean_of = source


def _inherit_layer(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Note the layer before an operation that changes nothing; for one that moves values, the way back to the layer."""
    signal, note = call.signals[0], mode.note(call.signals[0])
    if call.name in _JOINING and len(call.signals) == len(call.given) > 1:
        notes = [mode.note(part) for part in call.signals]
        if all(part.produced or part.moved or part.together for part in notes):
            mode.noted(result).together = call
        return
    moved = note.moved or ((signal, ()) if note.produced or note.together or note.multiple else None)
    if moved is None or result is signal or any(other is not signal for other in call.signals):
        return
    moves = call.operation is not None and call.operation.kind is Kind.MOVEMENT
    for position, tensor in enumerate(tensors_in(result)):
        if tensor.dtype != signal.dtype:
            continue
        noted = mode.noted(tensor)
        if note.produced is not None and tensor.shape == signal.shape and _keeps_places(call):
            noted.produced, noted.copy_of = note.produced, signal
        elif note.multiple is not None and tensor.shape == signal.shape and _keeps_places(call):
            noted.multiple = note.multiple
        elif moves:
            noted.moved = (moved[0], (*moved[1], (call, position)))


def _inherit_zeros(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Note the zeros that a call puts beside values, or moves with them."""
    signal, beside = call.signals[0], mode.note(call.signals[0]).beside
    if (beside is None and not _puts_zeros(call)) or len(call.signals) > 1 or (call.operation and call.operation.joins):
        return
    shape, before = (signal.shape, None) if beside is None else beside
    args, kwargs = first_by_position(call.args, call.kwargs)
    if args[0] is not signal or (call.name == "as_strided" and not signal.is_contiguous()):
        return
    for position, tensor in enumerate(tensors_in(result)):
        mode.noted(tensor).beside = shape, Movement(call.function, args[1:], kwargs, position, before)


def _puts_zeros(call: Call) -> bool:
    """Whether a call puts zeros around values: padding by zeros, also of the windows that `F.unfold` reads."""
    if call.operation is not None and call.operation.pads:
        arguments = call.bound()
        return arguments.get("mode", "constant") == "constant" and not arguments.get("value")
    if call.function is not F.unfold and call.name != "im2col":  # Tensor.unfold pads nothing
        return False
    padding = call.args[3] if len(call.args) > 3 else call.kwargs.get("padding", 0)
    return any(padding) if isinstance(padding, (tuple, list)) else bool(padding)


def _keeps_signs(mode: RelevancePropagation, call: Call) -> bool:
    """Whether the constants among the operands are not negative."""
    row = call.operation
    others = [tensor for tensor in tensors_in((call.args, call.kwargs)) if not tensor.requires_grad]
    # A summand, its weight, or the values put around the edges.
    numbers = [*call.args, *call.kwargs.values()] if row is not None and row.adds_constants else []
    return not any(tensor.is_floating_point() and not mode.note(tensor).non_negative for tensor in others) and not any(
        isinstance(number, (int, float)) and number < 0
        for number in numbers
        if row is None or row.kind is not Kind.LINEAR
    )


def _note_multiple(mode: RelevancePropagation, call: Call, result: Any) -> None:
    """Note the layer before a multiplication with a number; adding 0 multiplies by 1, as `sum([x])` does."""
    signal, note = call.signals[0], mode.note(call.signals[0])
    if len(call.signals) > 1 or not isinstance(result, Tensor):
        return
    factor = 1.0 if _is_unchanged(mode, signal, result) else _factor(mode, call)
    if factor is None or result is signal or result.dtype != signal.dtype or result.shape != signal.shape:
        return
    if isinstance(factor, float) and factor == 1:
        noted = mode.noted(result)
        noted.produced, noted.moved, noted.multiple = note.produced, note.moved, note.multiple
        noted.copy_of = None if note.produced is None else signal
    elif note.multiple is not None or note.produced is not None:
        source, earlier = note.multiple or (signal, 1.0)
        mode.noted(result).multiple = source, earlier * factor


def _is_unchanged(mode: RelevancePropagation, signal: Tensor, result: Tensor) -> bool:
    """Whether a pointwise function changes no number, such as a clamp at bounds far away."""
    link = mode.note(result).link
    if link is None or not link.affine or link.root is not signal:
        return False
    shape = shape_of(link.step, signal.ndim)
    return shape is not None and shape.identity


def _factor(mode: RelevancePropagation, call: Call) -> float | Tensor | None:
    """The number, or tensor of one number, that a call multiplies its signal by; None if it does something else."""
    if len(call.args) != _OPERANDS.get(call.name) or call.kwargs:
        return None
    if call.name == "neg":
        return -1.0
    first, second = call.args
    swapped = first is not call.signals[0]
    number = _number(mode, first if swapped else second)
    if call.name in ("add", "sub"):
        adds_nothing = isinstance(number, float) and number == 0
        return 1.0 if adds_nothing and not (swapped and call.name == "sub") else None
    if number is None or (isinstance(number, float) and number == 0) or (swapped and call.name == "div"):
        return None
    return number if call.name == "mul" else 1 / number


def _number(mode: RelevancePropagation, operand: Any) -> float | Tensor | None:
    if not isinstance(operand, Tensor):
        return float(operand) if isinstance(operand, (int, float)) else None
    number = mode.note(operand).number
    if number is not None:
        return float(number)
    return operand.detach().flatten() if operand.numel() == 1 and operand.is_floating_point() else None


def _keeps_places(call: Call) -> bool:
    """Whether a movement to the same shape moves nothing."""
    if call.name == "__getitem__":
        index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        return all(entry is Ellipsis or entry == slice(None) for entry in index if not isinstance(entry, Tensor)) and (
            not any(isinstance(entry, Tensor) for entry in index)
        )
    return call.operation is not None and (call.operation.keeps_order or call.operation.identity)
