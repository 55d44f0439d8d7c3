"""Softmax and attention under LRP: by the gradient of softmax (AttnLRP), or with softmax held constant (CP-LRP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...kernels.pointwise import keeps_no_scores
from ..calls import Call
from .products import weigh_signal

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def softmax(mode: RelevancePropagation, call: Call) -> Any:
    """Softmax, a weight: its gradient, or held constant."""
    if mode.composite.softmax == "constant":
        return call.run().detach()
    result = mode.as_it_is(call)
    mode.noted(result).softmax = True
    return result


def log_softmax(mode: RelevancePropagation, call: Call) -> Any:
    """The log-softmax at the end of a network: the logits below it are explained."""
    result = call.run()
    mode.note_logarithm(call, result)
    mode.refuse(result, call)
    return result


def composite(mode: RelevancePropagation, call: Call) -> Any:
    """The parts of a composite operation, in which softmax and products are seen."""
    if call.name == "scaled_dot_product_attention" and (result := _at_once(mode, call)) is not None:
        return result
    if call.operation is None or call.operation.parts is None:
        return mode.as_it_is(call)
    with mode.seeing():
        return call.operation.parts(*call.args, **call.kwargs)


def _at_once(mode: RelevancePropagation, call: Call) -> Tensor | None:
    """Attention in one call with the result of its parts: half of a product to each factor: 1/2 to V, 1/4 to Q and K.

    PyTorch's one operation keeps no scores. The ledger and recordings need the parts, and so does a call in which
    anything but Q, K and V takes part.
    """
    names = ("query", "key", "value")
    parts = [call.argument(name) for name in names]
    unusual = call.argument("dropout_p", 0.0) or call.argument("enable_gqa", False)
    all_signals = len(call.signals) == 3 and all(any(part is signal for signal in call.signals) for part in parts)
    if mode.account or not keeps_no_scores() or unusual or not all_signals:
        return None
    query, key, value = parts
    if mode.composite.softmax == "constant":
        query, key = query.detach(), key.detach()
    else:
        query, key, value = map(weigh_signal, parts, (1 / 4, 1 / 4, 1 / 2))
    rest = {name: argument for name, argument in call.kwargs.items() if name not in names}
    result: Tensor = call.function(query, key, value, *call.args[3:], **rest)
    return result
