"""Tensors that rules derive from weights alone, kept between calls."""

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..tensors import TensorTable

Derived = TypeVar("Derived")


class _Constants(TensorTable[Tensor]):
    """Parameters without gradient."""

    def of(self, parameter: Tensor) -> Tensor:
        """The same tensor object at every call, until the parameter's memory is replaced."""
        entry = self._entries.get(id(parameter))
        constant = None if entry is None else entry[1]
        if constant is None or constant.dtype != parameter.dtype or not constant.is_set_to(parameter):
            constant = self[parameter] = parameter.detach()
        return constant


class WeightCache:
    """Tensors that rules derive from weights alone, kept while the weights and their versions stay the same."""

    def __init__(self) -> None:
        self._derived: TensorTable[dict[Hashable, tuple[Sequence[Tensor], list[int], Any]]] = TensorTable()
        # The parameter without gradient.
        self.constant = _Constants().of

    def __reduce__(self) -> tuple[type["WeightCache"], tuple[()]]:
        """A copy begins empty, as it will meet other tensors."""
        return WeightCache, ()

    def get(
        self, weight: Tensor, key: Hashable, compute: Callable[[], Derived], others: Sequence[Tensor] = ()
    ) -> Derived:
        """`compute()`, or its stored result for this weight and the other tensors that it depends on."""
        entries = self._derived.get(weight)
        if entries is None:
            entries = self._derived[weight] = {}
        versions = [source._version for source in (weight, *others)]
        entry = entries.get(key)
        if entry is None or entry[1] != versions or any(map(operator.is_not, entry[0], others)):
            with torch.no_grad():
                entry = entries[key] = (others, versions, compute())
        derived: Derived = entry[2]
        return derived
