"""The rules of layer-wise relevance propagation that a single layer can be given, by name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plugin.models import Preprocessing
from plugin.rules import Composite, Rule
from plugin.rules.composite import Selector
from plugin.rules.lrp import RULES as _SHARED
from plugin.rules.presets import PRESETS

from .python_calls import PythonCall


def _rule(name: str, **keywords: float) -> PythonCall:
    return PythonCall("plugin.rules", name, keywords=keywords)


# The rules of `plugin.rules.lrp.RULES`, as links and the table name them. The bounds of "box" are those of the
# network's input, see `layer_rules`.
RULES: dict[str, PythonCall] = {name: _rule(rule.func.__name__, **rule.keywords) for name, rule in _SHARED.items()}

# The rule that has each of the numbers that can be chosen.
_WITH_NUMBERS = {"epsilon": "epsilon", "gamma": "gamma", "alpha": "alpha2-beta1"}
# The default values of these numbers, in presets and rules.
NUMBERS: dict[str, float] = {name: RULES[rule].keywords[name] for name, rule in _WITH_NUMBERS.items()}


def numbers_of(preset: str, chosen: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The names in `NUMBERS` that a preset has, or one of the rules that replace its own; `chosen` as for
    `rules_for`."""
    of_preset, of_layers = inspect.signature(PRESETS[preset]).parameters, {rule for _, rule in chosen}
    return tuple(name for name, rule in _WITH_NUMBERS.items() if name in of_preset or rule in of_layers)


def rule_label(rule: str, alpha: float) -> str:
    """A key of `RULES` for people: the rule with both signs is called by its numbers."""
    return f"alpha{alpha:g}-beta{round(alpha - 1, 9):g}" if rule == _WITH_NUMBERS["alpha"] else rule


def layer_rules(preprocessing: Preprocessing, numbers: Mapping[str, float]) -> dict[str, PythonCall]:
    """`RULES` for one network, with other numbers than those of `NUMBERS`."""
    low, high = preprocessing.input_range
    changed = {
        _WITH_NUMBERS[name]: replace(RULES[_WITH_NUMBERS[name]], keywords=_keywords(name, value))
        for name, value in numbers.items()
    }
    return RULES | {"box": _rule("ZBox", low=low, high=high)} | changed


def _keywords(name: str, value: float) -> dict[str, float]:
    return {"alpha": value, "beta": value - 1} if name == "alpha" else {name: value}


def rules_for(
    preset: str,
    preprocessing: Preprocessing,
    chosen: Sequence[tuple[str, str]] = (),
    prefix: str = "",
    numbers: Mapping[str, float] | None = None,
) -> str | PythonCall:
    """The argument `rules` of the LRP classes.

    Args:
        preset: a key of `plugin.rules.presets.PRESETS`.
        preprocessing: the network's: the preset with the z^B rule needs the range of the input.
        chosen: pairs of a layer's name and a key of `RULES` that replace the preset's rule there.
        prefix: the prefix of the layers' names in the module that is explained.
        numbers: other ones than those of `NUMBERS`, for the preset and for the chosen rules.

    Returns:
        The preset's name where it is sufficient, else a call that returns a composite.
    """
    numbers = numbers or {}
    own = numbers_of(preset, ())
    keywords: dict[str, Any] = {name: value for name, value in numbers.items() if name in own}
    if preset == "epsilon_gamma_box":
        low, high = preprocessing.input_range
        keywords = {"low": low, "high": high, **keywords}
    base: str | PythonCall = PythonCall("plugin.rules.presets", preset, keywords=keywords) if keywords else preset
    if not chosen:
        return base
    if isinstance(base, str):
        base = PythonCall("plugin.rules.presets", "preset", [preset])
    available = layer_rules(preprocessing, numbers)
    return PythonCall(
        __name__, overridden.__name__, [base, {prefix + layer: available[rule] for layer, rule in chosen}]
    )


def overridden(base: Composite, chosen: Mapping[str, Rule]) -> Composite:
    """A composite with other rules for some layers.

    Args:
        base: the composite for all other layers.
        chosen: rules by layer name; they win over everything in `base`, also over its first and last rule.
    """
    # `first` and `last` of a composite go before its entries: as entries, they come after the chosen ones.
    ends: list[tuple[Selector, Rule]] = []
    if base.first is not None:
        ends.append((lambda layer: layer.reads_input, base.first))
    if base.last is not None:
        ends.append((lambda layer: layer.index == layer.count - 1, base.last))
    return Composite([*chosen.items(), *ends, *base.entries], default=base.default, softmax=base.softmax)
