"""What is known of a tensor that a model computes, beyond its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .chains import Link
from .tensors import TensorTable

if TYPE_CHECKING:
    from .calls import Call
    from .lrp.linear import Produced


@dataclass(slots=True)
class Note:
    """Every tensor is one of three sorts: a constant, which needs no gradient, a signal, or a weight.

    Attributes:
        weight: it says how much of a signal passes, such as the output of a sigmoid.
        non_negative: it is known to have no negative entry.
        number: what all its entries are.
        link: how it follows, element by element, from an earlier tensor.
        plain: computes the same by operations that have their own gradient, none of which counts as an activation:
            what squares and exponentials are if they end up in a norm.
        statistic: it is a sum of squares, magnitudes or exponentials.
        produced: the linear layer that computed it.
        moved: of what a layer computed, in another place: that tensor, and the movements.
        carrier: a zero-valued tensor that takes relevance which is no multiple of the values, on the way to the inputs.
        covered: where the carrier leads to an input, 1, and 0 elsewhere; None: everywhere.
        folded: results of what was folded into the layer that computed it.
        scaled: the two factors of which it is the product, one of them a weight of the model.
        owner: of a constant: the module whose parameter it is made from.
        logits: what it is the log-softmax of.
        log_total_of: it is the logarithm of the sum of the exponentials of this tensor.
        softmax: it is the output of a softmax, maybe of one written by hand.
    """

    weight: bool = False
    non_negative: bool = False
    number: float | None = None
    link: Link | None = None
    plain: Callable[[], Tensor] | None = None
    statistic: bool = False
    produced: Produced | None = None
    moved: tuple[Tensor, tuple[Call, ...]] | None = None
    carrier: Tensor | None = None
    covered: Tensor | None = None
    folded: list[Tensor] | None = None
    scaled: tuple[Tensor, Tensor] | None = None
    owner: nn.Module | None = None
    logits: Tensor | None = None
    log_total_of: Tensor | None = None
    softmax: bool = False

    def settle(self) -> None:
        """The forward pass is over: nothing is computed from the tensor any more, and what that needed may go."""
        self.link = self.plain = self.moved = self.scaled = self.log_total_of = None


NOTHING = Note()


class Notes(TensorTable[Note]):
    """What is known of each tensor of a forward pass."""

    def of(self, tensor: Tensor) -> Note:
        """What is known of a tensor, to be read."""
        entry = self._entries.get(id(tensor))
        return NOTHING if entry is None else entry[1]

    def add(self, tensor: Tensor) -> Note:
        """What is known of a tensor, to be added to."""
        entry = self._entries.get(id(tensor))
        if entry is None:
            note = self[tensor] = Note()
            return note
        return entry[1]
