"""Layer-wise relevance propagation as a function mode.

The signal of the backward pass is the multiplier m = R / a. An operation that is linear and sign-preserving needs no
rule, as its plain vector-Jacobian product is LRP-0. All other operations are in the table of operations, each with its
kind, and each kind has its handler here. An operation without a row has no known LRP meaning: it is refused if
relevance reaches it.

Every tensor is a constant, a signal or a weight. A weight is the proportion of a signal that passes. A tensor computed
from weights and constants alone is a weight, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from ...kernels.linear import along_channels
from ...observing import Observer, running_module
from ...rules.composite import Composite
from ...rules.terms import Rule
from ..activation import Activation
from ..bypassing import is_of_parameters, is_users_function
from ..calls import Call, with_tensors
from ..kinds import POINTWISE_KINDS, Kind, Operation
from ..noting import first_tensor
from ..pointwise import Reading
from ..registering import OWN_GRADIENT
from ..tensors import tensors_in
from ..whole import Opaque
from . import pointwise, products, whole
from .assigning import assign_rules, run_watched
from .cache import WeightCache
from .handlers import HANDLERS
from .inheritance import inherit
from .refusing import RefusingMode
from .trail import Absorption, Trail
from .whole import ModuleRule

# They take the model's parameters themselves; other operations get constants in their place.
_READ_PARAMETERS = frozenset({Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.MATRIX_PRODUCT, Kind.BATCH_NORM})
# To them, a constant is like a signal.
_SUMMING = frozenset({Kind.SUM, Kind.MOVEMENT, Kind.LINEAR, Kind.QUESTION, Kind.STEP})
_LAYERS = _READ_PARAMETERS | {Kind.CONTRACTION, Kind.BILINEAR}


class RelevancePropagation(RefusingMode):
    """Runs a model so that the backward pass is LRP.

    Args:
        model: the network.
        composite: the rule of each linear layer, and of softmax.
        cache: quantities derived from weights, kept between calls.
        unknown: "raise" for operations without LRP meaning, or "gradient".
        account: record the relevance that each layer and each other operation absorbs, for the ledger.
        repeated: several backward passes will follow.
        protected, on_enter, on_exit: see `Propagation`.
        layer_rules: the rules of the linear layers inside some modules, in place of the composite's.
        module_rules: the rules of modules that are taken as a whole.
        from_embeddings: begin at the results of embeddings, for inputs that are token ids.

    Attributes:
        parameters: the module of each parameter and buffer, and of the constants that stand for them, by identity.
    """

    # Sums are not included: a layer needs its output for its share of the relevance.
    _really_in_place = frozenset({F.relu})
    rectifies = False

    def __init__(
        self,
        model: nn.Module,
        composite: Composite,
        cache: WeightCache,
        unknown: str = "raise",
        account: bool = False,
        repeated: bool = False,
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
        layer_rules: Mapping[nn.Module, Rule] = MappingProxyType({}),
        module_rules: Mapping[nn.Module, ModuleRule] = MappingProxyType({}),
        from_embeddings: bool = False,
    ) -> None:
        # Activations have a rule, by `activation` below.
        super().__init__(model, {Activation: self._never}, protected, on_enter, on_exit)
        self.composite, self.cache, self.unknown, self.account = composite, cache, unknown, account
        self.layer_rules, self.repeated, self.from_embeddings = layer_rules, repeated, from_embeddings
        self.module_rules = module_rules
        self.trail = Trail()
        self.watch: Absorption | None = None
        self._constants: dict[Any, bool] = {}
        self.names = {module: name for name, module in model.named_modules()}
        self.parameters = {
            id(tensor): _parametrised(model, name) or module
            for module, name in self.names.items()
            for table in (module._parameters, module._buffers)
            for tensor in table.values()
        }

    @staticmethod
    def _never(_: Any) -> Any:
        raise NotImplementedError

    def carry(self, value: Tensor, carrier: Tensor) -> None:
        """Let the zero-valued leaf `carrier` receive relevance that is not a multiple of the input `value`."""
        self.noted(value).carrier = carrier

    def found_at(self, value: Tensor) -> list[Tensor]:
        """The tensors that hold a tensor's relevance: itself, and the results of operations folded into its layer."""
        return [value, *(found for folded in self.note(value).folded or () for found in self.found_at(folded))]

    def carrier(self, value: Tensor) -> Tensor | None:
        """The tensor that receives relevance of `value` that is not a multiple of it, if it has one."""
        return self.note(value).carrier

    def assign_rules(self) -> None:
        """Give every layer its rule, now that the forward pass is over."""
        assign_rules(self)

    # -- modules that are taken as a whole -----------------------------------------------------------------------------

    def whole_modules(self) -> Collection[nn.Module]:
        """Modules with a rule of their own, and those of a class that a user has registered."""
        return {*self.module_rules, *super().whole_modules()}

    def whole_result(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The output by the module's rule, or by the row of its class."""
        rule = self.module_rules.get(module)
        if rule is None:
            return super().whole_result(module, args, kwargs, output)
        with self.off():
            return whole.by_rule(self, module, rule, args, kwargs, output)

    # -- dispatch ------------------------------------------------------------------------------------------------------

    def _by_row(
        self, row: Operation | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given = tensors_in((*args, *kwargs.values()) if kwargs else args)
        kind = None if row is None else row.kind
        signals: list[Tensor] = []
        parameters: list[Tensor] = []
        for tensor in given:
            if tensor.requires_grad:
                # Parameters and tensors computed earlier do not depend on the input; any other tensor that requires
                # grad does.
                constant = self.note(tensor).carrier is None if tensor.is_leaf else self.is_earlier(tensor)
                # Such as a weight that a torch.autograd.Function has binarised.
                constant = constant or (is_users_function(type(tensor.grad_fn)) and self._is_constant(tensor))
                (parameters if constant else signals).append(tensor)
        if len(signals) > 1 and kind not in _SUMMING:
            computed = [signal for signal in signals if self._is_constant(signal)]
            parameters += computed
            signals = [signal for signal in signals if all(signal is not constant for constant in computed)]
        if row is not None and row.first_only:
            signals = [signal for signal in signals if signal is args[0]][:1]
        if row is not None and row.training is not None:
            args, kwargs = self._in_train_mode(row, args, kwargs)
        if parameters and not (signals and kind in _READ_PARAMETERS):
            args, kwargs, given = self._without_parameters(args, kwargs, parameters)
        if not signals:
            return self._without_signals(row, function, args, kwargs, given)
        call = Call(row, function, args, kwargs, signals, given)
        handler = None if kind is None else HANDLERS.get(kind)
        if row is not None and row.own and kind in OWN_GRADIENT:
            result = self.as_it_is(replace(call, function=Opaque(function)))
        else:
            result = self.unknown_operation(call) if handler is None else handler(self, call)
        if kind not in _LAYERS and kind is not Kind.COMPOSITE:
            inherit(self, call, result)
        return result

    def _is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from parameters alone, where it was not seen, such as in a function of jit."""
        node = tensor.grad_fn
        if node is None:
            return False
        found = self._constants.get(node)
        if found is None:
            found = self._constants[node] = is_of_parameters(node)
        return found

    def _without_parameters(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], parameters: list[Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
        """The arguments with constants in place of parameters."""
        constants = {id(parameter): self.cache.constant(parameter) for parameter in parameters}
        for identity, constant in constants.items():
            owner = self.parameters.get(identity)
            if owner is not None:
                self.parameters[id(constant)] = owner
        args, kwargs = with_tensors(args, kwargs, constants)
        return args, kwargs, tensors_in((*args, *kwargs.values()) if kwargs else args)

    def _without_signals(
        self, row: Operation | None, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]
    ) -> Any:
        """The result for constants, and for tensors computed from signals without a gradient."""
        if row is not None and row.kind in POINTWISE_KINDS and any(map(self.pointwise.varies, given)):
            return self.as_read(Call(row, function, args, kwargs, [], given))
        if row is not None and row.kind is Kind.EMBEDDING and self.from_embeddings:
            return self._begin(function(*args, **kwargs))
        result = super()._by_row(row, function, args, kwargs)
        owner = next((owner for tensor in given if (owner := self.owner_of(tensor)) is not None), None)
        if owner is not None and row is not None and row.kind is not Kind.QUESTION:
            for tensor in tensors_in(result):
                # The result of a layer for constant inputs is none of its parameters.
                self.noted(tensor).owner = None if row.kind in _LAYERS else owner
        return result

    def _begin(self, embedded: Tensor) -> Tensor:
        """A signal that begins here."""
        value = embedded.detach().requires_grad_().clone()
        self.carry(value, torch.zeros_like(embedded, requires_grad=True))
        return value

    def _may_be_kept(self, base: Tensor) -> bool:
        return self.account or super()._may_be_kept(base)

    def _is_free(self, value: Tensor) -> bool:
        # A layer needs its output only for the relevance of readers other than the operations folded into it.
        return not self.account and (self.note(value).produced is not None or super()._is_free(value))

    def owner_of(self, tensor: Tensor) -> nn.Module | None:
        """The module that a constant is a parameter or buffer of, or is made from."""
        return self.parameters.get(id(tensor)) or self.note(tensor).owner

    def owner(self, call: Call) -> nn.Module:
        """The layer of a call: the owner of a parameter among its arguments, else the module that is running."""
        for tensor in call.given:
            if (owner := self.owner_of(tensor)) is not None:
                return owner
        return running_module(self.model)

    def is_kept(self, record: Any) -> bool:
        """Whether a layer has a rule of its own: then no operation is folded into it."""
        return record.module in self.layer_rules

    # -- operations without a handler of their own ---------------------------------------------------------------------

    def as_it_is(self, call: Call) -> Any:
        """An operation whose vector-Jacobian product is right."""
        row = call.operation
        moves = row is not None and row.kind in (Kind.MOVEMENT, Kind.QUESTION) and not row.adds_constants
        if self.account and not moves:
            return run_watched(self, call)
        return self.plain(call.function, call.args, call.kwargs)

    def unknown_operation(self, call: Call) -> Any:
        """An operation that is not in the table."""
        result = self.as_it_is(call)
        if all(self.note(signal).weight for signal in call.signals):
            for tensor in tensors_in(result):
                self.noted(tensor).weight = True
        self.refuse(result, call)
        return result

    def bilinear(self, call: Call, input: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        """A convolution or matrix product whose weight is computed from the input; its bias is added."""
        if bias is not None:
            with self.seeing():
                return call.run_with({id(bias): None}) + along_channels(bias, weight.ndim)
        note = self.note(weight)
        if (note.weight or note.mixture) and any(input is signal for signal in call.signals):
            return self.by_autograd(call, call.run_with({id(weight): weight.detach()}))
        return self.by_autograd(call, products.shared(call) if len(call.signals) > 1 else self.as_it_is(call))

    def product(self, call: Call) -> Any:
        """A product of signals."""
        return products.product(self, call)

    # -- pointwise operations ------------------------------------------------------------------------------------------

    def activation(self, activation: Activation, call: Call | None, reading: Reading) -> Any:
        """An activation, computed by its rule."""
        return pointwise.activation(self, activation, call, reading)

    def otherwise(self, call: Call) -> Any:
        """A pointwise operation that is no activation."""
        return pointwise.otherwise(self, call)

    def of_statistic(self, call: Call) -> Any:
        """The result of a call whose operands are statistics."""
        return pointwise.of_statistic(self, call, super().of_statistic)

    def softmax_by_hand(self, call: Call) -> Tensor:
        """Exponentials that sum to 1."""
        return pointwise.softmax_by_hand(self, call)

    def plainly(self, call: Call) -> Tensor:
        """The result of a call whose operands count as no activations; the ledger may watch the relevance it keeps."""
        if self.watch is None:
            return super().plainly(call)
        swap = {
            id(signal): self.watch.watch_signal(signal) if (plain := self.note(signal).plain) is None else plain()
            for signal in call.signals
        }
        return first_tensor(call.run_with(swap))


def _parametrised(model: nn.Module, name: str) -> nn.Module | None:
    """The module whose weight a parametrisation of this name computes; None for any other module."""
    before, parametrises, _ = f".{name}.".partition(".parametrizations.")
    module = model.get_submodule(before[1:]) if parametrises else None
    return module if module is not None and is_parametrized(module) else None
