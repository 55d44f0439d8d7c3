"""Subclasses of tensors."""

from typing import Any

from torch import Tensor


class Plain(Tensor):
    """Has nothing of its own."""


class Unwrapping(Tensor):
    """Returns plain tensors."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result.as_subclass(Tensor) if isinstance(result, cls) else result
