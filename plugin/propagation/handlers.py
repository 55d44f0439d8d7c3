"""The handler of each kind of operation, where activations, layers and pooling may have rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import parts
from .activation import Activation
from .calls import first_by_position
from .convolution import parse_convolution
from .joining import Joined, picks
from .kinds import POINTWISE_KINDS, Kind, Operation
from .moving import note_moved
from .noting import first_tensor
from .pooling import parse_pooling
from .tensors import map_tensors, tensors_in

if TYPE_CHECKING:
    from .mode import Propagation

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
# Operations that find positions from values.
_PLACES = frozenset({"nonzero", "argwhere", "argmax", "argmin", "argsort", "one_hot"})
# Sums that may multiply an operand with a number.
_SCALED = {"add": parts.scaled_add, "sub": parts.scaled_sub}
_WRITING = frozenset({"masked_scatter", "scatter", "index_fill", "index_copy"})


def _parsed(
    mode: Propagation,
    parse: Callable[..., Any],
    row: Operation,
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    mode.pointwise.forget()
    operation = parse(row, function, args, kwargs)
    if operation is None or type(operation) not in mode.rules or not operation.input.requires_grad:
        return mode.plain(function, args, kwargs)
    return mode.rules[type(operation)](operation)


def _check_weight(
    mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse a kernel or matrix that the model computed from the signal by comparison; most are parameters."""
    weight = args[1] if args[1:] else kwargs.get("weight")
    if type(weight) is not nn.Parameter:
        mode.check_masks(mode.call_of(row, function, args, kwargs))


def _convolution(
    mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _check_weight(mode, row, function, args, kwargs)
    return _parsed(mode, parse_convolution, row, function, args, kwargs)


def _max_pooling(
    mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if args and isinstance(args[0], Tensor) and mode.pointwise.varies(args[0]):
        mode.chosen(mode.call_of(row, function, args, kwargs))  # refuses a choice between functions of one tensor
    return _parsed(mode, parse_pooling, row, function, args, kwargs)


def _batch_norm(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call, unchanged; its signal is returned in the memory order of its input.

    PyTorch's gradient on a CPU is wrong if both lie in one piece, but in different orders: it reads one in the order of
    the other. This happens where strides leave the order open, as for one example, or for images one pixel high.
    """
    result = mode.plain(function, args, kwargs)
    value, output = args[0] if args else kwargs["input"], first_tensor(result)
    if value.is_cpu and output.requires_grad:
        if value.is_contiguous():
            output.register_hook(Tensor.contiguous)
        elif (order := _CHANNELS_LAST.get(value.ndim)) and value.is_contiguous(memory_format=order):
            output.register_hook(partial(Tensor.contiguous, memory_format=order))
    return result


def _composite(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The parts of an operation, if activations may be among them."""
    if Activation not in mode.rules or row.parts is None or not row.contains_activations:
        return mode.plain(function, args, kwargs)
    with mode.seeing():
        return row.parts(*args, **kwargs)


def _created(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = mode.plain(function, args, kwargs)
    number = row.created(args, kwargs)
    if number is not None and isinstance(result, Tensor):
        mode.noted(result).number = number
    if row.name in _PLACES:
        mode.note_places(row.name, tensors_in((args, kwargs))[0], result)
    return result


def _moved(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A movement: the notes on values also hold for the moved values."""
    args, kwargs = first_by_position(args, kwargs)
    source = args[0] if args else None
    if Activation not in mode.rules:
        return mode.plain(function, args, kwargs)
    if type(source) in (list, tuple) and (row.joins or len(mode.notes)):
        result, call = mode.plain(function, args, kwargs), mode.call_of(row, function, args, kwargs)
        if row.joins:
            mode.note_join(call, result)
        else:
            mode.joined(call, result)
        return result
    note = mode.notes.get(source) if isinstance(source, Tensor) else None
    if row.identity and isinstance(source, Tensor) and (source.requires_grad or note is not None):
        return _elementwise(mode, row, function, args, kwargs)
    result = mode.plain(function, args, kwargs)
    if isinstance(source, Tensor) and (not source.requires_grad or isinstance(source, nn.Parameter)):
        # A tensor made of parameters alone is a constant.
        result = map_tensors(Tensor.detach, result) if source.requires_grad else result
        if len(args) > 1 and not row.first_only and (places := tensors_in(args[1:])):
            result = mode.note_lookup(mode.call_of(row, function, args, kwargs), places, result)
    if row.pads:
        mode.note_padding(mode.call_of(row, function, args, kwargs), result)
    if note is None:
        return result
    if note.link is not None or note.moved_link is not None:
        call = mode.call_of(row, function, args, kwargs)
        if not mode.is_gradient and picks(call, mode.is_place) and Joined.of(note) is not None:
            mode.refuse_choice(call)
        note_moved(mode.notes, args, kwargs, function, result)
    if note.mixed is not None:
        mode.note_squares(mode.call_of(row, function, args, kwargs), note.mixed, result)
    if note.selected_by is not None:
        mode.note_selected(result, tensors_in(source))
    if note.statistic or note.total or note.plain is not None or note.number is not None or note.places:
        mode.move_statistic(mode.call_of(row, function, args, kwargs), note, result)
    return result


def _looked_up(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = mode.call_of(row, function, args, kwargs)
    return mode.note_lookup(call, call.given[:1], mode.plain(function, args, kwargs))


def _matrix_product(
    mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _check_weight(mode, row, function, args, kwargs)
    return mode.plain(function, args, kwargs)


def _elementwise(
    mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """An activation, or a part of one: see `chains`."""
    if Activation not in mode.rules:
        return mode.plain(function, args, kwargs)
    if kwargs and "alpha" in kwargs and row.name in _SCALED:
        with mode.seeing():  # a number that an activation is multiplied with belongs to it
            return _SCALED[row.name](*args, **kwargs)
    reading = mode.pointwise.read_activation(row, function, args, kwargs)
    if reading is not None and reading.activation is not None:
        return mode.as_activation(None, reading, reading.activation)
    call = mode.call_of(row, function, args, kwargs)
    if not call.signals and not any(map(mode.pointwise.varies, call.given[:1] if row.first_only else call.given)):
        result = mode.plain(function, args, kwargs)
        return map_tensors(lambda t: t.detach() if t.requires_grad and t.grad_fn is not None else t, result)
    if len(call.given) == 1 and row.name in ("max", "min"):
        return mode.reduced(call, partial(mode.plain, function, args, kwargs))
    return mode.as_read(call)


def _reduction(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sum of squares, magnitudes or exponentials is a statistic."""
    if not len(mode.notes):
        return mode.plain(function, args, kwargs)
    call = mode.call_of(row, function, args, kwargs)
    if row.name in _WRITING:
        mode.warn_of_assignment(call)
    return mode.reduced(call, partial(mode.weighed, call))


def _norm(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`F.normalize` divides by a sum, as a softmax does; other norms keep their gradient."""
    if row.name != "normalize" or not len(mode.notes):
        return mode.plain(function, args, kwargs)
    return mode.weighed(mode.call_of(row, function, args, kwargs))


def _statistic(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = mode.call_of(row, function, args, kwargs)
    result = mode.chosen(call)
    if result is not None:
        return result
    result = mode.weighed(call)
    for tensor in tensors_in(result)[:1]:  # the first result of var_mean
        mode.noted(tensor).statistic = True
    return result


def _logarithm(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = mode.call_of(row, function, args, kwargs)
    result = mode.chosen(call)
    if result is None:
        result = mode.plain(function, args, kwargs)
        mode.note_logarithm(call, result)
    return result


def _factors(mode: Propagation, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = mode.chosen(mode.call_of(row, function, args, kwargs))
    return mode.plain(function, args, kwargs) if result is None else result


HANDLERS: Mapping[Kind, Callable[..., Any]] = {
    Kind.CREATION: _created,
    Kind.MOVEMENT: _moved,
    Kind.CONVOLUTION: _convolution,
    Kind.MAX_POOLING: _max_pooling,
    Kind.BATCH_NORM: _batch_norm,
    Kind.COMPOSITE: _composite,
    Kind.LINEAR: _reduction,
    Kind.SELECTION: _reduction,
    Kind.CONTRACTION: _reduction,
    Kind.NORM: _norm,
    Kind.STATISTIC: _statistic,
    Kind.LOG_SOFTMAX: _logarithm,
    Kind.FACTORS: _factors,
    Kind.SOFTMAX: _factors,
    Kind.UNRULED: _factors,
    Kind.MATRIX_PRODUCT: _matrix_product,
    Kind.BILINEAR: _matrix_product,
    Kind.EMBEDDING: _looked_up,
} | dict.fromkeys(POINTWISE_KINDS, _elementwise)
