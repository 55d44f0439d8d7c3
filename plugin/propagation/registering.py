"""Rows for operations of your own: operators of `torch.library`, functions that launch kernels, classes of modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import OptionError
from .kinds import Kind, Operation
from .operations import BY_FUNCTION, MODULES, operation_of, packet_of

# Kinds of a user's operations that are differentiated by their own gradient.
OWN_GRADIENT = (Kind.LINEAR, Kind.MOVEMENT, Kind.SELECTION)
_OWN_KINDS = (Kind.ACTIVATION, Kind.COMPOSITE, *OWN_GRADIENT)


def register(
    target: Callable[..., Any] | type[nn.Module],
    kind: Kind,
    parts: Callable[..., Any] | None = None,
    **facts: Any,
) -> Operation:
    """Add a row for an operation of your own, for this process.

    Args:
        target: the operation: a function that handles `torch.overrides`, an operator of `torch.library` (the result of
            `custom_op`, or `torch.ops.mine.swish`), or a class of modules, without its subclasses.
        kind: its kind. `Kind.ACTIVATION` for a pointwise function of one tensor, which is differentiated by autograd
            where its derivative is needed. `Kind.LINEAR` for an operation that is linear in its signals,
            `Kind.MOVEMENT` for one that moves values, and `Kind.SELECTION` for one that chooses among them: these three
            have their own gradient. `Kind.COMPOSITE` for anything that `parts` can express.
        parts: with `Kind.COMPOSITE`: a function that computes the same in PyTorch's operations, with the same
            arguments; for a class of modules the module comes first.
        facts: other attributes of `Operation`, such as `non_negative=True` if no entry of the result is negative.

    Returns:
        The row; `unregister` takes it back.

    Raises:
        OptionError: the kind needs `parts`, or is not available to an operation of your own.

    >>> import torch
    >>> from torch import nn
    >>> from plugin import operations
    >>> from plugin.attr import LRPTranspose
    >>> class Gate(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.sigmoid(x)
    >>> row = operations.register(Gate, operations.Kind.COMPOSITE, parts=lambda gate, x: nn.functional.silu(x))
    >>> model = nn.Sequential(nn.Linear(3, 4), Gate(), nn.Linear(4, 2))
    >>> LRPTranspose(model).attribute(torch.randn(5, 3), target=1).shape
    torch.Size([5, 3])
    >>> operations.unregister(row)
    """
    if kind not in _OWN_KINDS or (kind is Kind.COMPOSITE) != (parts is not None):
        names = ", ".join(f"Kind.{one.name}" for one in _OWN_KINDS)
        raise OptionError(f"kind = {kind}: choose one of {names}; Kind.COMPOSITE takes parts=, and no other does")
    target = packet_of(target)
    # With the module that defines it: the engine knows functions of PyTorch by their bare names.
    is_operator = isinstance(target, torch._ops.OpOverloadPacket)
    name = str(target) if is_operator else f"{target.__module__}.{getattr(target, '__name__', type(target).__name__)}"
    row = Operation(name, kind, (target,), parts=parts, contains_activations=True, own=True, **facts)
    if isinstance(target, type):
        MODULES[target] = row
    else:
        BY_FUNCTION[target] = row
        operation_of.cache_clear()
    return row


def unregister(row: Operation) -> None:
    """Remove a row that `register` added; one that has been replaced meanwhile stays.

    Args:
        row: the row that `register` returned.

    >>> import torch
    >>> from plugin import operations
    >>> row = operations.register(torch.special.bessel_j0, operations.Kind.ACTIVATION)
    >>> operations.unregister(row)
    """
    for table in (MODULES, BY_FUNCTION):
        for target in row.functions:
            if row.own and table.get(target) is row:
                del table[target]
    operation_of.cache_clear()
