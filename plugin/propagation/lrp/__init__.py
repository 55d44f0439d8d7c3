"""Layer-wise relevance propagation as a function mode: the kinds of operations, each with its handler."""

from ..visibility import Refusal
from .cache import WeightCache
from .checking import Check, LayerRule, rules_of
from .inheritance import begin_at
from .layers import descend
from .ledger import Entry, Ledger, build_ledger
from .mode import RelevancePropagation

__all__ = [
    "Check",
    "Entry",
    "LayerRule",
    "Ledger",
    "Refusal",
    "RelevancePropagation",
    "WeightCache",
    "begin_at",
    "build_ledger",
    "descend",
    "rules_of",
]
