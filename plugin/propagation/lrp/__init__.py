"""Layer-wise relevance propagation as a function mode: the kinds of operations, each with its handler."""

from .cache import WeightCache
from .layers import descend
from .ledger import Entry, Ledger, build_ledger
from .mode import Refusal, RelevancePropagation

__all__ = ["Entry", "Ledger", "Refusal", "RelevancePropagation", "WeightCache", "build_ledger", "descend"]
