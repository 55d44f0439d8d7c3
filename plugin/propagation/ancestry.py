"""The earlier tensors that a tensor is a function of, and the last one that several tensors have in common."""

from collections.abc import Sequence

from torch import Tensor

from ..kernels.tracing import known_number
from . import chains
from .aligning import align, is_moved, link_below
from .calls import Call
from .chains import Link, Slot, Step
from .kinds import Kind
from .notes import Notes


class Ancestry:
    """Follows the links between the tensors of a forward pass.

    Args:
        notes: the notes on tensors.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes, self._note = notes, notes.of
        # The inputs of the latest activations, until a layer runs: nothing else may hold them.
        self._recent: list[Tensor] = []

    def forget(self) -> None:
        """Regard the activations so far as complete: a layer runs."""
        if self._recent:
            self._recent.clear()

    def _link(self, tensor: Tensor) -> Link | None:
        link = self._note(tensor).link
        # The result of a torch.autograd.Function has its own backward pass, not that of the operations inside.
        return None if link is not None and link.constant and tensor.requires_grad else link

    def number(self, tensor: Tensor) -> float | None:
        """The number that all entries of a constant are, if it is known."""
        number = self._note(tensor).number
        return known_number(tensor) if number is None else number

    def varies(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from a signal by pointwise operations, possibly without a gradient."""
        note = self._note(tensor)
        return note.link is not None or note.moved_link is not None or note.selected_by is not None

    def root(self, tensor: Tensor) -> Tensor:
        """The earliest tensor that a tensor is a function of."""
        return chains.ancestors(tensor, self._link)[-1]

    def origin(self, tensor: Tensor) -> Tensor:
        """The earliest tensor that a tensor was computed from, element by element, by movements or by lookups."""
        below: Tensor | None = tensor
        while below is not None:
            tensor, note = below, self._note(below)
            link = note.link if note.moved_link is None else note.moved_link.link
            below = note.selected_by if link is None else link.root
        return tensor

    def is_selected(self, tensor: Tensor) -> bool:
        """Whether a tensor was selected by a signal, but not element by element."""
        return any(self._note(one).selected_by is not None for one in chains.ancestors(tensor, self._link))

    def meets_own_mask(self, call: Call) -> bool:
        """Whether a call combines a signal with a tensor computed from it without a gradient, such as a mask."""
        masks = [tensor for tensor in call.given if not tensor.requires_grad and self.varies(tensor)]
        if not masks:
            return False
        origins = [self.origin(mask) for mask in masks]
        values = [value for signal in call.signals for value in chains.ancestors(signal, self._link)]
        return any(is_moved(value, origin) for value in values for origin in origins)

    def _operands(self, call: Call) -> list[Tensor]:
        """The different tensors that vary: signals, and tensors computed from them without a gradient."""
        signals = {id(signal) for signal in call.signals}
        return list({id(t): t for t in call.given if id(t) in signals or self.varies(t)}.values())

    def _common_root(self, operands: Sequence[Tensor], kind: Kind) -> Tensor | None:
        """The last tensor that all operands are functions of, moved alike; or None."""
        root = chains.common_root(operands, self._link)
        if root is not None:
            return root
        # In most sums, the signal passes beside a layer.
        if kind is Kind.SUM and all(self._note(operand).moved_link is None for operand in operands):
            return None
        return chains.common_root(operands, self._link) if align(self._notes, operands, self._link) else None

    def _bring_along(self, moved: Tensor) -> None:
        """Link a moved function to its moved input, as it is linked unmoved: numbers around it belong to one function.

        An activation of PyTorch's is complete, unless it is the latest.
        """
        note = self._note(moved)
        if note.link is not None or note.moved_link is None:
            return
        tail = self._end(note.moved_link.link)
        if tail is not None and (tail.join is not None or (tail.complete and not self._is_recent(tail))):
            return
        tensor, before = moved, False
        while (link := link_below(self._notes, tensor, self._link)) is not None and link.root is not None:
            if not (link.affine and link.numbers) and (link.affine or before):
                return
            if not link.affine:
                self._recent += [link.root] if link.complete else []
                before = True
            link.constant = not tensor.requires_grad
            self._notes.add(tensor).link = link
            tensor = link.root

    def _end(self, link: Link | None) -> Link | None:
        """The link of the activation that an affine chain ends in, if there is one."""
        while link is not None and link.affine:
            root = link.root
            link = None if root is None else self._link(root)
        return link

    def _tail(self, tensor: Tensor) -> Link | None:
        """The activation that a tensor is, or is a multiple of."""
        link = self._end(self._link(tensor))
        return None if link is None or link.join is not None else link

    def _is_recent(self, link: Link) -> bool:
        return any(tensor is link.root for tensor in self._recent)

    def takes_number(self, tensor: Tensor) -> bool:
        """Whether a number that multiplies a tensor belongs to the activation that it is."""
        tail = self._tail(tensor)
        return tail is not None and (not tail.complete or self._is_recent(tail))

    def _before_activation(self, root: Tensor) -> Tensor:
        """The root of the activation that a tensor is a multiple of, if it is the latest; else the tensor."""
        tail, below = self._tail(root), root
        if tail is None or (tail.complete and not self._is_recent(tail)):
            return root
        while (link := self._link(below)) is not None and link.root is not None:
            below = link.root
            if link is tail:
                return below
        return root

    def _follows(self, tensor: Tensor, root: Tensor) -> bool:
        return any(ancestor is root for ancestor in chains.ancestors(tensor, self._link))

    def _whole(self, call: Call, operands: Sequence[Tensor], begin: Tensor) -> Step:
        slots = {id(operand): Slot(chains.steps_to(operand, begin, self._link)) for operand in operands}
        function, args, row = call.function, call.args, call.operation
        if row is not None and row.kind is Kind.STEP:
            function = chains.Stepwise(function)
        elif row is not None and row.identity and row.first_only and len(call.given) > 1:
            # The values of the other tensor do not matter.
            function, args = Tensor.to, (call.given[0], call.given[1].dtype)
        return chains.step_of(function, args, call.kwargs, slots, self.number)
