"""No silent fallback: an operation that the function mode cannot see is an error, never a plain gradient."""

import sys
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from .modules import describe

# Backward nodes of the activations in `operations`; hardtanh and threshold may be something else, and are left out.
_ACTIVATION_NODES = frozenset(
    f"{name}Backward"
    for name in "Relu LeakyRelu Elu Celu Gelu Silu Mish Hardswish Softplus RreluWithNoise PreluKernel".split()
)


def check_visible(model: nn.Module) -> None:
    """Refuse models whose operations run outside Python.

    Raises:
        ValueError: a module was scripted, traced or compiled.
    """
    # Looked up, not imported: a process that compiled nothing has no such class, and importing it takes seconds.
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{describe(model, module)} is scripted or traced: its operations cannot be seen, so no rule can be "
                "applied; pass the original Python module"
            )
        if isinstance(module, compiled):
            raise ValueError(
                f"{describe(model, module)} is compiled: its operations cannot be seen, so no rule can be applied; "
                "pass the module that torch.compile was given (model._orig_mod)"
            )


def check_all_handled(output: Tensor, handled: Collection[Any]) -> None:
    """Refuse a graph in which an activation escaped its rule.

    Args:
        output: the tensor that is explained.
        handled: the autograd nodes that rules were applied to.

    Raises:
        RuntimeError: an activation ran where the function mode does not see it, in a scripted function, say.
    """
    pending, met = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in met:
            continue
        met.add(node)
        name = node.name()
        if (name.rstrip("0123456789") in _ACTIVATION_NODES and node not in handled) or "torch::jit" in name:
            raise RuntimeError(
                f"the model computes an activation ({name}) where it cannot be seen: in a scripted or compiled "
                "function, or inside a fused operation such as a recurrent layer; write it with torch.nn.functional"
            )
        pending.extend(function for function, _ in node.next_functions)
