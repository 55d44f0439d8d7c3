"""In-place operations, seen as functions.

`x.relu_()`, `F.relu(x, inplace=True)`, `x += y`, `x[i] = y` and `torch.add(x, y, out=z)` overwrite a tensor that a
backward rule may have saved, or that belongs to the user. The function mode computes their result out of place and
remembers that the overwritten object now stands for it. This module tells which functions overwrite what, and what
computes the same without overwriting.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_AUGMENTED = {
    f"__i{name}__": f"__{name}__"
    for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift matmul".split()
}
# Not arithmetic: they change what a tensor is, not its values.
_NOT_VALUES = {"requires_grad_", "resize_", "resize_as_", "resize_as_sparse_", "set_", "share_memory_", "rename_"}
# `Tensor.bernoulli` reads its probabilities from the tensor that `bernoulli_` overwrites.
_OTHER_MEANING = {"bernoulli_"}
# They change the shape that one object shows, not the memory it shares with others.
_SHAPE_ONLY = {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "detach_"}


@dataclass(frozen=True)
class InPlace:
    """A function that overwrites its first argument.

    Attributes:
        functional: computes the same out of place.
        flag: position of the argument `inplace` that asks for it; None if the function always overwrites.
        writes_values: whether other views of the same memory see the change.
    """

    functional: Callable[..., Any]
    flag: int | None = None
    writes_values: bool = True

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
    name = getattr(function, "__name__", "")
    if name == "__setitem__":
        return InPlace(functional=_on_a_copy(function))
    if name in _AUGMENTED:
        return InPlace(functional=getattr(Tensor, _AUGMENTED[name]))
    if name.endswith("_") and not name.endswith("__") and name not in _NOT_VALUES:
        return InPlace(_out_of_place(function, name.rstrip("_")), writes_values=name not in _SHAPE_ONLY)
    if getattr(function, "__module__", "") == F.__name__:
        parameters = list(inspect.signature(function).parameters)
        if "inplace" in parameters:
            return InPlace(functional=function, flag=parameters.index("inplace"))
    return None


def _out_of_place(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function called `name` where `function` lives: `Tensor.relu` for `Tensor.relu_`."""
    homes = [home for home in (Tensor, torch, F, torch._C._nn) if getattr(home, function.__name__, None) == function]
    found = getattr(homes[0], name, None) if homes and function.__name__ not in _OTHER_MEANING else None
    return found if callable(found) else _on_a_copy(function)


def _on_a_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """For what has no form out of place, such as an assignment: the values of a copy that was overwritten."""

    def written(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy = value.clone()
        function(copy, *args, **kwargs)
        return copy

    return written
