"""Pointwise operations under LRP: activations, and operations that are not part of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...observing import describe, running_module
from ..activation import Activation
from ..bypassing import next_number, nodes_from
from ..calls import Call
from ..kinds import Kind
from ..noting import first_tensor
from ..pointwise import Reading
from ..reading import OF_SEVERAL, is_share
from ..tensors import map_tensors
from . import folding, linear, products
from .activations import ActivationLayer

if TYPE_CHECKING:
    from .mode import RelevancePropagation

_PIECEWISE_LINEAR = frozenset({"relu", "leaky_relu", "prelu", "rrelu"})


def activation(mode: RelevancePropagation, operation: Activation, call: Call | None, reading: Reading) -> Any:
    """R unchanged; a ReLU directly after a layer is a part of it."""
    if reading.remedy and call is not None:
        result = mode.as_it_is(call)
        mode.refuse(result, call, reading.remedy)
        products.note_share(mode, call, result)
        return result
    result = _activated(mode, operation)
    if operation.weight or operation.non_negative:
        noted = mode.noted(result)
        noted.weight, noted.non_negative = operation.weight, operation.non_negative
    if operation.name in ("leaky_relu", "prelu") and mode.note(operation.input).non_negative:
        mode.noted(result).non_negative = True
    return result


def _activated(mode: RelevancePropagation, operation: Activation) -> Tensor:
    layer = mode.note(operation.input).produced if operation.name == "relu" else None
    if layer is not None:
        # The layer remembers max(y, 0), which the next one reads anyway, in place of y.
        before = layer.record
        record = before.changed(before.weight, before.bias, before.cached, rectified=True)
        return linear.fold(mode, operation.input, operation.function, layer, record)
    if operation.name in _PIECEWISE_LINEAR:
        return operation.function(operation.input)
    if not mode.account:
        result: Tensor = ActivationLayer.apply(operation.input, operation, mode.repeated)
        return result
    # At x = 0 relevance cannot be passed as a multiple of x: where f(0) is not 0, it stays here.
    place = describe(mode.model, running_module(mode.model))
    absorption = mode.trail.absorption(f"{operation.name or 'activation'} in {place}")
    result = ActivationLayer.apply(absorption.watch_signal(operation.input), operation, mode.repeated)
    absorption.watch_result(result)
    return result


def otherwise(mode: RelevancePropagation, call: Call) -> Any:
    """A pointwise operation that is no activation: a sum, a product, a choice."""
    kind = None if call.operation is None else call.operation.kind
    if kind is Kind.STEP and call.signals and not call.signals[0].is_complex():
        return map_tensors(Tensor.detach, call.run())
    length = call.name == "abs" and call.signals and call.signals[0].is_complex()
    if not call.signals or length or kind in (Kind.MOVEMENT, Kind.MASK):
        return mode.as_it_is(call)
    if kind is Kind.SUM:
        folded = folding.fold_affine(mode, call) if len(call.signals) == 1 else None
        return mode.as_it_is(call) if folded is None else folded
    if kind is Kind.PRODUCT:
        return products.product(mode, call)
    if kind is Kind.ACTIVATION and len(call.signals) > 1:
        result = mode.as_it_is(call)
        mode.refuse(result, call, f"it has {OF_SEVERAL}")
        return result
    return products.quotient(mode, call) if kind is Kind.QUOTIENT else mode.unknown_operation(call)


def of_statistic(mode: RelevancePropagation, call: Call, compute: Callable[[Call], Any]) -> Any:
    """A function of a sum of squares, such as a root or its reciprocal, is a weight; explained itself, an activation.

    `compute` computes calls that divide no signal.
    """
    kind = None if call.operation is None else call.operation.kind
    if kind is Kind.QUOTIENT and len(call.signals) > 1 and not is_share(mode, call):
        return otherwise(mode, call)
    weighs = kind is Kind.POINTWISE or call.name == "rdiv"
    reading = mode.pointwise.read(call, of_statistic=True) if len(call.signals) == 1 else Reading()
    if not weighs:
        result = compute(call)
    elif kind is Kind.POINTWISE and reading.activation is not None and not reading.remedy:
        reading.activation.value = first_tensor(call.run()).detach()
        result = activation(mode, reading.activation, call, reading)
    else:
        result = compute(call)
        mode.refuse(result, call)
    if isinstance(result, Tensor):
        mode.note_link(reading, result)
    if weighs:
        noted = mode.noted(first_tensor(result))
        noted.weight = noted.statistic = True
        noted.plain = partial(mode.plainly, call)
    return result


def softmax_by_hand(mode: RelevancePropagation, call: Call) -> Tensor:
    """A weight: its gradient, or held constant, like a softmax."""
    if mode.composite.softmax == "constant":
        return mode.plainly(call).detach()
    began = next_number()
    if not mode.account:
        result = mode.plainly(call)
    else:
        mode.watch = absorption = mode.trail.absorption(f"softmax in {describe(mode.model, mode.owner(call))}")
        try:
            result = mode.plainly(call)
        finally:
            mode.watch = None
        absorption.watch_result(result)
    mode.handled.update(nodes_from(result.grad_fn, began=began))  # such as those of exp(s) @ ones
    noted = mode.noted(result)
    noted.weight = noted.softmax = noted.non_negative = noted.exponential = True
    # Read once more, it is no part of the account; else the call would keep the exponentials alive.
    noted.plain = partial(mode.plainly, call) if mode.account else lambda: result
    return result
