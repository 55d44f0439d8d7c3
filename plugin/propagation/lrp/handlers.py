"""The handler of each kind of operation under LRP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..calls import Call, first_by_position
from ..kinds import POINTWISE_KINDS, Kind
from ..moving import note_moved
from ..tensors import tensors_in
from . import attention, contractions, folding, linear, norms, products

if TYPE_CHECKING:
    from .mode import RelevancePropagation

Handler = Callable[["RelevancePropagation", Call], Any]


def _by_signature(method: Callable[..., Any]) -> Handler:
    """A handler that also receives the call's arguments as its own."""
    return lambda mode, call: method(mode, call, *call.args, **call.kwargs)


def _pointwise(mode: RelevancePropagation, call: Call) -> Any:
    kind = None if call.operation is None else call.operation.kind
    if kind is Kind.PRODUCT and products.is_nothing(mode, call):
        return call.run().detach()
    if kind is Kind.SUM and (difference := contractions.centred(mode, call)) is not None:
        return difference
    if call.operation is not None and kind in (Kind.ACTIVATION, Kind.POINTWISE):
        reading = mode.pointwise.read_activation(call.operation, call.function, call.args, call.kwargs)
        if reading is not None and reading.activation is not None:
            return mode.as_activation(call, reading, reading.activation)
    return _reduced(mode, call) if len(call.given) == 1 and call.name in ("max", "min") else mode.as_read(call)


def _created(mode: RelevancePropagation, call: Call) -> Any:
    result = call.run()
    number = None if call.operation is None else call.operation.created(call.args, call.kwargs)
    if number is not None and isinstance(result, Tensor):
        mode.noted(result).number = number
    return result


def _moved(mode: RelevancePropagation, call: Call) -> Any:
    row = call.operation
    if row is not None and row.identity:
        return mode.as_read(call)
    args, kwargs = first_by_position(call.args, call.kwargs)
    call = replace(call, args=args, kwargs=kwargs) if args is not call.args else call
    result = _rearranged(mode, call)
    source = call.signals[0]
    note = mode.note(source)
    if note.mixed is not None and len(call.signals) == 1:
        mode.note_squares(call, note.mixed, result)
    if note.logits is not None and len(call.signals) == 1:
        with mode.seeing():
            logits = tensors_in(call.run_with({id(source): note.logits}))
        for tensor, below in zip(tensors_in(result), logits, strict=True):
            mode.noted(tensor).logits = below
    if (note.link is not None or note.moved_link is not None) and call.args and call.args[0] is source:
        note_moved(mode.notes, call.args, call.kwargs, call.function, result)
    if row is not None and row.pads:
        mode.note_padding(call, result)
        linear.note_zeros(mode, call, result)
    if row is not None and row.joins and call.args:
        mode.note_join(call, result)
    elif type(call.args[0] if call.args else None) in (list, tuple):
        mode.joined(call, result)
    elif (note.statistic or note.total or note.plain is not None) and len(call.signals) == 1:
        mode.move_statistic(call, note, result)
    return result


def _rearranged(mode: RelevancePropagation, call: Call) -> Any:
    try:
        return mode.as_it_is(call)
    except RuntimeError as error:
        # Under a rule a value may lie in memory in another order than the network's own, of which it takes a view.
        if call.name != "view" or "Use .reshape" not in str(error):
            raise
        return mode.plain(Tensor.reshape, call.args, call.kwargs)


def _reduced(mode: RelevancePropagation, call: Call) -> Any:
    if call.name in _REDUCING and not _MULTIPLYING.isdisjoint(
        value for value in (*call.args, *call.kwargs.values()) if isinstance(value, str)
    ):
        return mode.unknown_operation(call)
    layer = contractions.summed_product(mode, call)
    return mode.reduced(call, partial(mode.as_it_is, call)) if layer is None else layer


def _unless_chosen(handler: Handler) -> Handler:
    """A handler of reductions, except those of functions of one tensor to one."""

    def handle(mode: RelevancePropagation, call: Call) -> Any:
        result = mode.chosen(call)
        return handler(mode, call) if result is None else result

    return handle


def _contracted(mode: RelevancePropagation, call: Call) -> Any:
    return mode.reduced(call, partial(contractions.contraction, mode, call))


def _sampled(mode: RelevancePropagation, call: Call) -> Any:
    """Sampling: linear in one argument; the positions are held constant."""
    value = None if call.operation is None else call.argument(*call.operation.linear_in)
    if not any(value is signal for signal in call.signals):
        return mode.unknown_operation(call)
    if call.name == "deform_conv2d" and not linear.is_signal(call, call.argument("weight")):
        return linear.deformable_convolution(mode, call)
    return call.run_with({id(signal): signal.detach() for signal in call.signals if signal is not value})


# Operations whose argument says how values at one place are combined; those that multiply are not linear.
_REDUCING = frozenset({"scatter", "scatter_reduce", "index_reduce", "segment_reduce"})
_MULTIPLYING = frozenset({"prod", "multiply"})


def _as_it_is(mode: RelevancePropagation, call: Call) -> Any:
    return mode.as_it_is(call)


HANDLERS: Mapping[Kind, Handler] = {
    Kind.QUESTION: _as_it_is,
    Kind.STATE: _as_it_is,
    Kind.CREATION: _created,
    Kind.DROPOUT: _as_it_is,
    Kind.MAX_POOLING: _as_it_is,
    Kind.MOVEMENT: _moved,
    Kind.LINEAR: _reduced,
    Kind.SELECTION: _reduced,
    Kind.CONTRACTION: _contracted,
    Kind.FACTORS: _unless_chosen(products.factors),
    Kind.CONVOLUTION: _by_signature(linear.convolution),
    Kind.TRANSPOSED_CONVOLUTION: _by_signature(linear.transposed_convolution),
    Kind.MATRIX_PRODUCT: _by_signature(linear.matrix_product),
    Kind.BILINEAR: _by_signature(contractions.two_inputs),
    Kind.BATCH_NORM: folding.batch_norm,
    Kind.NORM: norms.norm,
    Kind.STATISTIC: _unless_chosen(products.statistic),
    Kind.SOFTMAX: attention.softmax,
    Kind.LOG_SOFTMAX: _unless_chosen(attention.log_softmax),
    Kind.COMPOSITE: attention.composite,
    Kind.SAMPLING: _sampled,
} | dict.fromkeys(POINTWISE_KINDS, _pointwise)
