"""Functions of one tensor that are put together, by `stack` or `cat`, and operations that choose between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..kernels.tracing import untraced
from .calls import Call
from .chains import Constant, Link, Slot, Step, same, shape_of
from .moving import Movement
from .notes import Note
from .tensors import tensors_in

# The position of the dimension among the arguments of a reduction whose result does not depend on the order.
_DIMENSIONS = {"norm": 2, "vector_norm": 2} | dict.fromkeys(
    "amax amin max min sum nansum mean nanmean prod logsumexp median nanmedian".split(), 1
)
# Operations that choose values by their positions.
_PICKING = frozenset({"gather", "take_along_dim", "index_select", "take", "__getitem__", "index"})
_SUMS = frozenset({"sum", "nansum", "mean", "nanmean"})


def picks(call: Call, varies: Callable[[Tensor], bool]) -> bool:
    """Whether a call chooses between functions of one tensor at positions that were computed from a signal."""
    return call.name in _PICKING and any(map(varies, call.given[1:]))


def dimension(call: Call) -> int | None:
    """The one dimension along which a call combines values, whatever their order; None for any other call."""
    place = _DIMENSIONS.get(call.name)
    if place is None:
        return None
    dim = call.args[place] if len(call.args) > place else call.kwargs.get("dim")
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    return dim if isinstance(dim, int) else None


def is_of_one(call: Call, root: Tensor) -> bool:
    """Whether a call combines nothing: it takes away a dimension of size 1 that was added to a tensor."""
    node: Any = root.grad_fn
    dim, shape = dimension(call), call.given[0].shape
    if node is None or dim is None or not shape or shape[dim] != 1:
        return False
    if node.name() in ("ViewBackward0", "UnsafeViewBackward0"):
        dim %= len(shape)
        return tuple(node._saved_self_sym_sizes) == (*shape[:dim], *shape[dim + 1 :])
    if node.name() != "UnsqueezeBackward0":
        return False
    added = node._saved_dim
    added -= 1 << 64 if added >> 63 else 0  # a negative one
    return bool(dim % len(shape) == added % len(shape))


@dataclass(frozen=True)
class FirstOf:
    """The values of a maximum along a dimension, without the positions."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        result = self.function(*args, **kwargs)
        return result if isinstance(result, Tensor) else result[0]


@dataclass(frozen=True)
class Joined:
    """Several functions of one root in a tensor, possibly moved."""

    link: Link
    root: Tensor
    move: Movement | None

    @classmethod
    def of(cls, note: Note) -> Joined | None:
        """What is known of a tensor; None if it is nothing of the kind."""
        moved = note.moved_link
        link, move = (note.link, None) if moved is None else (moved.link, moved.move)
        root = None if link is None or link.join is None else link.root
        return None if link is None or root is None else cls(link, root, move)

    @property
    def parts(self) -> tuple[Slot | Constant, ...]:
        """The functions."""
        return tuple(self.link.step.args[0])

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """For each entry: which of the functions it is a value of, and the position in the root."""
        count = self.root.numel()
        with untraced():
            index = torch.arange(count).view(self.root.shape)
            joined = self.link.join([index + part * count for part in range(len(self.parts))])  # type: ignore[misc]
            joined = joined if self.move is None else self.move(joined)
            return joined // count, joined % count

    @untraced()
    def reduced_dim(self, call: Call) -> int | None:
        """The dimension along which a call combines the functions at equal positions, in the root's order."""
        dim = dimension(call)
        if dim is None:
            return None
        part, position = self.places
        if part.shape[dim] != len(self.parts):
            return None
        alike = torch.equal(position, position.narrow(dim, 0, 1).expand_as(position))
        every = bool((part.sum(dim) == part.unique().sum()).all())
        return dim if alike and every and self.is_whole(position.select(dim, 0)) else None

    def is_whole(self, position: Tensor) -> bool:
        """Whether positions are those of the root, in order."""
        return torch.equal(position.flatten(), torch.arange(self.root.numel()))

    def way_to_part(self, tensor: Tensor) -> Link | None:
        """The link of the tensor if it is one of the functions; None if it is more, or less."""
        function = self._part()
        if function is None:
            return None
        step = Step(same, (function,), {})
        shape = shape_of(step, self.root.ndim)
        affine = not function.steps or (shape is not None and shape.affine)
        if tensor.shape == self.root.shape:
            return Link(self.root, step, affine)
        return None if step.key is None else Link(self.root.reshape(tensor.shape), step.without_shapes(), affine)

    @untraced()
    def _part(self) -> Slot | None:
        """The one function of which all entries are values, in order."""
        part, position = self.places
        number = int(part.flatten()[0])
        function = self.parts[number]
        whole = not bool((part != number).any()) and self.is_whole(position)
        return function if whole and isinstance(function, Slot) else None

    def stacked(self) -> Step:
        """The functions in a new first dimension."""
        return Step(torch.stack, (list(self.parts),), {})

    def first_dim(self, call: Call) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """A reduction of the first dimension, which is not kept."""
        place = _DIMENSIONS[call.name]
        given = call.args[place] if len(call.args) > place else call.kwargs["dim"]
        kwargs = {name: value for name, value in call.kwargs.items() if name not in ("keepdim", "dim")}
        return call.function, call.args[:place], kwargs | {"dim": 0 if isinstance(given, int) else [0]}

    @untraced()
    def mixes(self, call: Call) -> bool:
        """Whether a value depends on several functions, and not as a sum."""
        if call.name in _SUMS:
            return False
        part = self.places[0]

        def run(values: Tensor) -> Tensor:
            return tensors_in(call.run_with({id(call.given[0]): values.double()}))[0]

        with torch.no_grad():
            if torch.equal(run(part), -run(-part)):
                return False
            nothing = run(torch.zeros_like(part))
            own = [(part == number).double() for number in range(len(self.parts))]
            depends = [(run(one) != nothing) | (run(-one) != nothing) for one in own]
        return bool((torch.stack(depends).sum(0) > 1).any())
