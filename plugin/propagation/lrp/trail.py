"""What a forward pass of LRP leaves for the backward pass and for the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..tensors import hooked
from .layers import LayerRecord

if TYPE_CHECKING:
    from .whole import ModuleRecord


@dataclass(eq=False)
class Absorption:
    """An operation that is no layer, and may keep relevance: for a constant that it adds, as a bias does, mostly.

    Attributes:
        name: the operation, and where it ran.
        entered, left: what the backward pass brought to its results, and took on from there; sums over everything.
        magnitude: the sum of what entered, without signs.
    """

    name: str
    entered: float = 0.0
    left: float = 0.0
    magnitude: float = 0.0
    _resolution: float = 0.0

    def watch_signal(self, signal: Tensor) -> Tensor:
        """The same tensor, for the operation to read."""
        return hooked(signal, partial(self._note, signal.detach(), False))

    def watch_result(self, result: Tensor) -> None:
        """A tensor that the operation computed."""
        self._resolution = torch.finfo(result.dtype).eps
        result.register_hook(partial(self._note, result.detach(), True))

    def _note(self, values: Tensor, result: bool, multiplier: Tensor | None) -> None:
        if multiplier is None:  # a function of the user's hands none down
            return
        # Masked attention scores are -inf, and receive nothing.
        relevance = torch.where(multiplier == 0, 0.0, values.double() * multiplier)
        if result:
            self.entered += float(relevance.sum())
            self.magnitude += float(relevance.abs().sum())
        else:
            self.left += float(relevance.sum())

    @property
    def amount(self) -> float:
        """The relevance that ended here; 0 if it is no more than rounding."""
        kept = self.entered - self.left
        return kept if abs(kept) > 16 * self._resolution * self.magnitude else 0.0


@dataclass
class Trail:
    """What a forward pass left for the backward pass and for the ledger.

    Attributes:
        layers: in the order in which they ran, each with what was folded into it.
        superseded: pairs of a layer and the same layer with a batch norm or ReLU folded in. Relevance passes the first
            too where its output has another reader, such as an addition.
        absorptions: the other operations, if relevance is accounted for.
        modules: modules with a rule of their own, whatever they compute.
    """

    layers: list[LayerRecord] = field(default_factory=list)
    superseded: list[tuple[LayerRecord, LayerRecord]] = field(default_factory=list)
    absorptions: list[Absorption] = field(default_factory=list)
    modules: list[ModuleRecord] = field(default_factory=list)

    def supersede(self, before: LayerRecord, record: LayerRecord) -> None:
        """`record` is `before` with something folded in."""
        if self.layers[-1] is before:
            self.layers.pop()
        else:
            self.layers = [other for other in self.layers if other is not before]
        self.superseded.append((before, record))

    @property
    def ruled(self) -> list[LayerRecord | ModuleRecord]:
        """All that has a rule: layers, then modules."""
        return [*self.layers, *self.modules]

    @property
    def passed(self) -> list[LayerRecord]:
        """Every record that relevance may have passed."""
        return list(dict.fromkeys([*self.layers, *(before for before, _ in self.superseded)]))
