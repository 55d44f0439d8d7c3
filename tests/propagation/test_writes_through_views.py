"""Activations that overwrite a tensor through a view of it, or through an alias of another type."""

from collections.abc import Callable

import pytest
import torch
from support.between import Pointwise, assert_same_function
from support.subclasses import Plain, Unwrapping
from torch import Tensor
from torch.nn import functional as F

Write = Callable[[Tensor, Tensor], object]
Alias = Callable[[Tensor], Tensor]

# Each writes a ReLU of `v` into the second tensor, which shows it.
WRITES: dict[str, Write] = {
    "relu_": lambda v, shown: shown.relu_(),
    "clamp_": lambda v, shown: shown.clamp_(min=0),
    "its mask": lambda v, shown: shown.__setitem__(shown < 0, 0),
    "masked_fill_": lambda v, shown: shown.masked_fill_(shown < 0, 0.0),
    "times its mask": lambda v, shown: shown.mul_(shown > 0),
    "times the mask of another": lambda v, shown: shown.mul_((v > 0).view(shown.shape)),
    "copy_": lambda v, shown: shown.copy_(torch.where(shown > 0, shown, 0.0)),
}
ALIASES: dict[str, Alias] = {
    "flat": lambda w: w.view(-1),
    "same shape": lambda w: w.view(4, 6),
    "subclass": lambda w: w.as_subclass(Plain),
    "unwrapping subclass": lambda w: w.as_subclass(Unwrapping),
    "there and back": lambda w: w.as_subclass(Plain).as_subclass(Tensor),
    "a view of a subclass": lambda w: w.as_subclass(Plain).view(-1),
    "a subclass of a view": lambda w: w.view(-1).as_subclass(Plain),
}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("write", WRITES)
def test_an_activation_may_be_written_through_an_alias(write, alias) -> None:
    def rectified(v: Tensor) -> Tensor:
        values = v.clone()
        WRITES[write](v, ALIASES[alias](values))
        return values

    assert_same_function(F.relu, rectified)


def other(v: Tensor, kind: type[Tensor]) -> Tensor:
    values = v.clone()
    alias = values.as_subclass(kind)
    values.relu_()
    return alias


def afterwards(v: Tensor, kind: type[Tensor]) -> Tensor:
    values = v.clone()
    values.relu_()
    return values.as_subclass(kind)


def twice(v: Tensor, kind: type[Tensor]) -> Tensor:
    values = v.clone()
    alias = values.as_subclass(kind)
    alias.mul_(2)
    values.relu_()
    return alias.div_(2).as_subclass(Tensor)


def began_as_zeros(v: Tensor, kind: type[Tensor]) -> Tensor:
    values = torch.zeros_like(v)
    alias = values.as_subclass(kind)
    values.add_(F.relu(v))
    return alias


@pytest.mark.parametrize("kind", [Tensor, Plain, Unwrapping])
@pytest.mark.parametrize("function", [other, afterwards, twice, began_as_zeros])
def test_an_alias_of_another_type_shows_what_was_written(function, kind) -> None:
    spelling: Pointwise = lambda v: function(v, kind)  # noqa: E731
    assert_same_function(F.relu, spelling)
