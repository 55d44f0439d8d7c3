"""Movements of functions of another tensor: they are noted, so that `aligning` and `joining` can follow them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .chains import Link
from .notes import Notes
from .tensors import tensors_in


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
    """A movement as a function of the tensor that it moves; `position` tells which of its results is meant."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    position: int = 0
    before: Movement | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        moved = tensor if self.before is None else self.before(tensor)
        return tensors_in(self.function(moved, *self.args, **self.kwargs))[self.position]


def note_moved(notes: Notes, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any, result: Any) -> None:
    """Note the movement of the first argument, if it is a function of another tensor."""
    note = notes.of(args[0])
    link, before = (note.link, None) if note.moved_link is None else (note.moved_link.link, note.moved_link.move)
    if link is None or tensors_in((args[1:], kwargs)):
        return
    for position, tensor in enumerate(tensors_in(result)):
        notes.add(tensor).moved_link = Moved(link, Movement(function, args[1:], kwargs, position, before))
