"""A function mode that notes the properties of the tensors that a model computes."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.tracing import untraced, values_are_known
from ..observing import Observer
from .calls import Call
from .chains import Slot, Step
from .functional import FunctionalMode
from .joining import Joined
from .kinds import Operation
from .notes import Note, Notes
from .pointwise import Pointwise, Reading
from .tensors import tensors_in

# Operations that find the place of a value among several; the others find where a mask is true.
_PLACES_OF_VALUES = frozenset({"argmax", "argmin", "argsort"})


class NotingMode(FunctionalMode):
    """Notes the properties of tensors that follow from their operations; arguments as for `FunctionalMode`.

    Attributes:
        notes: the notes on tensors.
        pointwise: reads pointwise calls.
        rectifies: whether a rule depends on the sign of a signal.
        is_gradient: every operation keeps its gradient, so that none has to be refused.
    """

    rectifies = True
    is_gradient = False

    def __init__(
        self,
        model: nn.Module,
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
    ) -> None:
        super().__init__(model, protected, on_enter, on_exit)
        self.notes = Notes()
        # The notes on a tensor, for reading and for writing.
        self.note, self.noted = self.notes.of, self.notes.add
        self.pointwise = Pointwise(self.notes, turns=self.rectifies)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.pointwise.forget()
        self.notes.settle()

    def _may_be_kept(self, base: Tensor) -> bool:
        # Overwriting the value would invalidate the notes kept for it.
        return self.notes.get(base) is not None or super()._may_be_kept(base)

    def _may_be_overwritten(self, value: Tensor) -> bool:
        return self.note(value).link is None and super()._may_be_overwritten(value)

    def pass_on(self, source: Tensor, alias: Tensor) -> None:
        self.notes.pass_on(source, alias)

    def move_statistic(self, call: Call, note: Note, result: Any) -> None:
        for position, tensor in enumerate(tensors_in(result)):
            moved = self.noted(tensor)
            moved.statistic, moved.exponential = note.statistic, note.exponential
            moved.log_totals, moved.total = note.log_totals, note.total
            moved.number, moved.places = note.number, note.places
            if note.plain is not None:
                moved.plain = partial(_moved_again, call, note.plain, position)

    def note_join(self, call: Call, result: Any) -> None:
        """Note functions of one tensor that were put together, between which a maximum may choose."""
        self.joined(call, result)
        link = None if self.note(result).statistic else self.pointwise.read_join(call)
        if link is not None:
            self.noted(result).link = link

    def note_padding(self, call: Call, result: Tensor) -> None:
        """Note the numbers around values, if they are as many: a maximum may choose between each value and a number."""
        arguments = call.bound()
        value, count = arguments["input"], result.numel() - arguments["input"].numel()
        if call.signals and arguments.get("mode", "constant") == "constant" and count > 0:
            number = float(arguments.get("value") or 0)
            link = self.pointwise.read_padding(value, list(arguments["pad"]), number, count)
            if link is not None:
                self.noted(result).link = link

    def joined(self, call: Call, result: Any) -> None:
        """Note that several statistics in one tensor are statistics."""
        notes = [self.note(signal) for signal in call.signals]
        if isinstance(result, Tensor) and notes and all(note.statistic for note in notes):
            noted = self.noted(result)
            noted.statistic, noted.plain = True, partial(self.plainly, call)

    def note_squares(self, call: Call, mixed: Tensor, result: Any) -> None:
        """Note the entries of a Gram matrix that are left: sums of squares alone are statistics."""
        if len(call.given) > 1 and not values_are_known():
            return  # the values of a constant are not known
        with untraced(), torch.no_grad():
            left = tensors_in(call.run_with({id(call.signals[0]): mixed}))
            alone = [not bool(part.any()) for part in left]
        for tensor, part, is_alone in zip(tensors_in(result), left, alone, strict=True):
            noted = self.noted(tensor)
            if is_alone:
                noted.statistic, noted.plain = True, partial(self.plainly, call)
            else:
                noted.mixed = part

    def note_places(self, name: str, values: Tensor, places: Any) -> None:
        """Note positions found from a signal: of functions of one tensor, or where a mask is true."""
        if name == "one_hot":
            self.note_selected(places, (values,))
            return
        note = self.note(values)
        from_signal = Joined.of(note) is not None if name in _PLACES_OF_VALUES else note.link is not None
        for tensor in tensors_in(places) if from_signal else ():
            self.noted(tensor).places = True

    def is_place(self, tensor: Tensor) -> bool:
        """Whether a tensor holds positions that were computed from a signal."""
        return self.note(tensor).places or self.pointwise.varies(tensor)

    def note_selected(self, results: Any, given: Iterable[Tensor]) -> None:
        """Note a constant that was computed from a signal, in another form than element by element."""
        found = next((tensor for tensor in given if self.pointwise.varies(tensor)), None)
        if found is None:
            return
        for result in tensors_in(results):
            if not result.requires_grad:
                self.noted(result).selected_by = self.pointwise.origin(found)

    def note_lookup(self, call: Call, places: Sequence[Tensor], result: Any) -> Any:
        """Note the entries of a constant table that a signal selects: a step function, if one for each position."""
        places = [place for place in places if _is_position(place) and self.pointwise.varies(place)]
        if not places or not isinstance(result, Tensor):
            return result
        result = result.detach()
        if len(places) == 1 and result.shape == places[0].shape:
            self.note_link(Reading(self.pointwise.read_lookup(call, places[0])), result)
        else:
            self.note_selected(result, places)
        return result

    def note_link(self, reading: Reading, result: Tensor) -> None:
        """Note the way from the root to the result of a pointwise call."""
        link = reading.link
        root = None if link is None else link.root
        if link is not None and root is not None and root is not result:
            link.constant = not result.requires_grad
            if not torch.is_grad_enabled():  # under the model's own no_grad: to hold the result constant
                link.step = Step(Tensor.detach, (Slot((link.step,)),), {})
            self.noted(result).link = link

    def plainly(self, call: Call) -> Tensor:
        """The result of a call whose operands count as no activations, if they can be computed so."""
        swap = {id(signal): plain() for signal in call.signals if (plain := self.note(signal).plain) is not None}
        return first_tensor(call.run_with(swap))

    def call_of(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = tensors_in((*args, *kwargs.values()) if kwargs else args)
        signals = [
            tensor
            for tensor in given
            if tensor.requires_grad and not isinstance(tensor, nn.Parameter) and not self.is_earlier(tensor)
        ]
        if row.first_only:
            signals = [signal for signal in signals if signal is args[0]][:1]
        return Call(row, function, args, kwargs, signals, given)


def first_tensor(result: Any) -> Tensor:
    """The tensor that an operation returned, or the first of several: a maximum, without its positions."""
    return result if isinstance(result, Tensor) else tensors_in(result)[0]


def _is_position(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _moved_again(call: Call, plain: Callable[[], Tensor], position: int) -> Tensor:
    return tensors_in(call.function(plain(), *call.args[1:], **call.kwargs))[position]
