"""What is added between layers, and what a gradient loses, is in the ledger."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import Between
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LRPTranspose


class Adding(Between):
    """Two linear maps and something between them that adds what no input decides."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.Linear(6, 6), between, nn.LazyLinear(2))


def assigned(value: Tensor) -> Tensor:
    value[:, 1] = 0.7
    return value


def assigned_through_a_view(value: Tensor) -> Tensor:
    value.view(-1, 2, 3)[:, 0] = 0.7
    return value


def added_in_place_and_rectified(value: Tensor) -> Tensor:
    value = value + value.flip(1)
    value += 0.3
    return F.relu(value, inplace=True)


def attending(value: Tensor) -> Tensor:
    scores = value[:, :, None] * value[:, None, :]
    scores = scores.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    return (scores.softmax(-1) @ value[:, :, None]).squeeze(-1)


# Of each, whether it keeps relevance under LRP-0.
BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "sum": (lambda value: value + 0.7, True),
    "difference, by keyword": (lambda value: torch.sub(input=value, other=torch.arange(6.0).double()), True),
    "weighted sum": (lambda value: torch.add(value, torch.ones_like(value), alpha=-2), True),
    "concatenation, by keyword": (lambda value: torch.cat(tensors=[value, torch.ones_like(value)], dim=1), True),
    "padding": (lambda value: F.pad(value, (1, 2), value=-0.4), True),
    "padding with zeros": (lambda value: F.pad(value, (1, 2)), False),
    "filled where masked": (lambda value: value.masked_fill(value < 0, 0.7), False),
    "chosen": (lambda value: torch.where(value > 0, value, torch.full_like(value, 0.7)), False),
    "maximum": (lambda value: torch.maximum(value, torch.full_like(value, 0.2)), False),
    "assignment": (assigned, True),
    "assignment through a view": (assigned_through_a_view, True),
    "sum in place, then ReLU in place": (added_in_place_and_rectified, True),
    "attention": (attending, True),
    "dropout": (lambda value: F.dropout(value, training=False), False),
    "movements": (lambda value: value.flip(1).reshape(-1, 3, 2).flatten(1), False),
    "pooling": (lambda value: F.avg_pool1d(value, 2), False),
    "sum of signals": (lambda value: value + value.roll(1, 1), False),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_added_between_layers_is_in_the_ledger(name) -> None:
    between, keeps = BETWEEN[name]
    torch.manual_seed(0)
    model, inputs = Adding(between).double(), torch.randn(3, 6, dtype=torch.float64)
    model(inputs)
    for preset in ("lrp_0", "epsilon", "epsilon_plus"):
        attribution = LRPTranspose(model, preset)
        ledger = attribution.ledger(inputs, 1)
        assert ledger.output == pytest.approx(model(inputs)[:, 1].sum().item(), abs=1e-12)
        assert ledger.input == pytest.approx(attribution.attribute(inputs, 1).sum().item(), abs=1e-12)
        assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, abs=1e-10)
        assert keeps == any(entry.rule == "-" for entry in ledger)


def test_what_a_gradient_loses_is_in_the_ledger() -> None:
    model, inputs = Adding(torch.exp), torch.randn(3, 6)
    model(inputs)
    ledger = LRPTranspose(model, "lrp_0", unknown="gradient").ledger(inputs, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-4)
    assert [entry.layer for entry in ledger if entry.rule == "-"] == ["exp in the Adding"]
