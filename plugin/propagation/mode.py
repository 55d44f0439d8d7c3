"""The function mode: PyTorch's own autograd, in which a few operations get another backward rule.

While a `Propagation` is open, every torch function that this thread calls passes through it. The row of the table in
`operations` gives the kind of an operation; the rule for that kind computes it. All other operations run unchanged,
so that autograd differentiates them.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnseenOperationError
from ..observing import Observer, describe, running_module
from . import parts
from .activation import Activation
from .bypassing import is_of_function, is_of_parameters
from .calls import Call
from .convolution import parse_convolution
from .joining import Joined, picks
from .kinds import POINTWISE_KINDS, Kind, Operation
from .moving import note_moved
from .operations import is_foreign, is_operator, module_operation, operation_of, registered_modules
from .pointwise import Reading
from .pooling import parse_pooling
from .reading import ReadingMode
from .registering import OWN_GRADIENT
from .tensors import map_tensors, tensors_in
from .visibility import ACTIVATION_NODES, Graph
from .whole import Opaque, run_module

Handler = Callable[[Any], Any]

_ORDER = torch.contiguous_format
# Operations that find positions from values.
_PLACES = frozenset({"nonzero", "argwhere", "argmax", "argmin", "argsort", "one_hot"})
# Sums that may multiply an operand with a number.
_SCALED = {"add": parts.scaled_add, "sub": parts.scaled_sub}
_WRITING = frozenset({"masked_scatter", "scatter", "index_fill", "index_copy"})


class Propagation(ReadingMode):
    """Runs a model under backward rules, on this thread, without changing the model.

    Args:
        model, protected, on_enter, on_exit: see `FunctionalMode`.
        rules: for each type of operation, a function of the operation that returns its result, differentiable by the
            rule. Operations without an entry are differentiated as usual.

    Attributes:
        handled: the autograd nodes of all activations that a rule was applied to.
        foreign: the autograd nodes of other libraries' operators without a row, and the place of their call.
        unlisted: the same for PyTorch's own operations.
    """

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
        self.foreign: dict[Any, str] = {}
        self.unlisted: dict[Any, str] = {}
        self._warned: set[nn.Module] = set()
        self._follows_batch_norm = False

    def check(self, output: Tensor) -> None:
        """Refuse to explain a tensor of this forward pass if something on the way to it was not seen.

        Raises:
            UnseenOperationError: an activation escaped its rule, an operation is not in the table, or a function read a
                value that had been overwritten.
        """
        graph = Graph(output, ACTIVATION_NODES)
        graph.check_current(self.overwritten, self.began)
        if Activation in self.rules:
            graph.check_all_listed(self.unlisted)
            graph.check_all_handled(self.handled, self.foreign, self.began)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An out-of-place call: by its rule if it has one, else unchanged."""
        if self._whole is not None and self._whole.inside:
            return self._without_rules(function, args, kwargs)
        return self._by_row(operation_of(function), function, args, kwargs)

    def _by_row(
        self, row: Operation | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if row is None:
            result = self.plain(function, args, kwargs)
            self._note_unlisted(function, tensors_in((*args, *kwargs.values())), tensors_in(result))
            return result
        if row.training is not None:
            args, kwargs = self._in_train_mode(row, args, kwargs)
        if row.own and row.kind in OWN_GRADIENT:
            return self.plain(Opaque(function), args, kwargs)
        handler = self._handlers.get(row.kind)
        return self.plain(function, args, kwargs) if handler is None else handler(self, row, function, args, kwargs)

    def _without_rules(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call inside a module that is taken as a whole."""
        row = operation_of(function)
        if row is not None and row.training is not None:
            args, kwargs = self._in_train_mode(row, args, kwargs)
        return self.plain(function, args, kwargs)

    def _note_unlisted(self, function: Callable[..., Any], given: list[Tensor], results: list[Tensor]) -> None:
        """Note the nodes of an operation without a row: it may be an activation."""
        before, foreign = {tensor.grad_fn for tensor in given}, is_foreign(function)
        # `Graph` knows of a user's torch.autograd.Function by itself.
        known = foreign and not is_operator(function)
        nodes = [t.grad_fn for t in results if t.grad_fn not in before and not (known and is_of_function(t))]
        if not nodes or all(is_of_parameters(node) for node in nodes):
            return
        name = ".".join(str(function).split(".")[:2]) if is_operator(function) else getattr(function, "__name__", "")
        place = f"{describe(self.model, running_module(self.model))} calls {name or function}"
        if any(tensor.is_nested for tensor in results):
            raise UnseenOperationError(f"{place}, whose result is a nested tensor: pad its parts to one size instead")
        (self.foreign if foreign else self.unlisted).update(dict.fromkeys(nodes, place))

    def whole_modules(self) -> Collection[nn.Module]:
        """Modules of a class that a user has registered."""
        return registered_modules(self.model) if Activation in self.rules else ()

    def whole_result(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The result by the row of the module's class."""
        row = module_operation(type(module))
        if row is None:
            return output
        if row.parts is not None:
            args, kwargs = map_tensors(self.as_received, args), map_tensors(self.as_received, kwargs)
            return self.current(row.parts(module, *args, **kwargs))
        with self.off():
            return self._by_row(row, run_module, (module, *args), kwargs)

    def activation(self, activation: Activation, call: Call | None, reading: Reading) -> Any:
        """An activation by its rule; a function without a meaning by itself, such as 1 / x, by its gradient."""
        if reading.remedy and call is not None:
            return self.otherwise(call)
        result = self.rules[Activation](activation)
        self.handled.add(result.grad_fn)
        return result

    def _parsed(
        self, parse: Callable[..., Any], row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.pointwise.forget()
        operation = parse(row, function, args, kwargs)
        if operation is None or type(operation) not in self.rules or not operation.input.requires_grad:
            return self.plain(function, args, kwargs)
        return self.rules[type(operation)](operation)

    def _convolution(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        weight = args[1] if args[1:] else kwargs.get("weight")
        if type(weight) is not nn.Parameter:
            self.check_masks(self._call_of(row, function, args, kwargs))
        return self._parsed(parse_convolution, row, function, args, kwargs)

    def _max_pooling(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and isinstance(args[0], Tensor) and self.pointwise.varies(args[0]):
            self.chosen(self._call_of(row, function, args, kwargs))  # refuses a choice between functions of one tensor
        return self._parsed(parse_pooling, row, function, args, kwargs)

    def _batch_norm(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call, unchanged. PyTorch's gradient on a CPU is wrong for one example whose signal is permuted."""
        if not self._follows_batch_norm:
            value = row.argument(args, kwargs, "input")
            self._follows_batch_norm = value.is_cpu and value.shape[0] == 1
        return self.plain(function, args, kwargs)

    def _straightened(self, row: Operation, source: Any) -> None:
        """Return the signal of a permuted tensor in the memory order of the forward pass."""
        if self._follows_batch_norm and row.permutes and isinstance(source, Tensor) and source.requires_grad:
            source.register_hook(lambda signal: None if signal is None else signal.clone(memory_format=_ORDER))

    def _composite(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The parts of an operation, if activations may be among them."""
        if Activation not in self.rules or row.parts is None or not row.contains_activations:
            return self.plain(function, args, kwargs)
        with self.seeing():
            return row.parts(*args, **kwargs)

    def _created(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self.plain(function, args, kwargs)
        number = row.created(args, kwargs)
        if number is not None and isinstance(result, Tensor):
            self.noted(result).number = number
        if row.name in _PLACES:
            self.note_places(row.name, tensors_in((args, kwargs))[0], result)
        return result

    def _moved(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A movement: the notes on values also hold for the moved values."""
        source = args[0] if args else None
        if type(source) in (list, tuple) and (row.joins or len(self.notes)):
            result, call = self.plain(function, args, kwargs), self._call_of(row, function, args, kwargs)
            if row.joins:
                self.note_join(call, result)
            else:
                self.joined(call, result)
            return result
        self._straightened(row, source)
        note = self.notes.get(source) if isinstance(source, Tensor) else None
        if row.identity and isinstance(source, Tensor) and (source.requires_grad or note is not None):
            return self._elementwise(row, function, args, kwargs)
        result = self.plain(function, args, kwargs)
        if isinstance(source, Tensor) and (not source.requires_grad or isinstance(source, nn.Parameter)):
            # A tensor made of parameters alone is a constant.
            result = map_tensors(Tensor.detach, result) if source.requires_grad else result
            if len(args) > 1 and (places := tensors_in(args[1:])):
                result = self.note_lookup(self._call_of(row, function, args, kwargs), places, result)
        if note is None:
            return result
        if note.link is not None or note.moved_link is not None:
            call = self._call_of(row, function, args, kwargs)
            if picks(call, self.is_place) and Joined.of(note) is not None:
                self.refuse_choice(call)
            note_moved(self.notes, args, kwargs, function, result)
        if note.mixed is not None:
            self.note_squares(self._call_of(row, function, args, kwargs), note.mixed, result)
        if note.selected_by is not None:
            self.note_selected(result, tensors_in(source))
        if note.statistic or note.plain is not None or note.number is not None or note.places:
            self.move_statistic(self._call_of(row, function, args, kwargs), note, result)
        return result

    def _looked_up(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._call_of(row, function, args, kwargs)
        return self.note_lookup(call, call.given[:1], self.plain(function, args, kwargs))

    def _matrix_product(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        weight = args[1] if args[1:] else kwargs.get("weight")
        if type(weight) is not nn.Parameter:
            self.check_masks(self._call_of(row, function, args, kwargs))
        return self.plain(function, args, kwargs)

    def _elementwise(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An activation, or a part of one: see `chains`."""
        if Activation not in self.rules:
            return self.plain(function, args, kwargs)
        if kwargs and "alpha" in kwargs and row.name in _SCALED:
            with self.seeing():  # a number that an activation is multiplied with belongs to it
                return _SCALED[row.name](*args, **kwargs)
        reading = self.pointwise.read_activation(row, function, args, kwargs)
        if reading is not None and reading.activation is not None:
            return self.as_activation(None, reading, reading.activation)
        call = self._call_of(row, function, args, kwargs)
        if not call.signals and not any(map(self.pointwise.varies, call.given)):
            result = self.plain(function, args, kwargs)
            return map_tensors(lambda t: t.detach() if t.requires_grad and t.grad_fn is not None else t, result)
        if len(call.given) == 1 and row.name in ("max", "min"):
            return self.reduced(call, self.plain)
        return self.as_read(call)

    def _reduction(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A sum of squares, magnitudes or exponentials is a statistic."""
        if not len(self.notes):
            return self.plain(function, args, kwargs)
        call = self._call_of(row, function, args, kwargs)
        if row.name in _WRITING:
            self.warn_of_assignment(call)
        return self.reduced(call, self.plain)

    def _statistic(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self.chosen(self._call_of(row, function, args, kwargs))
        if result is not None:
            return result
        result = self.plain(function, args, kwargs)
        for tensor in tensors_in(result)[:1]:  # the first result of var_mean
            self.noted(tensor).statistic = True
        return result

    def _logarithm(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._call_of(row, function, args, kwargs)
        result = self.chosen(call)
        if result is None:
            result = self.plain(function, args, kwargs)
            self.note_logarithm(call, result)
        return result

    def _factors(self, row: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self.chosen(self._call_of(row, function, args, kwargs))
        return self.plain(function, args, kwargs) if result is None else result

    def _in_train_mode(
        self, row: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an operation that may be in train mode, with copies of those it would then overwrite."""
        name, default = row.training or ("", False)
        if not row.argument(args, kwargs, name, default):
            return args, kwargs
        if "p" in row.arguments and row.argument(args, kwargs, "p", 0.5) == 0:  # a dropout that drops nothing
            return args, kwargs
        module = running_module(self.model)
        # Instance norm in train mode depends on nothing else.
        if module.training and module not in self._warned and row.kind is not Kind.NORM:
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
        Kind.FACTORS: _factors,
        Kind.SOFTMAX: _factors,
        Kind.UNRULED: _factors,
        Kind.MATRIX_PRODUCT: _matrix_product,
        Kind.BILINEAR: _matrix_product,
        Kind.EMBEDDING: _looked_up,
    } | dict.fromkeys(POINTWISE_KINDS, _elementwise)
