"""The reading of calls that put functions of one tensor, and numbers, together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import chains
from .ancestry import Ancestry
from .calls import Call
from .chains import ROOT, Constant, Link, Slot, Step
from .joining import Joined, Surrounded, Together, stack
from .kinds import Kind
from .moving import Movement
from .shapes import shape_of


class Joins(Ancestry):
    """Reads `stack`, `cat` and padding."""

    def read_join(self, call: Call) -> Link | None:
        """The link of functions of one root that are put together, by `stack` or `cat`."""
        operands = self._operands(call)
        root = self._common_root(operands, Kind.MOVEMENT) if operands else None
        if root is None or not root.numel() or any(tensor.is_complex() for tensor in call.given):
            return None
        varying, functions = {id(operand) for operand in operands}, []
        for tensor in call.given:
            function: Slot | Constant | float | None = Constant(tensor, self.number)
            if id(tensor) in varying:
                function = Slot(chains.steps_to(tensor, root, self._link))
            elif tensor.shape != root.shape:  # fewer entries than the root has could not stand beside each of them
                function = self.number(tensor) if tensor.numel() >= root.numel() else None
            if function is None or (isinstance(function, Slot) and tensor.shape != root.shape):
                return None
            functions.append(function)
        shapes = tuple(tensor.shape for tensor in call.given)
        movement = Movement(call.function, call.args[1:], call.kwargs)
        together = Together(movement, shapes, self.is_residual(operands, root))
        return Link(root, Step(stack, (functions,), {}), join=together)

    def is_residual(self, operands: Sequence[Tensor], root: Tensor) -> bool:
        """Whether the sum of functions of one root is a connection around an activation: signal passes beside it."""
        paths = [chains.links_to(operand, root, self._link) for operand in operands]
        tails = [next((link for link in path if not link.affine), None) for path in paths]
        return None in tails and all(tail is None or tail.complete for tail in tails)

    def read_padding(self, value: Tensor, widths: list[int], number: float, count: int) -> Link | None:
        """The link of a tensor, or of functions that were put together, with numbers around it, if there are enough."""
        joined = Joined.of(self._note(value))
        functions, root = ((ROOT,), value) if joined is None else (joined.parts, joined.root)
        if not 0 < root.numel() <= count:
            return None
        return Link(root, Step(stack, ([*functions, number],), {}), join=Surrounded(widths, joined))

    def is_rectified(self, joined: Joined) -> bool:
        """Whether zeros stand beside values that are not negative: they change no maximum."""
        note = self._note(joined.root)
        link = note.link if note.moved_link is None else note.moved_link.link
        shape = None if link is None else shape_of(link.step, joined.root.ndim)
        return joined.parts == (ROOT, 0.0) and shape is not None and shape.non_negative
