"""What handles the tensors that autograd saves for the backward pass: autograd, or hooks such as a checkpoint's."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

_CHECKPOINT = "torch.utils.checkpoint"
# The pair of hooks in use, or None. PyTorch before 2.8 has no function that tells them.
_top: Callable[[bool], Any] | None = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def may_have_hooks() -> bool:
    """Whether hooks handle the tensors that autograd saves now; True where PyTorch cannot tell."""
    return _top is None or _top(True) is not None


def is_checkpointed() -> bool:
    """Whether `torch.utils.checkpoint` keeps autograd from saving tensors now."""
    if _top is None:
        return _is_called_by_a_checkpoint()
    hooks = _top(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == _CHECKPOINT


def _is_called_by_a_checkpoint() -> bool:
    """The same, as the stack of calls shows it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _CHECKPOINT:
            return True
        frame = frame.f_back
    return False
