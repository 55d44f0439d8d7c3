"""Captum's propagation rules on `module.rule`, applied as Captum defines them.

On a convolution or `nn.Linear`, one of Captum's own rules becomes a rule of this package for the linear layer. On any
other leaf module, and where a user's subclass overrides a method of Captum's rules, the rule runs as in Captum: its
methods are called, on a copy of the rule and of the module. As in Captum, a rule on a container is ignored, and so is
one on `nn.ReLU`, `nn.Dropout` and `nn.Tanh`, which pass relevance unchanged.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..captum_api import (
    SUPPORTED_NON_LINEAR_LAYERS,
    Alpha1_Beta0_Rule,
    EpsilonRule,
    GammaRule,
    IdentityRule,
    PropagationRule,
)
from ..errors import NotSupportedError, OptionTypeError
from ..kernels.tracing import python_runs_again
from ..observing import describe
from ..rules.lrp import Epsilon, Pass
from ..rules.terms import LinearOperation, Rule, Term

_OWN_RULES = (IdentityRule, GammaRule, Alpha1_Beta0_Rule, EpsilonRule)
_CALLED = ("_manipulate_weights", "_create_backward_hook_input", "_create_backward_hook_output")
# These belong to Captum's two forward passes over the model itself.
_OF_CAPTUMS_PASSES = (
    "forward_hook",
    "forward_hook_weights",
    "forward_pre_hook_activations",
    "backward_hook_activation",
)
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LINEAR_FORWARDS = frozenset(kind.forward for kind in _LINEAR)


@dataclass(frozen=True)
class ModifiedWeight(Rule):
    """R_i = x_i (W'^T (R / st(W' x + b)))_i for a modified weight W': Captum's form of gamma and alpha-beta."""

    name: str
    modify: Callable[[Tensor], Tensor]
    without_bias: bool
    epsilon: float

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        weight = operation.cached(self.name, lambda: self.modify(operation.weight))
        bias = None if self.without_bias else operation.bias
        yield Term(weight, operation.linear(operation.input, weight, bias), self.epsilon, bias=bias)


@dataclass(frozen=True)
class CaptumRule:
    """A rule of Captum's for a module, by the methods of Captum's class; see `ModuleRule`."""

    rule: PropagationRule

    def __str__(self) -> str:
        return type(self.rule).__name__

    @property
    def unchanged(self) -> bool:
        """Whether relevance passes unchanged."""
        return _own_rule(self.rule) is IdentityRule

    @property
    def proportional(self) -> bool:
        """Whether R is the input times the vector-Jacobian product, which holds unless a rule overrides it."""
        return not _overrides(self.rule, PropagationRule, _CALLED[1:2])

    def modified(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> nn.Module | None:
        """A copy of the module with the weights that the rule gives it."""
        if not _overrides(self.rule, EpsilonRule, _CALLED[:1]):
            return None
        own = _layer_rule(self.rule)
        if isinstance(own, ModifiedWeight):
            return _with_weight(module, own)
        if not python_runs_again():
            raise NotSupportedError(
                f"{self} changes weights by code of yours, which a recording cannot hold: call the attribution itself, "
                "without create_graph, or pass rules=Composite(...)"
            )
        other = copy.deepcopy(module)
        copy.copy(self.rule)._manipulate_weights(other, inputs, output)
        return other

    def pass_down(
        self,
        relevance: Tensor,
        inputs: Sequence[Tensor],
        output: Tensor,
        transpose: Callable[[Tensor], Sequence[Tensor]],
    ) -> Sequence[Tensor]:
        """The multipliers or the relevance at the inputs, as the hooks of the rule compute them."""
        rule = copy.copy(self.rule)
        rule.relevance_input, rule.relevance_output = defaultdict(list), {}
        rule._has_single_input = len(inputs) == 1
        signal = rule._create_backward_hook_output(output)(relevance)
        # Without a stabiliser, 0 / 0 is no relevance.
        signals = transpose(torch.where(relevance == 0, 0.0, signal))
        if self.proportional:
            return signals
        return [rule._create_backward_hook_input(value)(part) for value, part in zip(inputs, signals, strict=True)]


def _with_weight(module: nn.Module, rule: ModifiedWeight) -> nn.Module:
    """The module with a modified weight, if it has one; the rest is the module's own."""
    other = type(module).__new__(type(module))
    other.__dict__.update(module.__dict__)
    tables = {table: dict(getattr(module, table)) for table in ("_parameters", "_buffers")}
    for entries in tables.values():
        for name, tensor in entries.items():
            if tensor is not None and name == "weight":
                entries[name] = rule.modify(tensor.detach())
            elif tensor is not None and name == "bias" and rule.without_bias:
                entries[name] = torch.zeros_like(tensor)
    other.__dict__.update(tables)
    return other


def rules_on(model: nn.Module) -> tuple[dict[nn.Module, Rule], dict[nn.Module, CaptumRule]]:
    """The rules that the user put on modules: those of linear layers, and those of modules as a whole.

    Raises:
        OptionTypeError: a module's `rule` is not one of Captum's, or overrides a step that Captum applies to the whole
            model.
    """
    layers: dict[nn.Module, Rule] = {}
    wholes: dict[nn.Module, CaptumRule] = {}
    for module in model.modules():
        # Not `getattr`: a module looks in three places and raises before it gives up, for every layer of every call.
        rule = module.__dict__.get("rule", getattr(type(module), "rule", None))
        if rule is None:
            continue
        try:
            if _is_ignored(module, rule):
                continue
            layer, whole = _layer_rule(rule), _whole_rule(module, rule)
        except OptionTypeError as error:
            raise OptionTypeError(f"layer {describe(model, module)}: {error}") from None
        if layer is not None:
            layers[module] = layer
        if whole is not None:
            wholes[module] = whole
    return layers, wholes


def _layer_rule(rule: PropagationRule) -> Rule | None:
    """The rule of this package that equals it; None if its methods must be called."""
    own = _own_rule(rule)
    if own is IdentityRule:
        return Pass()
    if isinstance(rule, GammaRule) and own is not None:
        gamma = rule.gamma
        name = f"captum gamma {gamma}"
        return ModifiedWeight(name, lambda w: w + gamma * w.clamp(min=0), rule.set_bias_to_zero, rule.STABILITY_FACTOR)
    if isinstance(rule, Alpha1_Beta0_Rule) and own is not None:
        return ModifiedWeight("positive", lambda w: w.clamp(min=0), rule.set_bias_to_zero, rule.STABILITY_FACTOR)
    return None if own is None else Epsilon(rule.STABILITY_FACTOR)


def _whole_rule(module: nn.Module, rule: PropagationRule) -> CaptumRule | None:
    """The rule of the module as a whole; None if it is a linear layer's rule, or one that Captum ignores.

    Raises:
        OptionTypeError: it overrides a step that Captum applies to the whole model.
    """
    if type(module) in SUPPORTED_NON_LINEAR_LAYERS:
        return None
    for name in _OF_CAPTUMS_PASSES:
        if _overrides(rule, PropagationRule, (name,)):
            raise OptionTypeError(
                f"{type(rule).__name__} overrides {name}, which belongs to Captum's passes over the model; override "
                f"{', '.join(_CALLED[:-1])} or {_CALLED[-1]}, or pass rules=Composite(...)"
            )
    is_linear = isinstance(module, _LINEAR) and type(module).forward in _LINEAR_FORWARDS
    return None if is_linear and _own_rule(rule) is not None else CaptumRule(rule)


def _is_ignored(module: nn.Module, rule: Any) -> bool:
    """Whether a module is a container, whose rule is ignored.

    Raises:
        OptionTypeError: the rule is not one of Captum's.
    """
    if not isinstance(rule, PropagationRule):
        raise OptionTypeError(
            f"module.rule of {type(module).__name__} is a {type(rule).__name__}: only Captum's rules are honoured "
            "there; pass others as LRPTranspose(model, rules=Composite(...))"
        )
    return not module._modules.keys() <= {"parametrizations"}


def _own_rule(rule: PropagationRule) -> type[PropagationRule] | None:
    """The class of Captum's whose rule this is; None for another rule, or if it overrides a method of that class."""
    own = next((kind for kind in type(rule).__mro__ if kind in _OWN_RULES), None)
    return None if own is None or _overrides(rule, own, (*_CALLED, *_OF_CAPTUMS_PASSES)) else own


def _overrides(rule: PropagationRule, base: type[PropagationRule], methods: Sequence[str]) -> bool:
    """Whether a rule has other methods than one of Captum's classes."""
    kind = type(rule)
    return any(name in vars(rule) or getattr(kind, name) is not getattr(base, name) for name in methods)
