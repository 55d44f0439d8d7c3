"""Movements of functions of another tensor: they are noted, so that `aligning` and `joining` can follow them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..kernels.tracing import untraced
from .chains import Link
from .notes import Notes
from .tensors import tensors_in

# Movements that depend on the memory of a tensor, not on its values alone.
_OF_MEMORY = frozenset({torch.as_strided, Tensor.as_strided})
# Movements to the shape of another tensor, whose values do not matter.
_TO_SHAPE = {Tensor.expand_as: Tensor.expand, Tensor.view_as: Tensor.reshape, Tensor.reshape_as: Tensor.reshape}


@dataclass(eq=False)
class Moved:
    """A tensor that was moved after a function of another was computed.

    Attributes:
        link: the way from the other tensor to the one that was moved.
        move: the movement.
        root: the other tensor moved alike, once it is known.
    """

    link: Link
    move: Movement
    root: Tensor | None = None


@dataclass(frozen=True)
class Movement:
    """A movement as a function of the tensors that it moves; `position` tells which of its results is meant."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    position: int = 0
    before: Movement | None = None

    def __call__(self, tensor: Tensor | list[Tensor]) -> Tensor:
        moved = tensor if self.before is None else self.before(tensor)
        if isinstance(moved, Tensor) and self.function not in _OF_MEMORY:
            moved = moved.contiguous()  # a view may be possible of one tensor and not of another, which lies otherwise
        return tensors_in(self.function(moved, *self.args, **self.kwargs))[self.position]

    @untraced()
    def is_identity(self, shape: torch.Size) -> bool:
        """Whether it leaves a tensor of this shape as it is."""
        positions = torch.arange(shape.numel(), dtype=torch.float64)
        return torch.equal(self(positions.view(shape)).flatten(), positions)

    def after(self, other: Movement) -> Movement:
        """This movement, behind another one."""
        return replace(self, before=other if self.before is None else self.before.after(other))


def note_moved(notes: Notes, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any, result: Any) -> None:
    """Note the movement of the first argument, if it is a function of another tensor."""
    note = notes.of(args[0])
    joined = note.link is not None and note.link.join is not None
    link, before = note.link, None
    if note.moved_link is not None and not joined:
        link, before = note.moved_link.link, note.moved_link.move
    if link is None:
        return
    if len(args) == 2 and isinstance(args[1], Tensor) and (to_shape := _TO_SHAPE.get(function)):
        function, args = to_shape, (args[0], args[1].shape)
    if tensors_in((args[1:], kwargs)):
        return
    if function in _OF_MEMORY and (before or link.root is None or link.root.stride() != args[0].stride()):
        return
    for position, tensor in enumerate(tensors_in(result)):
        notes.add(tensor).moved_link = Moved(link, Movement(function, args[1:], kwargs, position, before))


@untraced()
def reached(shape: torch.Size, move: Movement, device: torch.device) -> Tensor:
    """Where values of a shape stand after a movement, between zeros that it has put around them."""
    with torch.no_grad():
        return move(torch.ones(shape, device=device)).ne(0)
