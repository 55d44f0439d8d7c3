"""Calls that bypass a function mode: they take a tensor as it is, not the tensor that it stands for.

A `torch.autograd.Function` is one. PyTorch calls one itself for the hooks of a module on its backward pass: its
arguments and results are replaced by aliases. Transforms of `torch.func`, such as `vmap`, call operations on tensors
of their own, to which no rule can be applied.
"""

import inspect
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils.hooks import BackwardHook

# For each value that was overwritten, the node that computed it and which of its results it is: the number of the first
# node that can read it by mistake only.
Overwritten = dict[tuple[Any, int], int]

# The type of the nodes that pass signals through the hooks of a module.
HOOK_NODE: type = BackwardHookFunction._backward_cls
_MAKES_ALIASES = BackwardHook._apply_on_tensors.__code__
# From a call of the mode up to the function that makes aliases there are a few frames.
_FRAMES = 8

# The number of autograd's next node on this thread.
next_number = torch._C._autograd._get_sequence_nr
# Whether a transform of `torch.func` runs on this thread.
is_transformed = torch._C._are_functorch_transforms_active

_DIFFERENTIATING = (torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp)


def is_differentiated(tensors: Iterable[Tensor]) -> bool:
    """Whether the transform that runs on this thread computes a derivative of signals, as `torch.func.grad` does."""
    interpreter = torch._C._functorch.peek_interpreter_stack()
    if interpreter is None or interpreter.key() not in _DIFFERENTIATING:
        return False
    return any(map(is_signal, tensors))


def is_signal(tensor: Tensor) -> bool:
    """Whether a tensor, or the one that a transform has wrapped, depends on anything but parameters."""
    node = unwrapped(tensor).grad_fn
    return node is not None and not is_of_parameters(node)


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that transforms of `torch.func` have wrapped; any other tensor itself."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


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


def is_users_function(node_type: Any) -> bool:
    """Whether nodes of a type belong to a `torch.autograd.Function` that is neither this package's nor PyTorch's."""
    function = getattr(node_type, "_forward_cls", None)
    return function is not None and function.__module__.split(".")[0] not in ("plugin", "torch")


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


def note_overwritten(overwritten: Overwritten, target: Tensor) -> None:
    """Note that another tensor takes the place of one that the model computed."""
    if target.grad_fn is not None:
        overwritten.setdefault((target.grad_fn, target.output_nr), next_number())


def reads_overwritten(node: Any, overwritten: Overwritten, began: int) -> bool:
    """Whether a node was made after one of the values that it reads had been overwritten, or by another thread."""
    number = node._sequence_nr()
    read = [overwritten[edge] for edge in node.next_functions if edge in overwritten]
    return any(number >= first or number < began for first in read)


def is_earlier(node: Any, began: int) -> bool:
    """Whether a node of autograd's is from before a forward pass: all that it follows from is, too.

    Each thread counts its nodes for itself: one of another thread may have a small number, and follow from the inputs.

    Args:
        node: the node; None for a tensor without one.
        began: the number of the first node of the forward pass.
    """
    if node is None or node._sequence_nr() >= began:
        return False
    return all(hasattr(before, "variable") or before._sequence_nr() < began for before in _ancestors(node))


def is_of_parameters(node: Any) -> bool:
    """Whether all that a node of autograd's follows from are parameters: it does not depend on the inputs."""
    return all(isinstance(leaf, nn.Parameter) for before in _ancestors(node) if (leaf := _leaf(before)) is not None)


def _leaf(node: Any) -> Tensor | None:
    return getattr(node, "variable", None)


def nodes_from(node: Any, before: Collection[Any] = (), began: int = 0) -> Iterator[Any]:
    """A node of autograd's and those that it follows from, each once, down to those `before`, and to those that were
    made on this thread before the number `began`; None has no nodes."""
    found = [] if node is None or node in before else [node]
    met = {*found, *before}
    for one in found:  # the list grows meanwhile
        yield one
        for source, _ in one.next_functions:
            if source is not None and source not in met and (not began or source._sequence_nr() >= began):
                met.add(source)
                found.append(source)


def _ancestors(node: Any) -> Iterator[Any]:
    return islice(nodes_from(node), 1, None)
