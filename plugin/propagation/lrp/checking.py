"""A dry run of LRP: all operations without a rule at once, and the rule of each linear layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import NoRuleError
from ..visibility import Refusal
from .layers import LayerRecord
from .whole import ModuleRecord


@dataclass(frozen=True)
class LayerRule:
    """The rule of one linear layer.

    Attributes:
        layer: its name.
        type: the class of the module that holds the weight.
        rule: the rule and its constants.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> LRPTranspose(nn.Sequential(nn.Linear(4, 3)), "epsilon_plus").check(torch.randn(1, 4)).layers
    (LayerRule(layer='0', type='Linear', rule='Epsilon(epsilon=1e-06)'),)
    """

    layer: str
    type: str
    rule: str


@dataclass(frozen=True)
class Check:
    """The result of a forward pass before anything is explained; printed as a table.

    Attributes:
        refusals: the operations on the way to the output that have no rule.
        layers: the linear layers in the order in which they run, each with its rule; then modules with their own rule.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> check = LRPTranspose(nn.Sequential(nn.Linear(4, 3), nn.ReLU())).check(torch.randn(1, 4))
    >>> check.passed, check.require() is check
    (True, True)
    """

    refusals: tuple[Refusal, ...]
    layers: tuple[LayerRule, ...]

    @property
    def passed(self) -> bool:
        """Whether every operation has a rule."""
        return not self.refusals

    def require(self) -> "Check":
        """The check itself, if it passed.

        Raises:
            NoRuleError: it did not; the message names every operation, its layer and the remedy.
        """
        if not self.passed:
            raise NoRuleError("; ".join(map(str, self.refusals)))
        return self

    def __str__(self) -> str:
        cells = [("layer", "type", "rule"), *((row.layer, row.type, row.rule) for row in self.layers)]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        found = [f"no rule: {refusal}" for refusal in self.refusals] or ["every operation has a rule"]
        return "\n".join([*lines, *found])


def rules_of(layers: Sequence[LayerRecord | ModuleRecord]) -> tuple[LayerRule, ...]:
    """The rules that a forward pass assigned."""
    return tuple(LayerRule(record.name, type(record.module).__name__, str(record.rule)) for record in layers)
