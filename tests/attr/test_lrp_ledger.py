"""The ledger holds constants added between layers, and relevance that a gradient loses."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import Between
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LRPTranspose
from plugin.rules import Composite, Flat, WSquare, ZBox
from plugin.rules.presets import epsilon_gamma_box


class Adding(Between):
    """Two linear maps, and between them an operation that adds a constant."""

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


class Beside(nn.Module):
    """A first layer that reads the input, and besides it another layer of the input."""

    def __init__(self, joined: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.joined, self.inner, self.first = joined, nn.Linear(6, 6, bias=False), nn.LazyLinear(2, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.first(self.joined(inputs, self.inner(inputs)))


def padded_window(value: Tensor) -> Tensor:
    return F.unfold(value.view(-1, 1, 2, 3), 3, padding=1).flatten(1)


# Of each, the relevance that goes to zeros beside it, as a share of all: none to padding.
JOINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "residual": (lambda x, y: x + y, 0),
    "residual of a residual": (lambda x, y: x + (x + y), 0),
    "residual, enlarged": (lambda x, y: (x + y) * 2, 0),
    "difference": (lambda x, y: x - y, 0),
    "negated": (lambda x, y: -(y - x), 0),
    "residual, normalised": (lambda x, y: F.layer_norm(x + y, (6,)), 0),
    "residual, then an activation": (lambda x, y: F.gelu(x + y), 0),
    "residual, pooled": (lambda x, y: F.avg_pool1d(x + y, 2), 0),
    "residual, windows with padding": (lambda x, y: padded_window(x + y), 0),
    "residual beside zeros": (lambda x, y: torch.cat([x + y, torch.zeros_like(x)], 1), 1 / 2),
    "beside each other": (lambda x, y: torch.cat([x, y], 1), 0),
    "beside each other, then an activation": (lambda x, y: F.gelu(torch.cat([x, y], 1)), 0),
}


@pytest.mark.parametrize("preset", ["epsilon_plus_flat", "epsilon_gamma_box"])
@pytest.mark.parametrize("name", JOINED)
def test_a_first_layer_that_also_reads_other_layers_gives_everything_to_the_inputs(name, preset) -> None:
    joined, share = JOINED[name]
    torch.manual_seed(0)
    model, inputs = Beside(joined).double(), torch.randn(3, 6, dtype=torch.float64)
    model(inputs)
    rules = epsilon_gamma_box(-3.0, 3.0) if preset == "epsilon_gamma_box" else preset
    ledger = LRPTranspose(model, rules).ledger(inputs, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, abs=1e-10)
    if preset == "epsilon_plus_flat":
        assert ledger.absorbed == pytest.approx(share * ledger.output, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("rule", [Flat(), WSquare(), ZBox(-3.0, 3.0)], ids=str)
def test_relevance_of_silent_units_is_in_the_ledger(rule) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    ledger = LRPTranspose(model, Composite(default=rule)).ledger(torch.randn(3, 6, dtype=torch.float64), 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, abs=1e-10)
    (lost,) = (entry for entry in ledger if entry.rule == "-")
    assert lost.layer == "inactive inputs of 2"
    assert abs(lost.to_stabiliser) > 0.01 * abs(ledger.output)
