"""The step between the passes: the rule of each layer, and the observation of other operations for the ledger."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import OptionTypeError
from ...kernels.linear import Convolution, LinearMap, Scaling
from ...observing import describe
from ...rules.composite import CONVOLUTIONS, Layer
from ..calls import Call, with_tensors
from ..tensors import map_tensors, tensors_in
from .quotients import Quotients

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def assign_rules(mode: RelevancePropagation) -> None:
    """Give every layer its rule, now that the forward pass is over."""
    count = len(mode.trail.layers)
    for index, record in enumerate(mode.trail.layers):
        layer = Layer(record.name, record.module, index, count, record.reads_input, layer_class(record.linear))
        own = mode.layer_rules.get(record.module)
        if own is None and (outside := mode.module_rules.get(record.module)) is not None:
            raise OptionTypeError(
                f"{outside} of layer {describe(mode.model, record.module)} is called where the model calls the "
                "layer; here its weight is used without that: call the layer, or pass rules=Composite(...)"
            )
        record.rule = own or mode.composite.rule_for(layer)
    if mode.composite.first is not None and not any(record.reads_input for record in mode.trail.ruled):
        warnings.warn(
            f"no linear layer reads the inputs, so that the rule for the first one, {mode.composite.first}, was not "
            "used: more than affine steps, resizing, padding and movements stands before the first layer",
            stacklevel=5,
        )
    for before, record in reversed(mode.trail.superseded):
        before.rule = record.rule
    quotients = Quotients(mode.trail.outputs) if mode.trail.outputs else None
    mode.trail.outputs.clear()
    for record in mode.trail.passed:
        record.account, record.repeated, record.quotients = mode.account, mode.repeated, quotients


def layer_class(linear: LinearMap) -> type[nn.Module] | None:
    """See `Layer.operation`."""
    if isinstance(linear, Scaling):
        return None
    if isinstance(linear, Convolution):
        plain, transposed = CONVOLUTIONS[:3], CONVOLUTIONS[3:]
        return (transposed if linear.transposed else plain)[len(linear.stride) - 1]
    return nn.Linear


def run_watched(mode: RelevancePropagation, call: Call) -> Any:
    """The plain call, which records the relevance that it keeps."""
    absorption = mode.trail.absorption(f"{call.name.strip('_')} in {describe(mode.model, mode.owner(call))}")
    aliases = {id(signal): absorption.watch_signal(signal) for signal in call.signals}
    args, kwargs = with_tensors(call.args, call.kwargs, aliases)
    result = mode.plain(call.function, args, kwargs)
    given = {id(aliases[id(signal)]): signal for signal in call.signals}
    for tensor in tensors_in(result):
        if tensor.requires_grad and id(tensor) not in given:
            absorption.watch_result(tensor)
    # Dropout in eval mode returns its argument.
    return map_tensors(lambda tensor: given.get(id(tensor), tensor), result)
