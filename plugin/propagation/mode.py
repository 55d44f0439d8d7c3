"""The function mode: PyTorch's own autograd, in which a few operations get another backward rule.

While a `Propagation` is open, every torch function that this thread calls passes through it. The row of the table in
`operations` gives the kind of an operation; the rule for that kind computes it. All other operations run unchanged,
so that autograd differentiates them.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import UnseenOperationError
from ..observing import Observer, describe, running_module
from .activation import Activation, own_gradient
from .bypassing import is_of_function, is_of_parameters
from .calls import Call
from .handlers import HANDLERS
from .kinds import Kind, Operation
from .operations import is_foreign, is_operator, module_operation, operation_of, registered_modules
from .pointwise import Reading, is_exponential
from .reading import ReadingMode
from .registering import OWN_GRADIENT
from .shapes import shape_of
from .tensors import map_tensors, tensors_in
from .visibility import ACTIVATION_NODES, Graph
from .whole import Opaque, run_module

Handler = Callable[[Any], Any]


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
        self.is_gradient = rules.get(Activation) is own_gradient
        self.rectifies = self.rectifies and not self.is_gradient
        super().__init__(model, protected, on_enter, on_exit)
        self.rules = rules
        self.handled: set[Any] = set()
        self.foreign: dict[Any, str] = {}
        self.unlisted: dict[Any, str] = {}
        self._warned: set[nn.Module] = set()

    def check(self, output: Tensor) -> None:
        """Refuse to explain a tensor of this forward pass if something on the way to it was not seen.

        Raises:
            UnseenOperationError: an activation escaped its rule, an operation is not in the table, or a function read a
                value that had been overwritten.
        """
        graph = Graph(output, ACTIVATION_NODES)
        graph.check_current(self.overwritten, self.began)
        if Activation in self.rules and not self.is_gradient:
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
        handler = HANDLERS.get(row.kind)
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
        if not self.is_gradient and any(tensor.is_nested for tensor in results):
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
        """An activation by its rule; a function with a pole, such as 1 / x, by its gradient."""
        if reading.remedy and call is not None and not _is_exponential(activation, call):
            return self.otherwise(call)
        result = self.rules[Activation](activation)
        self.handled.add(result.grad_fn)
        return result

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


def _is_exponential(activation: Activation, call: Call) -> bool:
    shape = shape_of(activation.function, activation.input.ndim)
    return is_exponential(call) if shape is None else shape.exponential is not None
