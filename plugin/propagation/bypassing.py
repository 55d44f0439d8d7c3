"""Calls that bypass a function mode: they take a tensor as it is, not the tensor that it stands for.

A `torch.autograd.Function` is one. PyTorch calls one itself for the hooks of a module on its backward pass: its
arguments and results are replaced by aliases. Transforms of `torch.func`, such as `vmap`, call operations on tensors
of their own, to which no rule can be applied.
"""

import inspect
import sys
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils.hooks import BackwardHook

# For each value that was overwritten, the node that computed it and which of its results it is: the number of the first
# node that may read it only by mistake.
Overwritten = dict[tuple[Any, int], int]

# The type of the nodes that pass signals through the hooks of a module.
HOOK_NODE: type = BackwardHookFunction._backward_cls
_MAKES_ALIASES = BackwardHook._apply_on_tensors.__code__
# From a call of the mode up to the function that makes aliases there are a few frames.
_FRAMES = 8

# Whether a transform of `torch.func` runs on this thread.
is_transformed = torch._C._are_functorch_transforms_active


def hooked_source(alias: Tensor) -> Tensor | None:
    """The tensor of which PyTorch makes an alias now, for the hooks of a module; None if it makes none."""
    if type(alias.grad_fn) is not HOOK_NODE:
        return None
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            return None
        if frame.f_code is _MAKES_ALIASES:
            return cast(Tensor, frame.f_locals["tensors"][alias.output_nr])
        frame = frame.f_back
    return None


def is_of_function(tensor: Tensor) -> bool:
    """Whether an autograd function returned it, such as a module's backward hook: no view of that may be written to."""
    return getattr(type(tensor.grad_fn), "_forward_cls", None) is not None


def in_function() -> bool:
    """Whether the forward pass of a `torch.autograd.Function` is running on this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_of_a_function(frame.f_code):
        frame = frame.f_back
    return frame is not None


@lru_cache(maxsize=4096)
def _is_of_a_function(code: CodeType) -> bool:
    classes = [torch.autograd.Function]
    for kind in classes:  # the list grows meanwhile
        classes += kind.__subclasses__()
    return any(getattr(inspect.unwrap(kind.forward), "__code__", None) is code for kind in classes)


def note_overwritten(overwritten: Overwritten, target: Tensor, result: Tensor) -> None:
    """Note that `result` takes the place of a tensor computed by the model."""
    if target.grad_fn is not None:
        number = node_number() if result.grad_fn is None else result.grad_fn._sequence_nr()
        overwritten.setdefault((target.grad_fn, target.output_nr), number)


def node_number() -> int:
    """The number that autograd gives to a node now: it counts them."""
    with torch.enable_grad():
        node = torch.empty(0, requires_grad=True).view(0).grad_fn
    return cast(int, node._sequence_nr())  # type: ignore[union-attr]


def reads_overwritten(node: Any, overwritten: Overwritten) -> bool:
    """Whether a node was made after one of the values that it reads had been overwritten."""
    return any(node._sequence_nr() > overwritten[edge] for edge in node.next_functions if edge in overwritten)
