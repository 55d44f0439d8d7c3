"""Captum's propagation rules on `module.rule`, honoured as they are written there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from captum.attr._utils.lrp_rules import (
    Alpha1_Beta0_Rule,
    EpsilonRule,
    GammaRule,
    IdentityRule,
    PropagationRule,
)
from torch import Tensor, nn

from ..errors import OptionTypeError
from ..rules.lrp import Epsilon, LinearOperation, Pass, Rule, Term


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


def rule_on_module(module: nn.Module) -> Rule | None:
    """The rule that a user put on a module, or None.

    Raises:
        OptionTypeError: `module.rule` is not a rule of Captum's.
    """
    # Not `getattr`: a module looks in three places and raises before it gives up, for every layer of every call.
    rule = module.__dict__.get("rule", getattr(type(module), "rule", None))
    if rule is None:
        return None
    if not isinstance(rule, PropagationRule):
        raise OptionTypeError(
            f"module.rule of {type(module).__name__} is a {type(rule).__name__}: only Captum's rules are honoured "
            "there; pass others as LRPTranspose(model, rules=Composite(...))"
        )
    if isinstance(rule, IdentityRule):
        return Pass()
    if isinstance(rule, GammaRule):
        gamma = rule.gamma
        name = f"captum gamma {gamma}"
        return ModifiedWeight(name, lambda w: w + gamma * w.clamp(min=0), rule.set_bias_to_zero, rule.STABILITY_FACTOR)
    if isinstance(rule, Alpha1_Beta0_Rule):
        return ModifiedWeight("positive", lambda w: w.clamp(min=0), rule.set_bias_to_zero, rule.STABILITY_FACTOR)
    if isinstance(rule, EpsilonRule):
        return Epsilon(rule.STABILITY_FACTOR)
    raise OptionTypeError(f"{type(rule).__name__} has no counterpart here: pass rules=Composite(...) instead")
