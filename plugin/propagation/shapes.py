"""The shape of a function of numbers: a function written by hand is compared by its values with the known ones."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels.tracing import untraced
from .chains import Step


class Exponential(NamedTuple):
    """The function sign * exp(rate * x + shift) + offset."""

    rate: float
    shift: float
    offset: float
    sign: int


@dataclass(frozen=True)
class Shape:
    """The shape of the graph of a function of numbers.

    Attributes:
        name: "relu", "relu6" or "leaky_relu" if it is that function.
        slope: the slope of a leaky ReLU below 0.
        non_negative: it has no negative value.
        non_decreasing: it nowhere falls.
        falls: it nowhere rises, and is not constant.
        gate: it rises between two bounds, the lower one not below 0, and is above it at 0: a weight, such as a sigmoid.
        finite: it has no pole.
        rises_above: it is finite and nowhere falls from 0 on, such as log(1 + x).
        identity: it changes no number, such as a clamp at bounds far away.
        keeps_positive: it changes no positive number, such as a clamp at one close to 0.
        affine: its graph is a line.
        exponential: the exponential that it is.
    """

    name: str = ""
    slope: float = 0.0
    non_negative: bool = False
    non_decreasing: bool = False
    falls: bool = False
    gate: bool = False
    finite: bool = True
    rises_above: bool = False
    identity: bool = False
    keeps_positive: bool = False
    affine: bool = False
    exponential: Exponential | None = None

    @property
    def exponent(self) -> tuple[float, float] | None:
        """Rate and shift of an exponential to which no number is added."""
        found = self.exponential
        return None if found is None or found.offset or found.sign < 0 else (found.rate, found.shift)


_FAR = 1e4
_ABOVE = (1e-3, 0.25, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 7.25, 20.0, _FAR)
_PROBES = (*(-value for value in reversed(_ABOVE)), 0.0, *_ABOVE)
_shapes: dict[Any, Shape] = {}
_MANY = 4096


def keep(table: dict[Any, Any], key: Any, value: Any) -> Any:
    """Store a value under a key. The table is emptied when it is large, as numbers may differ at every call."""
    if len(table) >= _MANY:
        table.clear()
    table[key] = value
    return value


def shape_of(step: Step, ndim: int) -> Shape | None:
    """The shape of a function of tensors with `ndim` dimensions, found from its values at probe points.

    None if the function depends on anything but numbers.
    """
    key = step.key
    if key is None:
        return None
    shape = _shapes.get(key)
    if shape is None:
        with untraced(), torch.no_grad():
            probes = torch.tensor(_PROBES, dtype=torch.float64)
            values = step.on_numbers(probes.view(-1, *(1,) * (ndim - 1)) if ndim else probes)
            shape = keep(_shapes, key, _look(probes, values.flatten().double()))
    return shape


def _look(x: Tensor, y: Tensor) -> Shape:
    name, slope = "", 0.0
    if torch.equal(y, x.clamp(min=0)):
        name = "relu"
    elif torch.equal(y, x.clamp(0, 6)):
        name = "relu6"
    else:
        slope = -float(y[x == -1])
        if slope > 0 and slope != 1 and torch.allclose(y, torch.where(x > 0, x, slope * x), rtol=1e-12, atol=0):
            name = "leaky_relu"
    near = x.abs() < _FAR
    rises = bool((y.diff() >= 0).all())
    return Shape(
        name,
        slope if name == "leaky_relu" else 0.0,
        non_negative=bool((y >= 0).all()),
        non_decreasing=rises,
        falls=bool((y.diff() <= 0).all()) and bool(y[-1] < y[0]),
        gate=rises
        and float(y[0]) >= 0
        and float(y[x == 0]) > float(y[0])
        and float(y[-1] - y[-2]) < 1e-6 * float(y[-1]),
        finite=not bool(y[near].isinf().any()),
        rises_above=bool(y[x >= 0].isfinite().all()) and bool((y[x >= 0].diff() >= 0).all()),
        identity=torch.equal(x, y),
        keeps_positive=torch.equal(x[x > 0], y[x > 0]),
        affine=_is_line(x, y),
        exponential=_exponential(x, y),
    )


def _is_line(x: Tensor, y: Tensor) -> bool:
    return torch.allclose(y, y[x == 0] + (y[x == 1] - y[x == 0]) * x, rtol=1e-9, atol=1e-9)


def _exponential(x: Tensor, y: Tensor) -> Exponential | None:
    near = x.abs() < 8  # farther away exponentials overflow, and small ones are lost beside other numbers
    for offset in (0.0, float(y[0]), float(y[-1])):
        for sign in (1, -1):
            log = (sign * (y[near] - offset)).log()
            if bool(log.isfinite().all()) and _is_line(x[near], log):
                shift = float(log[x[near] == 0])
                rate = float(log[x[near] == 1]) - shift
                if abs(rate) > 1e-9:  # else it is a constant, but for rounding
                    return Exponential(rate, shift, offset, sign)
    return None
