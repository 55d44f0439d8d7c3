"""A function mode that reads: it notes properties of each tensor, and finds activations of several pointwise calls.

See `chains` for activations that are written by hand. Sums of squares, magnitudes and exponentials are statistics.
Where a statistic is a divisor, or is under a root, its operands count as no activation. A norm or a softmax written by
hand is then treated as PyTorch's own.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import UnseenOperationError
from ..kernels.tracing import is_tracing, untraced
from ..observing import Observer, describe, running_module
from .activation import Activation
from .calls import Call
from .functional import FunctionalMode
from .joining import Joined, is_of_one
from .kinds import Kind, Operation
from .letters import factors, is_squared, mixed_entries
from .moving import note_moved
from .notes import Note, Notes
from .pointwise import Pointwise, Reading
from .tensors import map_tensors, tensors_in


class ReadingMode(FunctionalMode):
    """Notes the properties of tensors that follow from their operations; arguments as for `FunctionalMode`.

    Attributes:
        notes: the notes on tensors.
        pointwise: reads pointwise calls.
    """

    # Whether a rule depends on the sign of a signal.
    _rectifies = True

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
        self.pointwise = Pointwise(self.notes, turns=self._rectifies)

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
            moved.statistic, moved.number, moved.places = note.statistic, note.number, note.places
            if note.plain is not None:
                moved.plain = partial(_moved_again, call, note.plain, position)

    def note_join(self, call: Call, result: Any) -> None:
        """Note functions of one tensor that were put together, between which a maximum may choose."""
        self.joined(call, result)
        link = None if self.note(result).statistic else self.pointwise.read_join(call)
        if link is not None:
            self.noted(result).link = link

    def joined(self, call: Call, result: Any) -> None:
        """Note that several statistics in one tensor are statistics."""
        notes = [self.note(signal) for signal in call.signals]
        if isinstance(result, Tensor) and notes and all(note.statistic for note in notes):
            noted = self.noted(result)
            noted.statistic, noted.plain = True, partial(self.plainly, call)

    def _call_of(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = tensors_in((*args, *kwargs.values()) if kwargs else args)
        signals = [
            tensor
            for tensor in given
            if tensor.requires_grad and not isinstance(tensor, nn.Parameter) and not self.is_earlier(tensor)
        ]
        if row.first_only:
            signals = [signal for signal in signals if signal is args[0]][:1]
        return Call(row, function, args, kwargs, signals, given)

    def reduced(self, call: Call, plain: Callable[..., Any]) -> Any:
        """A call of an operation that sums or chooses, done by `plain`."""
        result = self.chosen(call)
        if result is not None:
            return result
        if (entries := factors(call)) is not None:
            with self.seeing():
                return reduce(torch.mul, entries)
        contracts = call.operation is not None and call.operation.kind is Kind.CONTRACTION
        if contracts and self._rectifies:
            self.check_masks(call)
        result = plain(call.function, call.args, call.kwargs)
        self._note_statistic(call, result)
        if contracts and not call.signals:
            self.note_selected(result, call.given)
        return result

    def check_masks(self, call: Call) -> None:
        """Refuse a product of a signal with a matrix or a kernel that was computed from it by comparison."""
        if self.pointwise.meets_own_mask(call):
            self.refuse_own_mask(call)

    def chosen(self, call: Call) -> Any:
        """The result of a reduction of functions of one tensor to one function; None for any other call."""
        if len(call.given) != 1:
            return None
        value = call.given[0]
        if is_of_one(call, self.pointwise.root(value)):
            return self._of_one(call, value)
        try:
            reading = self.pointwise.read_choice(call)
        except LookupError:
            self.refuse_choice(call)
        if reading is None or reading.activation is None:
            return None
        result = call.run()
        values = first_tensor(result)
        if not reading.activation.name:
            reading.activation.value = values.detach().reshape(reading.activation.input.shape)
        whole = self.as_activation(call, reading, reading.activation)
        if whole.shape != values.shape:
            flat, whole = whole, whole.reshape(values.shape)
            note_moved(self.notes, (flat, values.shape), {}, Tensor.reshape, whole)
        return whole if isinstance(result, Tensor) else type(result)((whole, *result[1:]))

    def refuse_own_mask(self, call: Call) -> NoReturn:
        """Refuse a product of a signal with values that it selects, in a form that is not known."""
        raise UnseenOperationError(
            f"{describe(self.model, running_module(self.model))} computes an activation with {call.name}, which "
            "multiplies a tensor with a mask or with table entries that it selects itself: write it element by "
            "element, with torch.nn.functional, torch.where or a table of one dimension"
        )

    def refuse_choice(self, call: Call) -> NoReturn:
        """Refuse an activation in a form that is not known."""
        raise UnseenOperationError(
            f"{describe(self.model, running_module(self.model))} computes an activation with {call.name}, which "
            "chooses between functions of one tensor: write it with torch.nn.functional, torch.maximum or torch.where"
        ) from None

    def _of_one(self, call: Call, value: Tensor) -> Any:
        """A combination of nothing moves the values; the norm of a number is its magnitude."""
        result = call.run()
        if call.operation is not None and call.operation.kind is Kind.STATISTIC:
            if 0 in (*call.args[1:2], call.kwargs.get("p"), call.kwargs.get("ord")):
                return result  # counts the numbers that are not 0
            with self.seeing():
                return value.abs().reshape(result.shape)
        note_moved(self.notes, call.args, call.kwargs, call.function, result)
        return result

    def _note_statistic(self, call: Call, result: Any) -> None:
        notes = [self.note(signal) for signal in call.signals]
        squared = call.operation is not None and call.operation.kind is Kind.CONTRACTION and is_squared(call)
        if isinstance(result, Tensor) and notes and (squared or all(n.statistic or n.plain is not None for n in notes)):
            noted = self.noted(result)
            noted.statistic, noted.plain = True, partial(self.plainly, call)
        elif call.operation is not None and call.operation.kind is Kind.CONTRACTION and len(notes) == 2:
            if isinstance(result, Tensor) and (mixed := mixed_entries(call, result)) is not None:
                self.noted(result).mixed = mixed
        elif len(notes) == 1 and notes[0].mixed is not None:
            self.note_squares(call, notes[0].mixed, result)

    def note_squares(self, call: Call, mixed: Tensor, result: Any) -> None:
        """Note the entries of a Gram matrix that are left: sums of squares alone are statistics."""
        if len(call.given) > 1 and is_tracing():
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

    def as_read(self, call: Call) -> Any:
        """A pointwise call, computed according to its reading."""
        if len(call.signals) == 1 and call.name == "exp" and self.note(call.signals[0]).logits is not None:
            return self.softmax_by_hand(call)
        reading = self.pointwise.read(call)
        if reading.link is None and call.name in ("assignment", "index_put") and self._rectifies:
            self.warn_of_assignment(call)
        if reading.link is None and call.name == "mul" and any(map(self.pointwise.is_selected, call.given)):
            self.check_masks(call)
        return self._read(call, reading)

    def note_places(self, name: str, values: Tensor, places: Any) -> None:
        """Note positions found from a signal: of functions of one tensor, or where a mask is true."""
        note = self.note(values)
        if name == "one_hot" and self.pointwise.varies(values):
            self.note_selected(places, (values,))
        elif note.link is not None if not name.startswith("arg") or name == "argwhere" else Joined.of(note):
            for tensor in tensors_in(places):
                self.noted(tensor).places = True

    def is_place(self, tensor: Tensor) -> bool:
        """Whether a tensor holds positions that were computed from a signal."""
        return self.note(tensor).places or self.pointwise.varies(tensor)

    def note_selected(self, result: Tensor, given: Iterable[Tensor]) -> None:
        """Note a constant that was computed from a signal, in another form than element by element."""
        found = next((tensor for tensor in given if self.pointwise.varies(tensor)), None)
        if found is not None and not result.requires_grad:
            self.noted(result).selected_by = self.pointwise.origin(found)

    def note_lookup(self, call: Call, places: Sequence[Tensor], result: Any) -> Any:
        """Note the entries of a constant table that a signal selects: a step function, if one for each position."""
        places = [place for place in places if self.pointwise.varies(place)]
        if not places or not isinstance(result, Tensor):
            return result
        result = result.detach()
        if len(places) == 1 and result.shape == places[0].shape and places[0].dtype is not torch.bool:
            self.note_link(Reading(self.pointwise.read_lookup(call, places[0])), result)
        else:
            self.note_selected(result, places)
        return result

    def warn_of_assignment(self, call: Call) -> None:
        """Warn of a masked assignment: it may be an activation, which takes more calls than are read here."""
        notes = [(tensor, self.note(tensor)) for tensor in call.given]
        if any(note.places or (tensor.dtype is torch.bool and note.link is not None) for tensor, note in notes):
            warnings.warn(
                f"{describe(self.model, running_module(self.model))} assigns values selected by a mask, which "
                "is differentiated unchanged: if it is an activation, write it with torch.where",
                stacklevel=2,
            )

    def softmax_by_hand(self, call: Call) -> Tensor:
        """The result of exponentials that sum to 1."""
        return self.plainly(call)

    def note_logarithm(self, call: Call, result: Tensor) -> None:
        """Note a log-softmax, or the logarithm of a softmax's denominator: its exponential is not an activation."""
        if len(call.signals) == 1:
            noted = self.noted(result)
            noted.plain = partial(self.plainly, call)
            if call.name == "logsumexp":
                noted.log_total_of = call.signals[0]
            else:
                noted.logits = call.signals[0]

    def _read(self, call: Call, reading: Reading) -> Any:
        if reading.statistic:
            return self.of_statistic(call)
        activation = reading.activation
        if activation is None:
            result = self.plain(call.function, call.args, call.kwargs) if reading.identity else self.otherwise(call)
        else:
            if not activation.name or (call.operation is not None and call.operation.own):
                with torch.no_grad():
                    activation.value = first_tensor(call.run())
            result = self.activation(activation, call, reading)
        if isinstance(result, Tensor):
            self.note_link(reading, result)
            self._note_plain(call, result)
            if reading.link is None and not call.signals:
                self.note_selected(result, call.given)
        elif call.name == "where":  # of a condition alone
            self.note_places(call.name, call.given[0], result)
        return result

    def as_activation(self, call: Call | None, reading: Reading, activation: Activation) -> Any:
        """An activation used unchanged."""
        result = self.activation(activation, call, reading)
        self.note_link(reading, result)
        return result

    def note_link(self, reading: Reading, result: Tensor) -> None:
        """Note the way from the root to the result of a pointwise call."""
        link = reading.link
        root = None if link is None else link.root
        if link is not None and root is not None and root is not result:
            link.constant = not result.requires_grad
            self.noted(result).link = link

    def _note_plain(self, call: Call, result: Tensor) -> None:
        """Note the values of a result that count as no activation."""
        if len(call.signals) == 2 and self.note(call.signals[1]).log_total_of is call.signals[0] and call.name == "sub":
            noted = self.noted(result)
            noted.logits, noted.plain = call.signals[0], partial(self.plainly, call)
        if len(call.signals) == 1 and (mixed := self.note(call.signals[0]).mixed) is not None:
            if call.name in ("mul", "div"):
                self.note_squares(call, mixed, result)
            elif call.name == "add":
                self.noted(result).mixed = mixed.expand_as(result)
        if _is_even(call) or (call.signals and all(self.note(signal).plain is not None for signal in call.signals)):
            self.noted(result).plain = partial(self.plainly, call)
            adds = call.name == "add" and len(call.signals) > 1 and not call.kwargs
            if adds and self.note(result).link is None:
                self.noted(result).statistic = True  # a sum of squares of several tensors

    def plainly(self, call: Call) -> Tensor:
        """The result of a call whose operands count as no activations, if they can be computed so."""
        swap = {id(signal): plain() for signal in call.signals if (plain := self.note(signal).plain) is not None}
        return first_tensor(call.run_with(swap))

    def of_statistic(self, call: Call) -> Any:
        """The result of a call on statistics: a statistic; a signal divided by a statistic stays a signal."""
        row = call.operation
        known = [self.note(signal) for signal in call.signals]
        every = all(note.statistic or note.plain is not None for note in known)
        if row is not None and row.kind in (Kind.PRODUCT, Kind.QUOTIENT) and len(known) > 1 and every:
            return self.softmax_by_hand(call)
        by_number = len(known) == 1 and row is not None and row.kind is Kind.QUOTIENT and row.name == "div"
        if row is None or row.kind in (Kind.SUM, Kind.PRODUCT, Kind.MOVEMENT, Kind.MASK) or by_number:
            result = self.otherwise(call)
            self._note_statistic(call, result)
            return result
        result = self.plainly(call)
        if every:
            self.noted(result).statistic = True
        return result

    def activation(self, activation: Activation, call: Call | None, reading: Reading) -> Any:
        """An activation, computed by its rule."""
        raise NotImplementedError

    def otherwise(self, call: Call) -> Any:
        """A pointwise call that is no activation."""
        result = self.plain(call.function, call.args, call.kwargs)
        if call.name == "abs" and call.given[0].is_complex():
            self.noted(result).statistic = True  # a length, as is the root of a sum of squares
        steps = call.operation is not None and call.operation.kind is Kind.STEP and not call.given[0].is_complex()
        return map_tensors(Tensor.detach, result) if steps else result


def first_tensor(result: Any) -> Tensor:
    """The tensor that an operation returned, or the first of several: a maximum, without its positions."""
    return result if isinstance(result, Tensor) else tensors_in(result)[0]


def exponent_of(call: Call) -> float | None:
    """The number p of a call that computes x ** p; None for other calls."""
    exponent = call.argument("exponent") if call.name == "pow" else None
    return float(exponent) if isinstance(exponent, (int, float)) else None


def _is_even(call: Call) -> bool:
    """Whether it squares, or f(x) = f(-x) or an exponential: sums of its results are statistics."""
    row = call.operation
    if row is None or (call.signals and call.signals[0].is_complex()):
        return False
    return row.even or exponent_of(call) == 2 or (row.kind is Kind.PRODUCT and _is_repeated(call.signals))


def _is_repeated(signals: Sequence[Tensor]) -> bool:
    """Whether both factors are the same tensor."""
    return len(signals) == 2 and signals[0] is signals[1]


def _moved_again(call: Call, plain: Callable[[], Tensor], position: int) -> Tensor:
    return tensors_in(call.function(plain(), *call.args[1:], **call.kwargs))[position]
