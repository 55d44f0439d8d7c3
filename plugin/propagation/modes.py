"""Turning a function mode off and on, and the state of autograd that it depends on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

# The pair of functions that handles the tensors autograd saves now; None if autograd does.
saving_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks


@contextmanager
def without(mode: TorchFunctionMode) -> Iterator[None]:
    """Turn off a mode that is on, and those above it, for the duration of this context."""
    above: list[Any] = []
    while (last := _pop_mode()) is not mode:
        above.append(last)
    kept = torch.autograd.graph.saved_tensors_hooks(unchanged, unchanged) if is_checkpointed() else nullcontext()
    try:
        with kept:
            yield
    finally:
        for one in (mode, *reversed(above)):
            _push_mode(one)


def is_on(mode: TorchFunctionMode) -> bool:
    """Whether a mode sees the functions of this thread now."""
    count = torch._C._len_torch_function_stack()
    return any(torch._C._get_function_stack_at(index) is mode for index in range(count))


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


def is_checkpointed() -> bool:
    """Whether `torch.utils.checkpoint` keeps autograd from saving tensors now."""
    hooks = saving_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
