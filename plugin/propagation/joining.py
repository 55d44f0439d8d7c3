"""Functions of one tensor that are put together, by `stack`, `cat` or padding, and operations that choose between them.

A number that is put beside the functions stands for a constant function, whatever its form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.tracing import untraced
from .calls import Call
from .chains import Constant, Link, Slot, Step, same
from .convolution import per_dimension
from .moving import Movement
from .notes import Note
from .shapes import shape_of
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
    """Whether a call combines nothing: its windows hold one value, or it takes away an added dimension of size 1."""
    if _has_windows_of_one(call):
        return True
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


def _has_windows_of_one(call: Call) -> bool:
    """Whether a call takes the average of windows that hold one value each."""
    arguments, shape = call.bound(), call.given[0].shape
    if "kernel_size" in arguments:
        return set(per_dimension(arguments["kernel_size"], 1)) == {1}
    if call.operation is None or "output_size" not in call.operation.arguments:
        return False
    dimensions = int(call.name[-2])
    sizes = per_dimension(arguments["output_size"], dimensions)
    return all(size in (None, given) for size, given in zip(sizes, shape[-dimensions:], strict=True))


@dataclass(frozen=True)
class FirstOf:
    """The values of a maximum along a dimension, without the positions."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        result = self.function(*args, **kwargs)
        return result if isinstance(result, Tensor) else result[0]


@dataclass(frozen=True)
class Together:
    """`stack` or `cat` as a function of the functions that it joins.

    Attributes:
        shapes: those of its operands.
        residual: the sum of the functions is a connection around an activation.
    """

    move: Movement
    shapes: tuple[torch.Size, ...]
    residual: bool

    def __call__(self, functions: list[Tensor]) -> Tensor:
        return self.move(
            [
                value if value.shape == shape else value.flatten()[0].expand(shape)
                for value, shape in zip(functions, self.shapes, strict=True)
            ]
        )


@dataclass(frozen=True)
class Surrounded:
    """Padding as a function of the functions that it pads, which may have been joined before, and of its number.

    Attributes:
        widths: as `torch.nn.functional.pad` takes them.
        joined: the functions that were joined before; None if there is one function.
    """

    widths: list[int]
    joined: Joined | None

    def __call__(self, functions: list[Tensor]) -> Tensor:
        *inside, number = functions
        value = inside[0] if self.joined is None else self.joined.put_together(inside)
        return F.pad(value, self.widths, value=float(number.flatten()[0]))


def stack(functions: list[Tensor | float]) -> Tensor:
    """Functions and numbers in a new first dimension."""
    like = next(value for value in functions if isinstance(value, Tensor))
    tensors = [value if isinstance(value, Tensor) else like.new_full((), value) for value in functions]
    return torch.stack(torch.broadcast_tensors(*tensors))


@dataclass(frozen=True)
class Joined:
    """Several functions of one root in a tensor, possibly moved."""

    link: Link
    root: Tensor
    move: Movement | None

    @classmethod
    def of(cls, note: Note) -> Joined | None:
        """The joined functions noted on a tensor; None without such a note."""
        moved = note.moved_link
        padded = note.link is not None and note.link.join is not None
        link, move = (note.link, None) if moved is None or padded else (moved.link, moved.move)
        root = None if link is None or link.join is None else link.root
        return None if link is None or root is None else cls(link, root, move)

    @property
    def parts(self) -> tuple[Slot | Constant | float, ...]:
        """The functions; a number is one that has the same value everywhere."""
        return tuple(self.link.step.args[0])

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """For each entry: which of the functions it is a value of, and the position in the root; -1 for neither."""
        count = self.root.numel()
        with untraced():
            index = torch.arange(1, count + 1, dtype=torch.float64).view(self.root.shape)
            functions = [index + part * count for part in range(len(self.parts))]
            joined, negative = self.put_together(functions), self.put_together([-function for function in functions])
            # A number that a movement has put beside them, as padding does, does not change its sign.
            joined = torch.where(joined == -negative, joined, 0.0).long() - 1
            part = torch.where(joined < 0, -1, joined // count)
            return part, torch.where((part < 0) | self.is_number[part], -1, joined % count)

    def put_together(self, functions: list[Tensor]) -> Tensor:
        """The functions' values, joined and moved."""
        joined: Tensor = self.link.join(functions)  # type: ignore[misc]
        return joined if self.move is None else self.move(joined)

    @property
    def is_number(self) -> Tensor:
        """Which of the functions are numbers: they have no position in the root."""
        return torch.tensor(
            [isinstance(part, float) or (isinstance(part, Constant) and part.number is not None) for part in self.parts]
        )

    @untraced()
    def combined(self, call: Call) -> list[int]:
        """The functions that a call combines at each position, in the root's order; empty if it does anything else."""
        dim = dimension(call)
        if dim is None or not self.places[0].ndim:
            return []
        part, position = self.places
        last = position.amax(dim, keepdim=True)
        lines = part.sort(dim)[0].movedim(dim, -1).flatten(0, -2)
        alike = bool(((position == last) | (position < 0)).all()) and bool((lines == lines[0]).all())
        combined: list[int] = lines[0].tolist() if alike and self.is_whole(last) else []
        return combined if len(set(combined)) > 1 and min(combined) >= 0 else []

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

    def stacked(self, combined: list[int]) -> Step:
        """Some of the functions in a new first dimension."""
        return Step(stack, ([self.parts[number] for number in combined],), {})

    def first_dim(self, call: Call) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """A reduction of the first dimension, which is not kept."""
        place = _DIMENSIONS[call.name]
        given = call.args[place] if len(call.args) > place else call.kwargs["dim"]
        kwargs = {name: value for name, value in call.kwargs.items() if name not in ("keepdim", "dim")}
        return call.function, call.args[:place], kwargs | {"dim": 0 if isinstance(given, int) else [0]}

    def is_residual(self, call: Call) -> bool:
        """Whether a call adds the functions, and signal passes beside an activation."""
        return call.name in _SUMS and isinstance(self.link.join, Together) and self.link.join.residual

    @untraced()
    def mixes(self, call: Call) -> bool:
        """Whether a value depends on several functions, and not as a sum."""
        if call.name in _SUMS:
            return False
        part = self.places[0]

        def run(values: Tensor) -> Tensor:
            return tensors_in(call.run_with({id(call.given[0]): values.double()}))[0]

        def depends(chosen: Tensor) -> Tensor:
            return (run(chosen.double()) != nothing) | (run(-chosen.double()) != nothing)

        with torch.no_grad():
            if torch.equal(run(part), -run(-part)):
                return False
            nothing = run(torch.zeros_like(part))
            own = [depends(part == number) for number in range(len(self.parts))]
            of_functions = torch.stack([one for one, number in zip(own, self.is_number, strict=True) if not number])
            if bool((of_functions.sum(0) > 1).any()):
                return True
            # Numbers at the edges belong to pooling, unless every value is chosen among one value and numbers.
            mixed = of_functions.any(0) & torch.stack(own).sum(0).gt(1)
            return bool(mixed.any()) and self._is_of_one_position(depends, mixed)

    def _is_of_one_position(self, depends: Callable[[Tensor], Tensor], mixed: Tensor) -> bool:
        """Whether each of these values depends on one position: then, of each bit of it, on either 0 or 1."""
        position = self.places[1]
        for bit in range(self.root.numel().bit_length()):
            chosen = (position >> bit) & 1 == 1
            ones, zeros = depends(chosen & (position >= 0)), depends(~chosen & (position >= 0))
            if bool((ones & zeros & mixed).any()):
                return False
        return True
