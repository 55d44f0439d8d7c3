"""Records of a forward pass of LRP for the backward pass and for the ledger."""

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
    """An operation that is no layer and may keep relevance, mostly for a constant that it adds, like a bias.

    Attributes:
        name: the operation and its module.
        entered, left: the relevance that the backward pass brought to its results, and passed on; sums over everything.
        magnitude: the sum of the absolute relevance that entered.
    """

    name: str
    entered: float = 0.0
    left: float = 0.0
    magnitude: float = 0.0
    _resolution: float = 0.0

    def watch_signal(self, signal: Tensor) -> Tensor:
        """The same tensor, as the operation reads it."""
        return hooked(signal, partial(self._note, signal.detach(), False))

    def watch_result(self, result: Tensor) -> None:
        """A tensor that the operation computed."""
        if not result.requires_grad:  # computed where autograd is off
            return
        self._resolution = torch.finfo(result.dtype).eps
        result.register_hook(partial(self._note, result.detach(), True))

    def _note(self, values: Tensor, result: bool, multiplier: Tensor | None) -> None:
        if multiplier is None:  # a user's function passes none down
            return
        # Masked attention scores are -inf, and receive nothing.
        if values.is_complex():
            relevance = (values.conj() * multiplier).real.double()
        else:
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
    """The records of a forward pass for the backward pass and for the ledger.

    Attributes:
        layers: in the order in which they ran, each with the operations folded into it.
        superseded: pairs of a layer and the same layer with a batch norm or ReLU folded in. Relevance passes the first
            too where its output has another reader, such as an addition.
        absorptions: the other operations, if relevance is accounted for.
        modules: modules with a rule of their own, for any computation.
        outputs: y of layers whose quotients y / st(y) may be computed at once.
    """

    layers: list[LayerRecord] = field(default_factory=list)
    superseded: list[tuple[LayerRecord, LayerRecord]] = field(default_factory=list)
    absorptions: list[Absorption] = field(default_factory=list)
    modules: list[ModuleRecord] = field(default_factory=list)
    outputs: dict[LayerRecord, Tensor] = field(default_factory=dict)

    def absorption(self, name: str) -> Absorption:
        """A new record of an operation that may keep relevance."""
        found = Absorption(name)
        self.absorptions.append(found)
        return found

    def supersede(self, before: LayerRecord, record: LayerRecord) -> None:
        """Replace `before` by `record`, the same layer with an operation folded in."""
        if self.layers[-1] is before:
            self.layers.pop()
        else:
            self.layers = [other for other in self.layers if other is not before]
        self.superseded.append((before, record))
        self.outputs.pop(before, None)

    @property
    def ruled(self) -> list[LayerRecord | ModuleRecord]:
        """All layers and modules that have a rule, layers first."""
        return [*self.layers, *self.modules]

    @property
    def passed(self) -> list[LayerRecord]:
        """Every record that relevance may have passed."""
        return list(dict.fromkeys([*self.layers, *[before for before, _ in self.superseded]]))
