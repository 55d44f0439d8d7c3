"""Refusals of LRP: operations without a rule, which relevance must not reach."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...observing import describe, running_module
from ..calls import Call
from ..mode import Propagation
from ..tensors import tensors_in
from ..visibility import RULED_NODES, Graph, Refusal, nodes_of_call

_NO_RULE = (
    "express it in operations that have one, describe it with plugin.operations.register, or pass "
    'unknown="gradient" to use its gradient instead'
)


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

    def by_autograd(self, call: Call, result: Any) -> Any:
        """The result of a call whose own vector-Jacobian product is the rule, in nodes that else are linear layers'."""
        self.handled.update(nodes_of_call(result, call.signals))
        return result
