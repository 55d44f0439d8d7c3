"""The table of operations: each with every way it can be spelled in PyTorch.

`F.relu(x)`, `torch.relu(x)`, `x.relu()`, `x.clamp(min=0)`, `torch.maximum(x, zero)` and `F.threshold(x, 0, 0)` are one
operation. `recognise` turns a call of any of them into the same description, on which the rules work. In-place
spellings arrive here as their functional form (see `in_place`).
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from . import convolution, pooling
from .convolution import ConvolutionLayer
from .pooling import MaxPooling
from .spellings import spellings


@dataclass(frozen=True)
class Activation:
    """A pointwise non-linearity `y = function(x)`.

    Attributes:
        name: PyTorch's name, such as "relu" or "gelu".
        input: x, of any shape.
        function: computes y out of place.
        non_decreasing: whether the derivative is nowhere negative.
    """

    name: str
    input: Tensor
    function: "partial[Tensor]"
    non_decreasing: bool


Operation = Activation | ConvolutionLayer | MaxPooling
Parser = Callable[..., Operation | None]

_NON_DECREASING = {"relu", "relu6", "hardtanh", "elu", "selu", "celu", "leaky_relu", "rrelu", "softplus"}
_OTHERS = {"gelu", "silu", "mish", "hardswish", "prelu"}


def _activation(name: str, function: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Activation:
    return Activation(name, input, with_arguments(function, args, kwargs), non_decreasing=name in _NON_DECREASING)


def with_arguments(function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "partial[Tensor]":
    """The function of its first argument alone; what it was made of are the `args` of the result."""
    return partial(_apply, function, args, kwargs)


def _apply(function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor) -> Tensor:
    return function(value, *args, **kwargs)


def _is_zero(value: Any) -> bool:
    """Whether a bound is the constant 0, as a number or as a tensor that is zero everywhere."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return value is not None and value == 0


def _clamp(
    function: Callable[..., Tensor], input: Tensor, min: Any = None, max: Any = None, **kwargs: Any
) -> Activation | None:
    """`clamp(min=0)` is ReLU, `clamp(0, 6)` is ReLU6; any other clamp is not an activation."""
    if not _is_zero(min):
        return None
    if max is None:
        return _activation("relu", function, input, min, **kwargs)
    return _activation("relu6", function, input, min, max, **kwargs)


def _hardtanh(
    function: Callable[..., Tensor], input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Activation | None:
    return _activation("hardtanh", function, input, min_val, max_val) if min_val == 0 else None


def _threshold(
    function: Callable[..., Tensor], input: Tensor, threshold: float, value: float, inplace: bool = False
) -> Activation | None:
    return _activation("relu", function, input, threshold, value) if threshold == 0 and value == 0 else None


def _maximum(function: Callable[..., Tensor], input: Tensor, other: Any = None, **kwargs: Any) -> Activation | None:
    """`maximum(x, 0)` and `maximum(0, x)`; `torch.max(x)` and `torch.max(x, dim)` are reductions."""
    if not isinstance(other, Tensor):
        return None
    for value, bound in ((input, other), (other, input)):
        if bound.ndim <= value.ndim and value.requires_grad and _is_zero(bound):
            return _activation("relu", function, value, bound, **kwargs)
    return None


def _table() -> dict[Callable[..., Any], tuple[type, Parser]]:
    parsers: dict[str, Parser] = {name: partial(_activation, name) for name in _NON_DECREASING | _OTHERS}
    parsers |= {"clamp": _clamp, "clip": _clamp, "clamp_min": _clamp}
    parsers |= {"hardtanh": _hardtanh, "threshold": _threshold}
    parsers |= {"maximum": _maximum, "max": _maximum, "fmax": _maximum}
    activations = {function: parser for name, parser in parsers.items() for function in spellings(name)}
    kinds: dict[type, Mapping[Callable[..., Any], Parser]] = {
        Activation: activations,
        MaxPooling: pooling.parsers(),
        ConvolutionLayer: convolution.parsers(),
    }
    return {function: (kind, parser) for kind, found in kinds.items() for function, parser in found.items()}


_TABLE = _table()


def recognise(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], kinds: Container[type]
) -> Operation | None:
    """What a call computes, or None if it is no operation of these kinds (its gradient is right as it is)."""
    kind, parser = _TABLE.get(function, (None, None))
    return None if parser is None or kind not in kinds else parser(function, *args, **kwargs)
