"""Operands that are functions of the same values, moved alike.

`f(x).flatten(1)` is f of `x.flatten(1)`, and two equal movements of one tensor are one tensor. So
`x.flatten(1) * sigmoid(x).flatten(1)` is a function of `x.flatten(1)`. Few networks need this: operands are brought
together where an operation combines them, and not where they are moved.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from . import chains
from .chains import IDENTITY, Link, LinkOf
from .joining import Joined
from .moving import Moved
from .notes import Notes

# The nodes of movements that hold all of their arguments, none of which is a tensor.
_MOVING = frozenset(
    f"{name}Backward{number}"
    for name in "View UnsafeView ReshapeAlias Unsqueeze Squeeze Permute Transpose T Expand Select Slice Split "
    "SplitWithSizes Unbind Clone Alias AsStrided Repeat Flip Roll Diagonal Unfold Flatten ConstantPadNd".split()
    for number in range(3)
)


def align(notes: Notes, operands: Sequence[Tensor], link_of: LinkOf) -> bool:
    """Link operands to one tensor, if they are functions of the same values, moved alike; whether they are."""
    first, *others = (_Way(notes, chains.ancestors(operand, link_of)[-1], link_of) for operand in operands)
    steps = 0
    while (end := first.after(steps)) is not None:
        places = [steps]
        for other in others:
            place = other.place_of(end)
            if place is None:  # most operands have nothing in common, and the first one tells
                break
            places.append(place)
        else:
            for way, place in zip((first, *others), places, strict=True):
                way.lead_to(end, place)
            return True
        steps += 1
    return False


class _Way:
    """The tensors that a moved function was computed from, moved alike, the last one first; each found on request."""

    def __init__(self, notes: Notes, end: Tensor, link_of: LinkOf) -> None:
        self._notes, self._link_of = notes, link_of
        self._ends, self._links = [end], list[Link]()

    def after(self, steps: int) -> Tensor | None:
        """The tensor that is so many steps back, if there is one."""
        while len(self._ends) <= steps:
            link = link_below(self._notes, self._ends[-1], self._link_of)
            if link is None or link.root is None:
                return None
            self._links.append(link)
            self._ends.append(link.root)
        return self._ends[steps]

    def place_of(self, tensor: Tensor) -> int | None:
        """The number of steps back to a tensor, if the way leads there."""
        steps = 0
        while (end := self.after(steps)) is not None:
            if _is_same(end, tensor):
                return steps
            steps += 1
        return None

    def lead_to(self, tensor: Tensor, steps: int) -> None:
        """Link the tensors on the way, and the last of them to the tensor that it is the same as."""
        links = list(zip(self._ends, self._links[:steps], strict=False))
        if self._ends[steps] is not tensor:
            links.append((self._ends[steps], Link(tensor, IDENTITY, affine=True)))
        for end, link in links:
            link.constant = not end.requires_grad
            self._notes.add(end).link = link


def link_below(notes: Notes, tensor: Tensor, link_of: LinkOf) -> Link | None:
    """The way to a moved tensor from the one that the function was computed from, moved alike."""
    note = notes.of(tensor)
    moved, joined = note.moved_link, Joined.of(note)
    if joined is not None and ((way := joined.way_to_part(tensor)) is not None or joined.move is not None):
        return way
    root = None if moved is None or moved.link.step.key is None else moved.link.root
    if moved is None or root is None:
        return None
    link = moved.link
    if tensor.shape == root.shape and moved.move.is_identity(root.shape):
        return Link(root, link.step, link.affine, link.shifted, link.complete, link.numbers)
    moved.root = moved.move(root)
    before = notes.of(root)
    if before.link is not None and link_of(root) is before.link:
        notes.add(moved.root).moved_link = Moved(before.link, moved.move)
    elif before.moved_link is not None:
        notes.add(moved.root).moved_link = Moved(before.moved_link.link, moved.move.after(before.moved_link.move))
    return Link(moved.root, link.step.without_shapes(), link.affine, link.shifted, link.complete, link.numbers)


def is_moved(tensor: Tensor, origin: Tensor) -> bool:
    """Whether a tensor is another one, or is that one moved."""
    node, end = tensor.grad_fn, origin.grad_fn
    while tensor is not origin and node is not None and node is not end:
        if node.name() not in _MOVING:
            return False
        node = node.next_functions[0][0]
    return tensor is origin or node is not None


def _is_same(first: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same, or the same movements of one tensor."""
    if first is other:
        return True
    if first.shape != other.shape or first.dtype != other.dtype or first.grad_fn is None or other.grad_fn is None:
        return False
    return _is_same_edge((first.grad_fn, first.output_nr), (other.grad_fn, other.output_nr))


def _is_same_edge(first: tuple[Any, int], other: tuple[Any, int]) -> bool:
    first, other = _without_aliases(first), _without_aliases(other)
    if first == other:
        return True
    (node, number), (other_node, other_number) = first, other
    if node is None or other_node is None or number != other_number:
        return False
    if node.name() != other_node.name() or node.name() not in _MOVING:
        return False
    saved = [name for name in dir(node) if name.startswith("_saved_")]
    return all(getattr(node, name) == getattr(other_node, name) for name in saved) and all(
        map(_is_same_edge, node.next_functions, other_node.next_functions)
    )


def _without_aliases(edge: tuple[Any, int]) -> tuple[Any, int]:
    """The edge before a tensor was copied, or given another type, which is not seen."""
    while edge[0] is not None and edge[0].name() in ("AliasBackward0", "CloneBackward0"):
        edge = edge[0].next_functions[0]
    return edge
