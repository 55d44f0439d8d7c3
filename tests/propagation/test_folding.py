"""A constant that is added to a layer is its bias, however it is spelled, moved or repeated for the examples."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import assert_close
from torch import Tensor, nn

from plugin.accelerate import compile as compiled
from plugin.attr import LayerLRPTranspose, LRPTranspose

REPEATED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "as it is": lambda token, count: token,
    "expanded": lambda token, count: token.expand(count, -1, -1),
    "repeated": lambda token, count: token.repeat(count, 1, 1),
    "concatenated": lambda token, count: torch.cat([token] * count),
    "computed": lambda token, count: (token.expand(count, -1, -1) + 1) * 2,
}


class Token(nn.Module):
    """A layer to which a token is added, which is the same for all examples; both may be moved before."""

    def __init__(self, repeated: Callable[[Tensor, int], Tensor], moved: bool) -> None:
        super().__init__()
        self.layer, self.head, self.token = nn.Linear(6, 6), nn.Linear(6, 3), nn.Parameter(torch.randn(1, 1, 6))
        self.repeated, self.moved = repeated, moved

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, token = self.layer(inputs), self.repeated(self.token, len(inputs))
        if self.moved:
            hidden, token = hidden.transpose(1, 2), token.transpose(1, 2)
        return self.head((hidden + token).flatten(1))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", REPEATED)
def test_a_constant_that_is_repeated_for_each_example_counts_as_for_one(name, moved) -> None:
    torch.manual_seed(0)
    model, inputs = Token(REPEATED[name], moved).double().eval(), torch.randn(3, 1, 6, dtype=torch.float64)
    for preset in ("epsilon", "epsilon_plus", "epsilon_alpha2_beta1"):
        for attribution in (LRPTranspose(model, preset), LayerLRPTranspose(model, model.layer, rules=preset)):
            together = attribution.attribute(inputs, target=1)
            alone = torch.cat([attribution.attribute(one, target=1) for one in inputs.split(1)])
            assert_close(together, alone, 1e-12)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", ["as it is", "expanded"])
def test_a_constant_that_is_added_to_a_layer_can_be_recorded(name, moved) -> None:
    torch.manual_seed(0)
    model, inputs = Token(REPEATED[name], moved).eval(), torch.randn(3, 1, 6)
    attribution = LRPTranspose(model, "epsilon_plus")
    recording = compiled(attribution, inputs, 1, mode="aten")
    for parameter in model.parameters():
        parameter.data *= 1.5
    assert_close(recording.attribute(inputs, target=1), attribution.attribute(inputs, target=1))


def test_a_parameter_with_as_many_rows_as_examples_is_no_bias() -> None:
    torch.manual_seed(0)
    model, inputs = Token(lambda token, count: token, moved=False).double(), torch.randn(3, 1, 6, dtype=torch.float64)
    model.token.data = torch.ones(3, 1, 6, dtype=torch.float64)
    ledger = LRPTranspose(model, "epsilon").ledger(inputs, 1)
    assert [entry.layer for entry in ledger if entry.rule == "-"] == ["add in the Token"]


BESIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros around": lambda values: nn.functional.pad(values, (1, 1)),
    "ones around": lambda values: nn.functional.pad(values, (1, 1), value=1.0),
    "zeros before": lambda values: torch.cat([torch.zeros_like(values[..., :1]), values], -1),
    "a constant behind": lambda values: torch.cat([values, torch.full_like(values[..., :1], 2.0)], -1),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_constant_that_also_meets_numbers_beside_a_layer_is_no_bias(name, channels) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.shift = nn.Conv1d(2, channels, 2), nn.Parameter(torch.randn(channels, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            return (BESIDE[name](self.layer(inputs)) + self.shift).flatten(1).pow(2).sum(1)

    model, inputs = Padded().double().eval(), torch.randn(2, 2, 4, dtype=torch.float64)
    ledger = LRPTranspose(model, "lrp_0").ledger(inputs)
    torch.testing.assert_close(ledger.input + ledger.absorbed, model(inputs).sum().item())


class Moved(nn.Module):
    """A convolution whose result a module of its own returns in another order, and a batch norm behind it."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.moved, self.norm, self.head = (
            nn.Conv1d(2, 4, 2), nn.Identity(), nn.BatchNorm1d(4), nn.Linear(4, 3),
        )  # fmt: skip
        self.move = move
        nn.init.normal_(self.norm.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.moved(self.move(self.layer(inputs)))).relu().mean(2))


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "not": lambda values: values,
    "rolled": lambda values: values.roll(1, 2),
    "cropped": lambda values: values[..., 1:],
    "joined": lambda values: torch.cat([values[:, :2], values[:, 2:]], 1),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_relevance_of_a_moved_result_is_found_in_the_results_folded_into_its_layer(name) -> None:
    model, inputs = Moved(MOVES[name]).double().eval(), torch.randn(2, 2, 5, dtype=torch.float64)
    at_layer, at_moved = (LayerLRPTranspose(model, layer).attribute(inputs, 1) for layer in (model.layer, model.moved))
    assert at_moved.any()
    assert_close(at_moved.sum(), at_layer.sum(), 1e-12)


@pytest.mark.parametrize("rules", ["epsilon_plus_flat", "epsilon_gamma_box"])
def test_relevance_that_passes_a_first_batch_norm_is_counted_once(rules) -> None:
    layers = nn.BatchNorm1d(2), nn.ReLU(), nn.Conv1d(2, 4, 2), nn.Flatten(), nn.Linear(16, 3)
    torch.manual_seed(0)
    model, inputs = nn.Sequential(*layers).double().eval(), torch.randn(2, 2, 5, dtype=torch.float64)
    at_input = LRPTranspose(model, rules).attribute(inputs, 1)
    for layer in model[:2]:
        assert_close(LayerLRPTranspose(model, layer, rules=rules).attribute(inputs, 1).sum(), at_input.sum(), 1e-12)


class Branches(nn.Module):
    """Two first layers, one of them behind a module that passes relevance unchanged."""

    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.one, self.other = before, nn.Conv1d(2, 3, 2), nn.Conv1d(2, 3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.one(self.before(inputs)) + self.other(inputs)).relu().mean(2)


@pytest.mark.parametrize("before", [nn.ReLU(), nn.BatchNorm1d(2), nn.LayerNorm(5)], ids=lambda one: type(one).__name__)
def test_relevance_before_the_first_layers_belongs_to_its_branch(before) -> None:
    model, inputs = Branches(before).double().eval(), torch.randn(2, 2, 5, dtype=torch.float64)
    (passed,) = [
        entry.left for entry in LRPTranspose(model, "epsilon_plus_flat").ledger(inputs, 1) if entry.layer == "one"
    ]
    found = LayerLRPTranspose(model, model.before, rules="epsilon_plus_flat").attribute(inputs, 1)
    torch.testing.assert_close(float(found.sum()), float(passed))
