"""Tensors among arguments, and a side table tied to tensors: an entry lives exactly as long as its tensor."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

Value = TypeVar("Value")
# Most arguments of most calls are one of these, and hold no tensor.
PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.Size})


class _Reference(weakref.ref[Tensor]):
    """A weak reference that knows the key of its entry."""

    __slots__ = ("key",)
    key: int


class TensorTable(Generic[Value]):
    """Values by tensor identity.

    A tensor's Python object is kept by the autograd graph for as long as the graph needs the tensor, and never
    changes identity meanwhile. A weak reference to it therefore ends when nothing can ask for the tensor any more. The
    entry is dropped then, which keeps the table from holding activations (and from meeting a reused `id`).
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[_Reference, Value]] = {}
        # A weak reference: the table itself would be part of a cycle, and live on until the garbage collector runs.
        table = weakref.ref(self)

        def forget(reference: _Reference) -> None:
            found = table()
            if found is not None:
                found._entries.pop(reference.key, None)

        self._forget = forget

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        reference = _Reference(tensor, self._forget)
        reference.key = id(tensor)
        self._entries[reference.key] = (reference, value)

    def get(self, tensor: Tensor) -> Value | None:
        """The value noted for this tensor object, or None."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry is not None else None

    def values(self) -> list[Value]:
        """The values noted for all tensors."""
        return [value for _, value in self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries, in order."""
    # Called for every operation of a model: twenty times faster than the general tree functions of PyTorch.
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ():
        kind = type(item)
        if kind is Tensor or kind is Parameter:
            found.append(item)
        elif kind is tuple:
            for entry in item:  # strides, paddings and the like hold numbers only
                if type(entry) is not int:
                    found += tensors_in(item)
                    break
        elif kind not in PLAIN:
            found += tensors_in(item)
    return found


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with every tensor in it, however nested, replaced; the same object where nothing changed."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        changed: list[Any] | None = None
        for position, item in enumerate(value):
            if type(item) in PLAIN:
                continue
            result = function(item) if isinstance(item, Tensor) else map_tensors(function, item)
            if result is item:
                continue
            if changed is None:
                changed = list(value)
            changed[position] = result
        if changed is None:
            return value
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if isinstance(value, dict) and value:
        return {key: item if type(item) in PLAIN else map_tensors(function, item) for key, item in value.items()}
    return value


def hooked(tensor: Tensor, hook: Callable[[Tensor], Any]) -> Tensor:
    """The same tensor: the signal from readers of this object passes the hook, that of other readers does not."""
    alias = tensor.view_as(tensor)
    alias.register_hook(hook)
    return alias
