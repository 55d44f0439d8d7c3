"""In-place operations, seen as functions.

`x.relu_()`, `F.relu(x, inplace=True)`, `x += y`, `x[i] = y` and `torch.add(x, y, out=z)` overwrite a tensor that a
backward rule may have saved, or that belongs to the user. The function mode computes their result out of place and
remembers that the overwritten object now stands for it. This module lists the functions that overwrite an argument, and
their counterparts that do not.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .kinds import Kind, Written
from .operations import operation_of

_AUGMENTED = {
    f"__i{name}__": f"__{name}__"
    for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift matmul".split()
}


@dataclass(frozen=True)
class InPlace:
    """A function that overwrites its first argument.

    Attributes:
        functional: computes the same result out of place.
        flag: position of the argument `inplace` that asks for it; None if the function always overwrites.
        writes_values: whether other views of the same memory see the change.
        differentiated: whether autograd sees it.
    """

    functional: Callable[..., Any]
    flag: int | None = None
    writes_values: bool = True
    differentiated: bool = True

    def requested(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this call overwrites its first argument."""
        if self.flag is None:
            return True
        return bool(args[self.flag] if len(args) > self.flag else kwargs.get("inplace", False))

    def out_of_place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call out of place."""
        if self.flag is None:
            return args, kwargs
        if len(args) > self.flag:
            return (*args[: self.flag], False, *args[self.flag + 1 :]), kwargs
        return args, {**kwargs, "inplace": False}


@lru_cache(maxsize=4096)
def in_place_form(function: Callable[..., Any]) -> InPlace | None:
    """How `function` overwrites its first argument, or None if it never does."""
    name = getattr(function, "__name__", "").split(".")[0]  # without the overload of an operator
    row = operation_of(function)
    if name == "__setitem__":
        return InPlace(functional=Written(function))
    if function == Tensor.data.__set__:  # type: ignore[attr-defined]
        return InPlace(functional=_assigned, differentiated=False)
    if name in _AUGMENTED:
        return InPlace(functional=getattr(Tensor, _AUGMENTED[name]))
    if name.endswith("_") and not name.endswith("__") and (row is None or row.kind is not Kind.STATE):
        if row is not None and row.kind is Kind.CREATION:
            return InPlace(Written(function))
        return InPlace(_out_of_place(function, name.rstrip("_")), writes_values=row is None or not row.shape_only)
    if getattr(function, "__module__", "") == F.__name__:
        parameters = list(inspect.signature(function).parameters)
        if "inplace" in parameters:
            return InPlace(functional=function, flag=parameters.index("inplace"))
    return None


def _assigned(value: Tensor, assigned: Tensor) -> Tensor:
    """`value.data = assigned`."""
    return assigned.detach()


def _out_of_place(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function called `name` in the namespace of `function`: `Tensor.relu` for `Tensor.relu_`."""
    if isinstance(function, torch._ops.OpOverload):
        packet = getattr(torch.ops.aten, name, None)
        found = getattr(packet, function._overloadname, None)
        return found if callable(found) else Written(function)
    homes = [home for home in (Tensor, torch, F, torch._C._nn) if getattr(home, function.__name__, None) == function]
    found = getattr(homes[0], name, None) if homes else None
    return found if callable(found) else Written(function)
