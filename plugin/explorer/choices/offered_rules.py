"""The rules of layer-wise relevance propagation that a single layer can be given, by name."""

from collections.abc import Mapping, Sequence

from plugin.models import Preprocessing
from plugin.rules import Composite, Rule
from plugin.rules.composite import Selector
from plugin.rules.lrp import RULES as _SHARED

from .python_calls import Call


def _rule(name: str, **keywords: float) -> Call:
    return Call("plugin.rules", name, keywords=keywords)


# Those of `plugin.rules.lrp.RULES`, as links and the table name them. The bounds of "box" are those of the network's
# input, see `layer_rules`.
RULES: dict[str, Call] = {name: _rule(rule.func.__name__, **rule.keywords) for name, rule in _SHARED.items()}


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
