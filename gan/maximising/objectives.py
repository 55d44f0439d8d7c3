"""Objectives of a maximisation: a channel, a neuron, a direction, and sums and differences of these.

>>> objective = channel(12) - 0.5 * channel(40) + neuron(3, 6, 6)
>>> ImageSpaceAM(network, (3, 224, 224), "features.12").maximize(objective, runs=4)

An objective is a function of the activations `(N, ...)` of a layer, or of the output, that returns one value each
`(N,)`: any target may be one, and any function may be a part of one.
"""

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from plugin.devices import as_tensor

Term: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """A weighted sum of functions of activations `(N, ...)`; `+`, `-` and factors make new ones.

    Attributes:
        terms: pairs of a weight and a function that returns `(N,)`.
    """

    terms: tuple[tuple[float, Term], ...]

    def __call__(self, activations: Tensor) -> Tensor:
        return torch.stack([weight * term(activations) for weight, term in self.terms]).sum(dim=0)

    def __add__(self, other: "Objective | Term | int") -> "Objective":
        # Python's `sum` begins at 0.
        return self if isinstance(other, int) and other == 0 else Objective(self.terms + _terms(other))

    __radd__ = __add__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective | Term") -> "Objective":
        return self + -1.0 * objective(other)

    def __rsub__(self, other: "Objective | Term") -> "Objective":
        return objective(other) - self

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, numbers.Real):
            raise TypeError(f"an objective times {factor!r}: give a number")
        if not math.isfinite(factor):
            raise ValueError(f"an objective times {factor}: give a finite number")
        return Objective(tuple((factor * weight, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Objective":
        if divisor == 0:
            raise ValueError("an objective over 0: give another number")
        return self * (1 / divisor)


def objective(term: "Objective | Term") -> Objective:
    """A function of activations `(N, ...)` that returns `(N,)`, as an objective."""
    return Objective(_terms(term))


def channel(number: int) -> Objective:
    """The mean of a channel over its positions; for an output, a class."""
    return objective(Channel(operator.index(number)))


def neuron(number: int, *position: int) -> Objective:
    """A channel at one position, by default at the middle one."""
    return objective(Neuron(operator.index(number), tuple(map(operator.index, position))))


def direction(vector: "Tensor | np.ndarray[Any, Any] | Sequence[float]", cosine_power: float = 0.0) -> Objective:
    """The activations' component along a vector of channels `(C,)`, in the mean over positions.

    Args:
        vector: one number per channel.
        cosine_power: exponent of a factor, the cosine (at least 0.1), so that images whose activations point elsewhere
            gain less (Olah et al. 2017).

    Raises:
        ValueError: the vector is 0, or holds NaN or infinite numbers, or the power is negative or infinite.
    """
    if not 0 <= cosine_power < math.inf:
        raise ValueError(f"cosine_power={cosine_power}: give a finite number, 0 for none")
    found = as_tensor(vector).detach().flatten().float()
    if not bool(found.isfinite().all()) or not bool(found.any()):
        raise ValueError("a direction is 0, or holds NaN or infinite numbers: give one that points somewhere")
    return objective(Direction(tuple(found.tolist()), cosine_power))


@dataclass(frozen=True)
class Channel:
    number: int

    def __call__(self, activations: Tensor) -> Tensor:
        return _channel(activations, self.number).reshape(len(activations), -1).mean(dim=1)


@dataclass(frozen=True)
class Neuron:
    number: int
    position: tuple[int, ...] = ()

    def __call__(self, activations: Tensor) -> Tensor:
        values = _channel(activations, self.number)
        position = self.position or tuple(size // 2 for size in values.shape[1:])
        inside = len(position) == values.ndim - 1 and all(
            -size <= index < size for index, size in zip(position, values.shape[1:], strict=True)
        )
        if not inside:
            raise ValueError(f"no position {position} in a channel of shape {tuple(values.shape[1:])}")
        index: tuple[int | slice, ...] = (slice(None), *position)
        return values[index]


@dataclass(frozen=True)
class Direction:
    vector: tuple[float, ...]
    cosine_power: float

    def __call__(self, activations: Tensor) -> Tensor:
        if activations.shape[1] != len(self.vector):
            raise ValueError(f"a direction of {len(self.vector)} numbers for {activations.shape[1]} channels")
        positions = activations.flatten(2) if activations.ndim > 2 else activations.unsqueeze(2)
        vector = positions.new_tensor(self.vector)
        along = torch.einsum("nkp,k->np", positions, vector)
        if self.cosine_power:
            cosine = F.cosine_similarity(positions, vector.view(1, -1, 1), dim=1)
            along = along * cosine.clamp(min=0.1) ** self.cosine_power
        return along.mean(dim=1)


def names_channels(target: object) -> bool:
    """Whether a target is an objective with a channel or a neuron in it."""
    return isinstance(target, Objective) and any(isinstance(term, (Channel, Neuron)) for _, term in target.terms)


def _channel(activations: Tensor, number: int) -> Tensor:
    if not -activations.shape[1] <= number < activations.shape[1]:
        raise ValueError(f"no channel {number}: activations are {tuple(activations.shape[1:])} per image")
    return activations[:, number]


def _terms(term: Any) -> tuple[tuple[float, Term], ...]:
    if isinstance(term, Objective):
        return term.terms
    if not callable(term):
        raise TypeError(f"{term!r} is no objective: give a function of the activations, such as channel(3)")
    return ((1.0, term),)
