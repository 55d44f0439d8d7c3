"""The function mode: PyTorch's own autograd, in which a few operations get another backward rule.

While a `Propagation` is open, every torch function that this thread calls passes through it. The row of the table in
`operations` tells what kind of operation it is; the rule for that kind computes it, and everything else runs as it is,
so that autograd differentiates it.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from .calls import Call
from .convolution import parse_convolution
from .functional import FunctionalMode
from .kinds import POINTWISE_KINDS, Kind, Operation
from .modules import Observer, describe, running_module
from .notes import NOTHING, Note
from .operations import operation_of
from .pointwise import Activation, Pointwise, Reading
from .pooling import parse_pooling
from .tensors import TensorTable, map_tensors, tensors_in

Handler = Callable[[Any], Any]


class Propagation(FunctionalMode):
    """Runs a model under backward rules, on this thread, leaving the model as it is.

    Args:
        model, protected, on_enter, on_exit: see `FunctionalMode`.
        rules: for each type of operation, a function of the operation that returns its result, differentiable by the
            rule. Operations without an entry are differentiated as usual.

    Attributes:
        handled: the autograd nodes of all operations that a rule was applied to.
        notes: what is known of tensors.
    """

    # Whether a rule asks for the sign of a signal.
    _rectifies = True

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[type, Handler],
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
    ) -> None:
        super().__init__(model, protected, on_enter, on_exit)
        self.rules = rules
        self.handled: set[Any] = set()
        self.notes: TensorTable[Note] = TensorTable()
        self.pointwise = Pointwise(self.notes, turns=self._rectifies)
        self._warned: set[nn.Module] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.pointwise.forget()
        for note in self.notes.values():
            note.settle()

    def _may_be_overwritten(self, value: Tensor) -> bool:
        return self.note(value).link is None and super()._may_be_overwritten(value)

    def note(self, tensor: Tensor) -> Note:
        """What is known of a tensor, to be read."""
        return self.notes.get(tensor) or NOTHING

    def noted(self, tensor: Tensor) -> Note:
        """What is known of a tensor, to be added to."""
        note = self.notes.get(tensor)
        if note is None:
            note = self.notes[tensor] = Note()
        return note

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An out-of-place call: by its rule if it has one, else as it is."""
        row = operation_of(function)
        if row is None:
            return self._plain(function, args, kwargs)
        if row.training is not None:
            args, kwargs = self._in_train_mode(row, args, kwargs)
        handler = self._handlers.get(row.kind)
        return self._plain(function, args, kwargs) if handler is None else handler(self, row, function, args, kwargs)

    def _by_rule(self, operation: Any) -> Any:
        """An operation as the rule for its type computes it."""
        result = self.rules[type(operation)](operation)
        self.handled.update(tensor.grad_fn for tensor in tensors_in(result))
        return result

    def _parsed(
        self, parse: Callable[..., Any], row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.pointwise.forget()
        operation = parse(row, function, args, kwargs)
        if operation is None or type(operation) not in self.rules or not operation.input.requires_grad:
            return self._plain(function, args, kwargs)
        return self._by_rule(operation)

    def _convolution(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._parsed(parse_convolution, row, function, args, kwargs)

    def _max_pooling(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._parsed(parse_pooling, row, function, args, kwargs)

    def _batch_norm(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As it is; PyTorch's own gradient on a CPU is wrong for one example whose signal lies otherwise in memory."""
        result = self._plain(function, args, kwargs)
        output, value = first_tensor(result), row.argument(args, kwargs, "input")
        if output.requires_grad and output.is_cpu and len(output) == 1:
            last = not value.is_contiguous() and value.ndim == 4
            order = torch.channels_last if last else torch.contiguous_format
            output.register_hook(lambda signal: None if signal is None else signal.contiguous(memory_format=order))
        return result

    def _composite(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In its parts, if activations may be among them."""
        if Activation not in self.rules or row.parts is None or not row.contains_activations:
            return self._plain(function, args, kwargs)
        with self.seeing():
            return row.parts(*args, **kwargs)

    def _created(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self._plain(function, args, kwargs)
        if row.number is not None and isinstance(result, Tensor):
            self.noted(result).number = row.number
        return result

    def _moved(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is known of values is known of them in another place."""
        source = args[0] if args else None
        if type(source) in (list, tuple) and row.name == "stack":
            return self.stacked(row, function, args, kwargs)
        note = self.notes.get(source) if isinstance(source, Tensor) else None
        if row.identity and isinstance(source, Tensor) and (source.requires_grad or note is not None):
            return self._elementwise(row, function, args, kwargs)
        result = self._plain(function, args, kwargs)
        if note is None:
            # What is made of parameters alone is a constant.
            is_parameter = isinstance(source, nn.Parameter) and source.requires_grad
            return map_tensors(Tensor.detach, result) if is_parameter else result
        if note.statistic or note.plain is not None or note.number is not None:
            self.move_statistic(self._call_of(row, function, args, kwargs), note, result)
        return result

    def move_statistic(self, call: Call, note: Note, result: Any) -> None:
        for position, tensor in enumerate(tensors_in(result)):
            moved = self.noted(tensor)
            moved.statistic, moved.number = note.statistic, note.number
            if note.plain is not None:
                moved.plain = partial(_moved_again, call, note.plain, position)

    def stacked(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Functions of one tensor side by side, of which a maximum may be taken."""
        call = self._call_of(row, function, args, kwargs)
        result = self._plain(function, args, kwargs)
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        link = self.pointwise.read_stack(call, dim)
        if link is not None:
            self.noted(result).link = link
        return result

    def _elementwise(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An activation, or a part of one: see `chains`."""
        if Activation not in self.rules:
            return self._plain(function, args, kwargs)
        call = self._call_of(row, function, args, kwargs)
        if not call.signals and not any(self.note(tensor).link is not None for tensor in call.given):
            result = self._plain(function, args, kwargs)
            return map_tensors(lambda t: t.detach() if t.requires_grad and t.grad_fn is not None else t, result)
        if len(call.given) == 1 and row.name in ("max", "min"):
            return self.reduced(call, self._plain)
        return self.as_read(call)

    def _call_of(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = tensors_in(args) + tensors_in(kwargs) if kwargs else tensors_in(args)
        signals = [tensor for tensor in given if tensor.requires_grad and not isinstance(tensor, nn.Parameter)]
        if row.name.endswith("_as"):  # the second only has a shape
            signals = [signal for signal in signals if signal is args[0]][:1]
        return Call(row, function, args, kwargs, signals, given)

    def _reduction(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A sum of squares, magnitudes or exponentials is a statistic."""
        if not len(self.notes):
            return self._plain(function, args, kwargs)
        call = self._call_of(row, function, args, kwargs)
        return self.reduced(call, self._plain)

    def _statistic(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self._plain(function, args, kwargs)
        for tensor in tensors_in(result)[:1]:  # of var_mean the first
            self.noted(tensor).statistic = True
        return result

    def reduced(self, call: Call, plain: Callable[..., Any]) -> Any:
        """A call of an operation that sums or chooses, done by `plain`."""
        if len(call.given) == 1 and (reading := self.pointwise.read_reduction(call)) is not None:
            whole = self._read(call, reading)
            result = call.run()
            return whole if isinstance(result, Tensor) else type(result)((whole, *result[1:]))
        result = plain(call.function, call.args, call.kwargs)
        self._note_statistic(call, result)
        return result

    def _note_statistic(self, call: Call, result: Any) -> None:
        notes = [self.note(signal) for signal in call.signals]
        squared = call.operation is not None and call.operation.kind is Kind.CONTRACTION and _is_repeated(call.signals)
        if isinstance(result, Tensor) and notes and (squared or all(n.statistic or n.plain is not None for n in notes)):
            noted = self.noted(result)
            noted.statistic, noted.plain = True, partial(self.plainly, call)

    # -- pointwise operations, of which several may be one activation --------------------------------------------------

    def as_read(self, call: Call) -> Any:
        """A pointwise call, by what it comes to."""
        if len(call.signals) == 1 and call.name == "exp" and self.note(call.signals[0]).logits is not None:
            return self.softmax_by_hand(call)
        reading = self.pointwise.read(call)
        if reading.link is None and call.name in ("assignment", "index_put") and self._rectifies:
            self._warn_of_assignment(call)
        return self._read(call, reading)

    def _warn_of_assignment(self, call: Call) -> None:
        """What is written where a mask says may be an activation, which takes more calls than are read here."""
        if any(tensor.dtype is torch.bool and self.note(tensor).link is not None for tensor in call.given):
            warnings.warn(
                f"{describe(self.model, running_module(self.model))} assigns to where a mask says, which is "
                "differentiated as it is: if it is an activation, write it with torch.where",
                stacklevel=2,
            )

    def softmax_by_hand(self, call: Call) -> Tensor:
        """Exponentials that sum to 1."""
        return self.plainly(call)

    def _logarithm(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self._plain(function, args, kwargs)
        self.note_logarithm(self._call_of(row, function, args, kwargs), result)
        return result

    def note_logarithm(self, call: Call, result: Tensor) -> None:
        """A log-softmax, or the logarithm of a softmax's denominator: its exponential is none of an activation."""
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
            result = self.otherwise(call)
        else:
            if not activation.name:
                with torch.no_grad():
                    activation.value = first_tensor(call.run())
            result = self.activation(activation, call, reading)
            self.pointwise.remember(activation.input)
        for tensor in tensors_in(result)[:1]:
            self._note_pointwise(call, reading, tensor)
        return result

    def _note_pointwise(self, call: Call, reading: Reading, result: Tensor) -> None:
        """What the result of a pointwise call may still become a part of."""
        link = reading.link
        if link is not None and link.root is not result and link.root is not None:
            self.noted(result).link = link
        row = call.operation
        if len(call.signals) == 2 and self.note(call.signals[1]).log_total_of is call.signals[0] and call.name == "sub":
            noted = self.noted(result)
            noted.logits, noted.plain = call.signals[0], partial(self.plainly, call)
        even = row is not None and (row.even or (row.kind is Kind.PRODUCT and _is_repeated(call.signals)))
        if even or (call.signals and all(self.note(signal).plain is not None for signal in call.signals)):
            self.noted(result).plain = partial(self.plainly, call)

    def plainly(self, call: Call) -> Tensor:
        """The result of a call whose operands count as no activations, if they can be had so."""
        swap = {id(signal): plain() for signal in call.signals if (plain := self.note(signal).plain) is not None}
        return first_tensor(call.run_with(swap))

    def of_statistic(self, call: Call) -> Any:
        """What is computed from a statistic is one; what is divided by one is a signal, as before."""
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

    def activation(self, activation: Activation, call: Call, reading: Reading) -> Any:
        """An activation, by its rule."""
        return self._by_rule(activation)

    def otherwise(self, call: Call) -> Any:
        """A pointwise call that is no activation."""
        return self._plain(call.function, call.args, call.kwargs)

    def _in_train_mode(
        self, row: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an operation that may be in train mode, with copies of what it would then overwrite."""
        name, default = row.training or ("", False)
        if not row.argument(args, kwargs, name, default):
            return args, kwargs
        module = running_module(self.model)
        if module.training and module not in self._warned:
            self._warned.add(module)
            warnings.warn(
                f"{describe(self.model, module)} is in train mode: the map is random (dropout) or depends on the rest "
                "of the batch (batch norm); call model.eval() first",
                stacklevel=2,
            )
        if not row.statistics:
            return args, kwargs
        positions = [row.arguments.index(name) for name in row.statistics]
        own = [
            value.clone() if position in positions and isinstance(value, Tensor) else value
            for position, value in enumerate(args)
        ]
        copies = {
            name: value.clone() if name in row.statistics and isinstance(value, Tensor) else value
            for name, value in kwargs.items()
        }
        return tuple(own), copies

    _handlers: Mapping[Kind, Callable[..., Any]] = {
        Kind.CREATION: _created,
        Kind.MOVEMENT: _moved,
        Kind.CONVOLUTION: _convolution,
        Kind.MAX_POOLING: _max_pooling,
        Kind.BATCH_NORM: _batch_norm,
        Kind.COMPOSITE: _composite,
        Kind.LINEAR: _reduction,
        Kind.SELECTION: _reduction,
        Kind.CONTRACTION: _reduction,
        Kind.STATISTIC: _statistic,
        Kind.LOG_SOFTMAX: _logarithm,
    } | dict.fromkeys(POINTWISE_KINDS, _elementwise)


def first_tensor(result: Any) -> Tensor:
    """The tensor that an operation returned, or the first of several: a maximum, beside where it is."""
    return result if isinstance(result, Tensor) else tensors_in(result)[0]


def _is_repeated(signals: Sequence[Tensor]) -> bool:
    """Whether a tensor meets itself."""
    return len(signals) == 2 and signals[0] is signals[1]


def _moved_again(call: Call, plain: Callable[[], Tensor], position: int) -> Tensor:
    return tensors_in(call.function(plain(), *call.args[1:], **call.kwargs))[position]
