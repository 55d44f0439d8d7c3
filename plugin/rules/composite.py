"""The assignment of rules to layers: an ordered list of selectors, of which the first match decides."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from ..errors import OptionError, OptionTypeError
from .lrp import Epsilon
from .terms import Rule

LINEAR_MODULES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
CONVOLUTIONS = LINEAR_MODULES[1:]


@dataclass(frozen=True)
class Layer:
    """A linear layer as a selector receives it.

    Attributes:
        name: the module's name in the model, such as "layer1.0.conv1"; "" for an operation outside any module.
        module: the module that owns the weight, or that was running.
        index: position among the linear layers in the order of the forward pass, from 0.
        count: how many linear layers there are.
        reads_input: whether the layer's input is an input of the model.
        operation: the class of module that computes the same product, such as `nn.Conv2d` for `F.conv2d`; None if there
            is none.
    """

    name: str
    module: nn.Module
    index: int
    count: int
    reads_input: bool
    operation: type[nn.Module] | None = None

    @property
    def kind(self) -> type[nn.Module]:
        """The class that a selector sees: a module of one's own that calls `F.conv2d` counts as a convolution."""
        if self.operation is None or isinstance(self.module, LINEAR_MODULES):
            return type(self.module)
        return self.operation

    @property
    def depth(self) -> float:
        """0 for the first linear layer, 1 for the last."""
        return self.index / max(1, self.count - 1)


Selector: TypeAlias = type[nn.Module] | tuple[type[nn.Module], ...] | str | int | Callable[[Layer], bool]


class Composite:
    """A rule for every linear layer.

    Args:
        entries: pairs of selector and rule; the first match wins. A selector is a module type or a tuple of them
            (also for calls of `F.conv2d` and its like outside of such a module), a name pattern with `*` and `?`, an
            index in the order of the forward pass (negative from the end), or a predicate of `Layer`.
        first: the rule for any layer that reads the input, before any entry.
        last: the rule for the last linear layer, before any entry.
        default: the rule where no entry matches.
        softmax: "gradient" (AttnLRP) or "constant" (CP-LRP), the rule of softmax.

    Raises:
        OptionTypeError: a selector is no selector, or a rule is no rule.
        OptionError: `softmax` is neither of the two.

    >>> from torch import nn
    >>> from plugin.rules import Composite, Epsilon, Gamma, ZBox, ZPlus
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5))
    >>> rules = Composite([(nn.Conv2d, Gamma(0.25)), ("4", Epsilon())], first=ZBox(-2.2, 2.7), default=ZPlus())
    >>> print(rules.explain(model))
    layer  type    rule
    -----  ------  ---------------------------------------------
    0      Conv2d  ZBox(low=-2.2, high=2.7, epsilon=1e-06)
    2      Conv2d  Gamma(gamma=0.25, plain=False, epsilon=1e-06)
    4      Linear  Epsilon(epsilon=1e-06)
    """

    def __init__(
        self,
        entries: Sequence[tuple[Selector, Rule]] = (),
        first: Rule | None = None,
        last: Rule | None = None,
        default: Rule | None = None,
        softmax: str = "gradient",
    ) -> None:
        self.entries, self.first, self.last = list(entries), first, last
        self.default = default if default is not None else Epsilon()
        self.softmax = softmax
        if softmax not in ("gradient", "constant"):
            raise OptionError(f"softmax = {softmax!r}: it must be 'gradient' (AttnLRP) or 'constant' (CP-LRP)")
        for selector, rule in self.entries:
            if not (isinstance(selector, (str, int, tuple)) or callable(selector)):
                raise OptionTypeError(
                    f"{selector!r} selects no layers: give a module type, a name pattern, an index or a function"
                )
            _check_rule(rule)
        for special in (first, last, self.default):
            if special is not None:
                _check_rule(special)

    def rule_for(self, layer: Layer) -> Rule:
        """The rule of one layer.

        Args:
            layer: its module, name and place in the network.
        """
        if self.first is not None and layer.reads_input:
            return self.first
        if self.last is not None and layer.index == layer.count - 1:
            return self.last
        for selector, rule in self.entries:
            if _matches(selector, layer):
                return rule
        return self.default

    def explain(self, model: nn.Module) -> "Assignment":
        """The rule of each layer, in the order in which the model lists its layers; printing it draws a table.

        Args:
            model: its convolutions and linear layers are listed; `LRPTranspose.check` tells the order in which an
                actual forward pass calls them, and which of them read the input.
        """
        listed = [(name, module) for name, module in model.named_modules() if isinstance(module, LINEAR_MODULES)]
        layers = [Layer(name, module, i, len(listed), i == 0) for i, (name, module) in enumerate(listed)]
        return Assignment([(layer, self.rule_for(layer)) for layer in layers])

    def __repr__(self) -> str:
        parts = [f"{_selector_name(selector)}: {rule}" for selector, rule in self.entries]
        special = {"first": self.first, "last": self.last, "default": self.default}
        return (
            f"Composite({', '.join(parts + [f'{name}={rule}' for name, rule in special.items() if rule is not None])})"
        )


@dataclass(frozen=True)
class Assignment:
    """Layers with their rules; iterable, and printed as a table."""

    rows: list[tuple[Layer, Rule]]

    def __iter__(self) -> Iterator[tuple[Layer, Rule]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [("layer", "type", "rule")]
        cells += [(layer.name, layer.kind.__name__, str(rule)) for layer, rule in self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _check_rule(rule: object) -> None:
    if not isinstance(rule, Rule):
        raise OptionTypeError(f"{rule!r} is no rule: give an instance such as Epsilon() or Gamma(0.25)")


def _matches(selector: Selector, layer: Layer) -> bool:
    if isinstance(selector, (type, tuple)):
        return isinstance(layer.module, selector) or issubclass(layer.kind, selector)
    if isinstance(selector, str):
        return fnmatch.fnmatchcase(layer.name, selector)
    if isinstance(selector, int):
        return layer.index == (selector if selector >= 0 else layer.count + selector)
    return bool(selector(layer))


def _selector_name(selector: Selector) -> str:
    if isinstance(selector, tuple):
        return "(" + ", ".join(entry.__name__ for entry in selector) + ")"
    return selector.__name__ if hasattr(selector, "__name__") else repr(selector)
