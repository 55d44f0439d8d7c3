"""Rules of layer-wise relevance propagation as values and as Python, so that a map and its snippet cannot disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from plugin.models import Preprocessing
from plugin.rules import Composite, Rule
from plugin.rules.composite import Selector


@dataclass(frozen=True)
class Call:
    """A call that can be made and, by `repr`, printed. Calls may be arguments of calls.

    Attributes:
        module: where the function or class is imported from.
        name: of it.
        arguments: positional ones: values, calls, or mappings to calls.
        keywords: the others.
    """

    module: str
    name: str
    arguments: Sequence[Any] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        positional = [_lines(value) if isinstance(value, Mapping) else repr(value) for value in self.arguments]
        return f"{self.name}({', '.join([*positional, *(f'{key}={value!r}' for key, value in self.keywords.items())])})"

    def __call__(self) -> Any:
        function = getattr(import_module(self.module), self.name)
        keywords = {key: evaluate(value) for key, value in self.keywords.items()}
        return function(*map(evaluate, self.arguments), **keywords)

    @property
    def imports(self) -> set[str]:
        """The import statements that the printed call needs."""
        nested: list[Any] = []
        for value in [*self.arguments, *self.keywords.values()]:
            nested += value.values() if isinstance(value, Mapping) else [value]
        inner = (value.imports for value in nested if isinstance(value, Call))
        return {f"from {self.module} import {self.name}"}.union(*inner)


def evaluate(value: Any) -> Any:
    """What a call returns, also inside a mapping; other values as they are."""
    if isinstance(value, Mapping):
        return {key: evaluate(item) for key, item in value.items()}
    return value() if isinstance(value, Call) else value


def _lines(items: Mapping[str, Any]) -> str:
    """A dictionary with one line for each entry."""
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in items.items()) + "}"


def _rule(name: str, **keywords: Any) -> Call:
    return Call("plugin.rules", name, keywords=keywords)


# The rules that a single layer can be given, by the names that links and the table use. The bounds of "box" are those
# of the network's input, see `layer_rules`.
RULES: dict[str, Call] = {
    "lrp-0": _rule("Epsilon", epsilon=0.0),
    "epsilon": _rule("Epsilon", epsilon=1e-6),
    "gamma": _rule("Gamma", gamma=0.25),
    "z-plus": _rule("ZPlus"),
    "z-plus-no-bias": _rule("ZPlus", bias=False),
    "alpha2-beta1": _rule("AlphaBeta", alpha=2.0, beta=1.0),
    "w-square": _rule("WSquare"),
    "flat": _rule("Flat"),
    "box": _rule("ZBox", low=0.0, high=0.0),
}


def layer_rules(preprocessing: Preprocessing) -> dict[str, Call]:
    """`RULES` for one network."""
    low, high = preprocessing.input_range
    return RULES | {"box": _rule("ZBox", low=low, high=high)}


def rules_for(
    preset: str, preprocessing: Preprocessing, chosen: Sequence[tuple[str, str]] = (), prefix: str = ""
) -> str | Call:
    """The argument `rules` of the LRP classes.

    Args:
        preset: a key of `plugin.rules.presets.PRESETS`.
        preprocessing: of the network: the preset with the z^B rule needs the range of the input.
        chosen: pairs of a layer's name and a key of `RULES` that replace the preset's rule there.
        prefix: what stands before the layers' names in the module that is explained.

    Returns:
        The preset's name where that says everything, else a call that gives a composite.
    """
    low, high = preprocessing.input_range
    box = preset == "epsilon_gamma_box"
    base: str | Call = Call("plugin.rules.presets", preset, keywords={"low": low, "high": high}) if box else preset
    if not chosen:
        return base
    if isinstance(base, str):
        base = Call("plugin.rules.presets", "preset", [preset])
    available = layer_rules(preprocessing)
    return Call(__name__, overridden.__name__, [base, {prefix + layer: available[rule] for layer, rule in chosen}])


def overridden(base: Composite, chosen: Mapping[str, Rule]) -> Composite:
    """A composite with other rules for some layers.

    Args:
        base: what holds for all other layers.
        chosen: rules by layer name; they win over everything in `base`, also over its first and last rule.
    """
    # `first` and `last` of a composite go before its entries: as entries, they come after the chosen ones.
    ends: list[tuple[Selector, Rule]] = []
    if base.first is not None:
        ends.append((lambda layer: layer.reads_input, base.first))
    if base.last is not None:
        ends.append((lambda layer: layer.index == layer.count - 1, base.last))
    return Composite([*chosen.items(), *ends, *base.entries], default=base.default, softmax=base.softmax)
