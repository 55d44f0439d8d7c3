"""Backward rules: the signal that an operation passes down instead of its gradient."""

from ..kernels.pointwise import stabilise
from ..kernels.unpooling import SWITCH_FREE
from .composite import Composite
from .lrp import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
)
from .relu import DECONVNET, GRADIENT, GUIDED, LINEAR_ADJOINT, SIGNAL_RULES, UNPOOLING, SignalRule
from .terms import LinearOperation, Rule, Term

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
