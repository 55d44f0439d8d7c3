"""Calls of PyTorch's activations as steps of a chain, one object for each."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .chains import ROOT, Step
from .operations import operation_of
from .shapes import keep
from .tensors import PLAIN

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "leaky_relu": torch.nn.functional.leaky_relu,
}
# The rows of the activations with a kink at 0, which a function written by hand may equal.
CANONICAL = {name: row for name, function in _FUNCTIONS.items() if (row := operation_of(function)) is not None}
_steps: dict[Any, Step] = {}


def call_step(function: Callable[..., Any], rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Step | None:
    """A call as a function of its first argument, if the others are numbers, types or names."""
    key = (function, *rest, *kwargs.items()) if kwargs else (function, *rest)
    try:
        step = _steps.get(key)
    except TypeError:  # an unhashable argument, such as a list
        return None
    if step is None:
        # Tensors among them are equal only to themselves.
        if any(type(entry) not in PLAIN for entry in (*rest, *kwargs.values())):
            return None
        step = keep(_steps, key, Step(function, (ROOT, *rest), dict(kwargs)))
    return step


@lru_cache(maxsize=256)
def canonical_step(name: str, slope: float) -> Step:
    """One of PyTorch's activations; the slope is that of a leaky ReLU."""
    return Step(_FUNCTIONS[name], (ROOT, slope) if name == "leaky_relu" else (ROOT,), {})
