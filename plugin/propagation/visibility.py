"""No silent fallback: an operation that the function mode cannot see is an error, never a plain gradient."""

import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, NoRuleError, UnseenOperationError
from ..observing import describe
from .backward import NOT_REENTRANT, REENTRANT
from .bypassing import (
    Overwritten,
    is_earlier,
    is_of_parameters,
    is_users_function,
    nodes_from,
    reads_overwritten,
)
from .kinds import RULED_KINDS, Kind
from .operations import OPERATIONS, registered_modules
from .tensors import tensors_in

# Backward nodes of activations, and of operations that LRP computes by a rule: linear layers, norms, and activations
# that are not piecewise linear. Nodes shared by several kinds of operations, such as hardtanh and clamp, are in
# neither.
ACTIVATION_NODES = frozenset(
    f"{node}Backward" for row in OPERATIONS if row.kind is Kind.ACTIVATION for node in row.nodes
)
_PIECEWISE_LINEAR = ("relu", "leaky_relu", "rrelu", "prelu")
RULED_NODES = frozenset(
    f"{node}Backward"
    for row in OPERATIONS
    if row.kind in RULED_KINDS and row.name not in _PIECEWISE_LINEAR
    for node in row.nodes
)


# The part of a network that is computed once more in the backward pass.
_CHECKPOINT = "CheckpointFunction"
UNSEEN = (
    "write it with torch.nn.functional, instead of in a scripted or compiled function, a torch.autograd.Function or "
    "torch.func.vmap; describe the operation or its module with plugin.operations.register; or pass "
    'unknown="gradient" to use its gradient instead'
)


@dataclass(frozen=True)
class Refusal:
    """An operation that relevance must not reach.

    Attributes:
        operation: its name.
        layer: its layer, as messages name it; empty if the function mode does not see it.
        remedy: the remedy.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> class Logarithm(nn.Module):
    ...     def forward(self, x):
    ...         return x.log()
    >>> (refusal,) = LRPTranspose(nn.Sequential(nn.Linear(4, 3), Logarithm())).check(torch.randn(1, 4)).refusals
    >>> refusal.operation, refusal.layer
    ('log', "'1' (Logarithm)")
    """

    operation: str
    layer: str
    remedy: str

    def __str__(self) -> str:
        if not self.layer:
            return f"the model computes {self.operation} where it cannot be seen: {self.remedy}"
        place = self.layer if self.layer.startswith("the ") else f"layer {self.layer}"
        return f"{self.operation} in {place} has no LRP rule: {self.remedy}"


def check_visible(model: nn.Module) -> None:
    """Refuse models whose operations run outside Python, or that autograd cannot use.

    Raises:
        ModelError: a module was scripted, traced or compiled; a parameter has no shape yet, or is an inference tensor.
    """
    # Looked up, not imported: a process that compiled nothing has no such class, and importing it takes seconds.
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    taken_whole = {module for whole in registered_modules(model) for module in whole.modules()}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) and module not in taken_whole:
            raise ModelError(
                f"{describe(model, module)} is scripted or traced: its operations cannot be seen, so no rule can be "
                "applied; pass the original Python module"
            )
        if isinstance(module, compiled):
            raise ModelError(
                f"{describe(model, module)} is compiled: its operations cannot be seen, so no rule can be applied; "
                "pass the module that torch.compile was given (model._orig_mod)"
            )
        for name, parameter in module.named_parameters(recurse=False):
            if nn.parameter.is_lazy(parameter):
                raise ModelError(
                    f"{name} of {describe(model, module)} has no shape yet: call the model once to initialise it"
                )
            if parameter.is_inference():
                raise ModelError(
                    f"{name} of {describe(model, module)} was made in inference mode, where autograd cannot use it: "
                    "build or load the model outside torch.inference_mode()"
                )


class Graph:
    """Autograd's graph of a tensor, walked once for all checks of it, and by the first that needs it.

    Args:
        output: the tensor that is explained.
        kinds: `ACTIVATION_NODES` or `RULED_NODES`.
    """

    def __init__(self, output: Tensor, kinds: frozenset[str]) -> None:
        self._output, self._kinds = output, kinds

    @cached_property
    def _nodes(self) -> list[Any]:
        return list(nodes_from(self._output.grad_fn))

    @cached_property
    def _suspects(self) -> list[Any]:
        """The nodes of these kinds, those of scripted functions, and those of the user's own."""
        kind: Any = type
        return [node for node in self._nodes if _is_suspect(kind(node), node.name(), self._kinds)]

    def check_all_listed(self, unlisted: Mapping[Any, str]) -> None:
        """Refuse a graph with an operation of PyTorch's that is not in the table: it may be an activation.

        Args:
            unlisted: the nodes of such operations, with the place of each call.

        Raises:
            UnseenOperationError: there is one.
        """
        for node in self._nodes if unlisted else ():
            if node in unlisted:
                raise UnseenOperationError(
                    f"{unlisted[node]}, which is not among the supported operations, so that it is not known whether "
                    "it is an activation: write it with torch.nn.functional, or describe it with "
                    "plugin.operations.register"
                )

    def check_all_handled(self, handled: Collection[Any], foreign: Mapping[Any, str], began: int) -> None:
        """Refuse a graph in which an activation escaped its rule.

        Args:
            handled: the autograd nodes that rules were applied to.
            foreign: the nodes of operators of other libraries, with the place of each call.
            began: the number of autograd's first node of this forward pass; earlier ones are constants.

        Raises:
            UnseenOperationError: an activation ran where the function mode does not see it, such as in a scripted
                function.

        Warns:
            UserWarning: the graph holds a `torch.autograd.Function` of the user's, or an operator of another library,
                whose own backward pass is used.
        """
        said = dict.fromkeys(foreign[node] for node in self._nodes if node in foreign) if foreign else {}
        for node in self._suspects:
            if node in handled or is_earlier(node, began) or is_of_parameters(node):
                continue
            name = node.name()
            if name == f"{_CHECKPOINT}Backward":
                continue  # the backward pass tells of it
            if not is_users_function(type(node)):
                raise UnseenOperationError(
                    f"the model computes an activation ({name}) where it cannot be seen: in a scripted or compiled "
                    "function, in torch.func.vmap, or inside a fused operation such as a recurrent layer; write it "
                    "with torch.nn.functional, for all examples at once"
                )
            said[f"the model calls a torch.autograd.Function ({name.removesuffix('Backward')})"] = None
        for what in said:
            warnings.warn(
                f"{what}, which is differentiated by its own backward pass: if it is an activation, write it with "
                "torch.nn.functional, or describe the operation or its module with plugin.operations.register",
                stacklevel=2,
            )

    def check_current(self, overwritten: Overwritten, began: int) -> None:
        """Refuse a graph in which a call that bypasses the mode reads a value that had been overwritten.

        Args:
            overwritten, began: see `bypassing`.

        Raises:
            UnseenOperationError: there is such a call.
        """
        if not overwritten:
            return
        kind: Any = type
        unseen = [node for node in self._suspects if _is_suspect(kind(node), node.name(), frozenset())]
        unseen += [node for node in self._nodes if node._sequence_nr() < began]
        for node in unseen:
            if reads_overwritten(node, overwritten, began):
                name = _kind(node.name()).removesuffix("Backward")
                raise UnseenOperationError(
                    f"the model calls {name} on a tensor that an operation in place has overwritten, where it cannot "
                    "be seen: in a torch.autograd.Function or in another thread. Give it the result of that "
                    "operation, as in x = x.relu_(), or compute x out of place"
                )

    def unruled(self, refusals: Mapping[Any, Refusal], handled: Collection[Any]) -> list[Refusal]:
        """The operations without a rule that relevance would reach, each once.

        Args:
            refusals: those that the function mode saw, by autograd node; those that it did not see are found here.
            handled: the autograd nodes of PyTorch's own that a rule runs through, such as those of a product of
                signals.
        """
        found = dict.fromkeys(refusals[node] for node in self._nodes if node in refusals) if refusals else {}
        for node in self._suspects:
            name = _kind(node.name()).removesuffix("Backward")
            if name == _CHECKPOINT:
                found[Refusal(REENTRANT, "", NOT_REENTRANT)] = None
            elif node not in handled:
                found[Refusal(name, "", UNSEEN)] = None
        return list(found)

    def check_all_ruled(self, refusals: Mapping[Any, Refusal], handled: Collection[Any]) -> None:
        """Refuse a graph of LRP in which the plain gradient stands in for a rule; arguments as for `unruled`.

        Raises:
            NoRuleError: an operation has no rule, or ran where the function mode does not see it.
        """
        found = self.unruled(refusals, handled)
        if found:
            others = "" if len(found) == 1 else f"; and {len(found) - 1} more: check(inputs) lists them"
            raise NoRuleError(f"{found[0]}{others}")


def nodes_of_call(result: Any, signals: Collection[Tensor]) -> Iterator[Any]:
    """The nodes that a call has added to the graph of the signals that it received."""
    before = {signal.grad_fn for signal in signals}
    for tensor in tensors_in(result):
        yield from nodes_from(tensor.grad_fn, before)


@lru_cache(maxsize=4096)
def _is_suspect(node_type: Any, name: str, kinds: frozenset[str]) -> bool:
    # Hundreds of nodes of a graph are of a few types, each of which is examined once.
    return (
        _kind(name) in kinds or "torch::jit" in name or name == f"{_CHECKPOINT}Backward" or is_users_function(node_type)
    )


def _kind(name: str) -> str:
    return name.rstrip("0123456789")
