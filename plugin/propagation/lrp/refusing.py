"""Refusals of LRP: operations without a rule, which relevance must not reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...observing import describe, running_module
from ..bypassing import is_signal, unwrapped
from ..calls import Call
from ..kinds import RULED_KINDS, Kind
from ..mode import Propagation
from ..operations import operation_of
from ..tensors import tensors_in
from ..visibility import RULED_NODES, UNSEEN, Graph, Refusal, nodes_of_call

_NO_RULE = (
    "express it in operations that have one, describe it with plugin.operations.register, or pass "
    'unknown="gradient" to use its gradient instead'
)


# Operations whose gradient is no rule of LRP, and those of which it is none if several signals take part.
_OF_ONE = frozenset(
    {*RULED_KINDS, Kind.POINTWISE, Kind.CONTRACTION, Kind.BILINEAR, Kind.QUOTIENT, Kind.FACTORS, Kind.STATISTIC,
     Kind.SOFTMAX, Kind.LOG_SOFTMAX, Kind.COMPOSITE, Kind.UNRULED}
)  # fmt: skip
_OF_SEVERAL = frozenset({Kind.PRODUCT})


class RefusingMode(Propagation):
    """Notes operations without a rule; arguments as for `Propagation`.

    Attributes:
        unknown: "raise" for such operations, or "gradient".
        refusals: the autograd nodes that relevance must not reach, each with the reason.
        handled: the autograd nodes of PyTorch's own through which a rule passes relevance.
    """

    unknown = "raise"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refusals: dict[Any, Refusal] = {}

    def check(self, output: Tensor) -> None:
        """As for other methods; in LRP every operation needs a rule.

        Raises:
            UnseenOperationError: a function read a value that had been overwritten.
            NoRuleError: an operation has no rule, or ran where the function mode does not see it.
        """
        graph = Graph(output, RULED_NODES)
        graph.check_current(self.overwritten, self.began)
        if self.unknown == "raise":
            graph.check_all_ruled(self.refusals, self.handled)

    def unruled(self, output: Tensor) -> list[Refusal]:
        """The operations without a rule that relevance of this output would reach, each once."""
        return Graph(output, RULED_NODES).unruled(self.refusals, self.handled)

    def refuse(self, result: Any, call: Call, remedy: str = "") -> None:
        """Refuse relevance that reaches the results of this call."""
        if self.unknown != "raise":
            return
        refusal = None
        for tensor in tensors_in(result):
            if tensor.requires_grad and tensor.grad_fn is not None:
                if refusal is None:
                    own = remedy or (call.operation.remedy if call.operation is not None else "")
                    layer = describe(self.model, running_module(self.model))
                    refusal = Refusal(call.name, layer, f"{own}, or {_NO_RULE}" if own else _NO_RULE)
                self.refusals[tensor.grad_fn] = refusal

    def _transformed(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call under a transform of `torch.func`, where no rule applies: refused if its gradient is no rule."""
        result, row = super()._transformed(function, args, kwargs), operation_of(function)
        if self.unknown == "raise" and row is not None and row.kind in _OF_SEVERAL | _OF_ONE:
            signals = sum(map(is_signal, tensors_in((args, kwargs))))
            if signals > (row.kind in _OF_SEVERAL):
                for tensor in filter(is_signal, tensors_in(result)):
                    self.refusals[unwrapped(tensor).grad_fn] = Refusal(row.name, "", UNSEEN)
        return result

    def by_autograd(self, call: Call, result: Any) -> Any:
        """The result of a call whose own vector-Jacobian product is the rule, in nodes that else are linear layers'."""
        self.handled.update(nodes_of_call(result, call.signals))
        return result
