"""Subclasses of tensors that compute operations in their own way, by `__torch_function__`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UnseenOperationError
from ..observing import describe, running_module

if TYPE_CHECKING:
    from .functional import FunctionalMode


def overriding(kinds: Iterable[Any]) -> tuple[Any, ...]:
    """The subclasses of tensors, among types of arguments, that now compute operations in their own way."""
    if not torch._C._is_torch_function_enabled():
        return ()
    nothing = torch._C._disabled_torch_function_impl
    return tuple(kind for kind in kinds if kind is not Tensor and kind.__torch_function__ is not nothing)


def by_override(
    mode: FunctionalMode,
    function: Callable[..., Any],
    kinds: Sequence[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """A call on tensors of subclasses, which may compute anything: the operations that they call are seen.

    Raises:
        UnseenOperationError: no subclass implements the call.
    """
    with mode.seeing():
        for kind in kinds:
            result = kind.__torch_function__(function, kinds, args, kwargs)
            if result is not NotImplemented:
                return result
    layer, name = describe(mode.model, running_module(mode.model)), getattr(function, "__name__", function)
    raise UnseenOperationError(
        f"{layer} calls {name}, which {' and '.join(kind.__name__ for kind in kinds)} does not implement: convert the "
        "tensor by as_subclass(torch.Tensor)"
    )
