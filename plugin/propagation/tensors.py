"""A side table tied to tensors: what is noted of a tensor lives exactly as long as the tensor."""

import weakref
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class TensorTable(Generic[Value]):
    """Values by tensor identity.

    A tensor's Python object is kept by the autograd graph for as long as the graph needs the tensor, and never
    changes identity meanwhile, so a weak reference to it ends when nothing can ask for the tensor any more. The entry
    is dropped then, which keeps the table from holding activations (and from meeting a reused `id`).
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        key, entries = id(tensor), self._entries
        entries[key] = (weakref.ref(tensor, lambda _: entries.pop(key, None)), value)

    def get(self, tensor: Tensor) -> Value | None:
        """The value noted for this very tensor object, or None."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry is not None else None

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
