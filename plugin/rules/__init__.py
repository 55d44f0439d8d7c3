"""Backward rules: what travels down through an operation instead of its gradient."""

from .composite import Composite
from .relevance import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    LinearOperation,
    Pass,
    Rule,
    Term,
    WSquare,
    ZBox,
    ZPlus,
    stabilise,
)
from .signal import DECONVNET, GRADIENT, GUIDED, LINEAR_ADJOINT, SIGNAL_RULES, UNPOOLING, SignalRule
from .unpooling import SWITCH_FREE

__all__ = [
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Flat",
    "Gamma",
    "LinearOperation",
    "Pass",
    "Rule",
    "Term",
    "WSquare",
    "ZBox",
    "ZPlus",
    "stabilise",
    "DECONVNET",
    "GRADIENT",
    "GUIDED",
    "LINEAR_ADJOINT",
    "SIGNAL_RULES",
    "SWITCH_FREE",
    "UNPOOLING",
    "SignalRule",
]
