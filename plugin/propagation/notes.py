"""Known properties of the tensors that a model computes, beyond their values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from .chains import IDENTITY, Link
from .tensors import TensorTable

if TYPE_CHECKING:
    from .calls import Call
    from .lrp.linear import Produced
    from .moving import Moved, Movement


# Calls, each with the position of the result that is meant.
Movements: TypeAlias = "tuple[tuple[Call, int], ...]"
# Of a product: tensors and numbers.
Factors: TypeAlias = "tuple[Tensor | float, ...]"


class Note:
    """The notes on one tensor. A tensor is a constant, which needs no gradient, a signal, or a weight.

    Attributes:
        weight: it is the proportion of a signal that passes, such as the output of a sigmoid.
        non_negative: it is known to have no negative entry.
        number: the number that all its entries are.
        places: it holds the places where a mask is true that was computed from a signal.
        link: its relation, element by element, to an earlier tensor.
        moved_link: it was moved after a function of another tensor was computed.
        selected_by: a constant that was computed from this tensor, by lookups or by masks of another form.
        plain: computes the same by operations that have their own gradient, none of which counts as an activation.
            Squares and exponentials are computed so if they end up in a norm.
        statistic: it is a sum of squares, magnitudes or exponentials.
        exponential: it is computed from exponentials: divided by their sum, it is a softmax.
        total: it is a sum of values that are not negative, and of numbers: as a divisor, it makes shares.
        mean_of: it holds means of this tensor.
        mixed: it is made of products of a tensor with itself: 0 where an entry is a sum of squares, not 0 elsewhere.
        produced: the linear layer that computed it.
        copy_of: the layer's result that it has the values of, unchanged.
        multiple: it is a multiple of this layer's result, by this number, or tensor of one number.
        moved: for a moved result of a layer, or of several: that result, and the movements.
        together: the call of `cat` or `stack` that put it together from results of layers, possibly moved.
        padded: the tensor that zeros were put around, and how many, as in `F.pad`.
        beside: for values beside which zeros were put: the shape before, and the padding and movements since.
        carrier: a zero-valued tensor that takes relevance which is no multiple of the values, on the way to the inputs.
        function_of: the carrier to which relevance passes unchanged from here, of a tensor that this is a function of.
        is_zero: it is a signal times the number 0, before the first layer.
        covered: the share that the carrier leads to the inputs, the rest goes to layers; None if that is all.
        folded: results of operations folded into the layer that computed it.
        factors: the tensors that vary and the numbers of which it is the product, as far as no activation was read.
        scaled: the two factors of which it is the product, or a view of that, one of them a weight of the model.
        averaged: the call that computed it, for a mean of such a product.
        owner: for a constant: the module whose parameter it is made from.
        logits: the tensor that it is the log-softmax of.
        shifted: the tensor that other values were subtracted from, and their shape, if it is another one.
        log_totals: how many times the logarithm of a sum of exponentials was added to it: below 0 for a log-softmax.
        softmax: it is the output of a softmax, possibly of one written by hand.
        mixture: weights mixed constants to it, so many for each set of weights; 0 for anything else. As a kernel or a
            matrix it is a weight; in any product, if a softmax mixed them.
        attended: it is this product of exponentials and values; divided by their sum, it is attention.
    """

    # An instance holds only those that differ from these.
    weight: bool = False
    non_negative: bool = False
    number: float | None = None
    places: bool = False
    link: Link | None = None
    moved_link: Moved | None = None
    selected_by: Tensor | None = None
    plain: Callable[[], Tensor] | None = None
    statistic: bool = False
    exponential: bool = False
    total: bool = False
    mean_of: Tensor | None = None
    mixed: Tensor | None = None
    produced: Produced | None = None
    copy_of: Tensor | None = None
    multiple: tuple[Tensor, Tensor | float] | None = None
    moved: tuple[Tensor, Movements] | None = None
    together: Call | None = None
    padded: tuple[Tensor, tuple[int, ...]] | None = None
    beside: tuple[torch.Size, Movement] | None = None
    carrier: Tensor | None = None
    function_of: Tensor | None = None
    is_zero: bool = False
    covered: Tensor | None = None
    folded: list[Tensor] | None = None
    factors: Factors | None = None
    scaled: tuple[Tensor, Tensor] | None = None
    averaged: Call | None = None
    owner: nn.Module | None = None
    logits: Tensor | None = None
    shifted: tuple[Tensor, torch.Size] | None = None
    log_totals: int = 0
    softmax: bool = False
    mixture: int = 0
    attended: Call | None = None


NOTHING = Note()


class Notes(TensorTable[Note]):
    """The notes on the tensors of a forward pass."""

    def of(self, tensor: Tensor) -> Note:
        """The notes on a tensor, for reading."""
        entry = self._entries.get(id(tensor))
        return NOTHING if entry is None else entry[1]

    def add(self, tensor: Tensor) -> Note:
        """The notes on a tensor, for writing."""
        entry = self._entries.get(id(tensor))
        if entry is None:
            note = self[tensor] = Note()
            return note
        return entry[1]

    def pass_on(self, source: Tensor, alias: Tensor) -> None:
        """Let the notes on a tensor hold for an alias of it, and an alias be the identity of it in chains."""
        note = self.add(source)
        if note.folded is None:
            note.folded = []  # one list: an operation on the alias is folded into the layer of both
        passed = copy.copy(note)
        passed.link = Link(source, IDENTITY, affine=True)
        self[alias] = passed

    def settle(self) -> None:
        """Drop the notes that only further computation needs: the forward pass is over."""
        for note in self.values():
            note.link = note.moved_link = note.plain = note.moved = note.scaled = None
            note.attended = note.selected_by = note.mixed = note.padded = note.together = None
            note.mean_of = note.beside = note.factors = note.averaged = None
            note.copy_of = note.multiple = note.shifted = None
