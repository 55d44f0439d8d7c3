"""Subclasses of tensors that compute operations in their own way, by `__torch_function__`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UnseenOperationError
from ..observing import describe, running_module
from .tensors import tensors_in

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
    with torch._C.DisableTorchFunctionSubclass():
        for tensor in tensors_in((args, kwargs)):
            _note_alias(mode, tensor)
    for kind in kinds:
        with mode.seeing():
            result = kind.__torch_function__(function, kinds, args, kwargs)
        if result is not NotImplemented:
            with torch._C.DisableTorchFunctionSubclass():
                _note_wrapped(mode, result)
            return result
    layer, name = describe(mode.model, running_module(mode.model)), getattr(function, "__name__", function)
    raise UnseenOperationError(
        f"{layer} calls {name}, which {' and '.join(kind.__name__ for kind in kinds)} does not implement: convert the "
        "tensor by as_subclass(torch.Tensor)"
    )


def _note_wrapped(mode: FunctionalMode, result: Any) -> None:
    """Let a result that was given the type of a subclass, which is not seen, be the tensor that was computed last."""
    for computed, wrapped in zip(tensors_in(mode.unread), tensors_in(result), strict=False):
        base = wrapped._base if computed is not wrapped else None
        if base is not None and base is (computed if computed._base is None else computed._base):
            _pass_on(mode, computed, wrapped)


def _note_alias(mode: FunctionalMode, tensor: Tensor) -> None:
    """Let an argument that was given the type of a subclass, which is not seen, be the tensor that it was."""
    node, base = tensor.grad_fn, tensor._base
    if base is not None and node is not None and node.next_functions[0][0] is base.grad_fn:  # else, of a view of it
        _pass_on(mode, base, tensor)


def _pass_on(mode: FunctionalMode, source: Tensor, alias: Tensor) -> None:
    if alias.shape == source.shape and alias.stride() == source.stride():
        mode.pass_on(source, alias)
