"""The table of operations: printed as it stands, consistent with PyTorch, and the only one."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import GuidedBackprop, LRPTranspose
from plugin.errors import NoRuleError
from plugin.operations import as_markdown
from plugin.propagation import shapes, steps
from plugin.propagation.operations import OPERATIONS, operation_of

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_table() -> None:
    """After a change to a row, print the page anew: python -m plugin.operations > docs/operations.md."""
    assert (ROOT / "docs" / "operations.md").read_text() == as_markdown()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "relu"),
        (torch.relu, "relu"),
        (Tensor.relu, "relu"),
        (torch.ops.aten.relu, "relu"),
        (torch.ops.aten.relu.default, "relu"),
        (Tensor.__add__, "add"),
        (Tensor.__radd__, "add"),
        (torch.ops.aten.add.Tensor, "add"),
        (Tensor.mT.__get__, "mT"),  # type: ignore[attr-defined]
        (F.max_pool2d, "max_pool2d"),
        (torch.linalg.vector_norm, "vector_norm"),
        (torch.special.expit, "sigmoid"),
        (torch.lstm, "lstm"),
    ],
)
def test_each_spelling_finds_its_row(function, name) -> None:
    row = operation_of(function)
    assert row is not None
    assert row.name == name


def test_what_is_called_like_an_operation_is_none() -> None:
    def relu(x: Tensor) -> Tensor:
        return x

    assert operation_of(relu) is None


def test_no_function_has_two_rows() -> None:
    rows: dict[object, object] = {}
    for row in OPERATIONS:
        for function in row.functions:
            assert rows.setdefault(function, row) is row, f"{function} is in the rows of {row.name} and another"


def test_the_engine_knows_operations_from_the_table_alone() -> None:
    """Names of functions in other files of the engine would be a second table."""
    listed = re.compile(r'frozenset\(\s*"(?:\w+ ){12,}')
    for path in (ROOT / "plugin" / "propagation").rglob("*.py"):
        if path.name != "operations.py":
            assert not [
                line for line in path.read_text().splitlines() if listed.search(line) and "frozenset" in line
            ], path


class Dividing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cumprod(self.first(x), 1) / x.sum(1, keepdim=True))


def test_a_check_names_all_that_has_no_rule_before_anything_runs() -> None:
    torch.manual_seed(0)
    attribution, inputs = LRPTranspose(Dividing()), torch.randn(2, 4)
    check = attribution.check(inputs)
    assert sorted(refusal.operation for refusal in check.refusals) == ["cumprod", "div"]
    assert all("Dividing" in refusal.layer for refusal in check.refusals)
    assert [row.layer for row in check.layers] == ["first", "last"]
    assert not check.passed
    assert "detach()" in str(check)
    with pytest.raises(NoRuleError, match=r"div .* cumprod|cumprod .* div"):
        check.require()
    with pytest.raises(NotImplementedError, match="1 more"):
        attribution.attribute(inputs, 1)


def test_a_check_that_passes_says_which_rule_goes_where() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3)).eval()
    check = LRPTranspose(net, "epsilon_plus_flat").check(torch.rand(1, 1, 8, 8))
    assert check.passed
    assert check.require() is check
    assert [(row.layer, row.type, row.rule.split("(")[0]) for row in check.layers] == [
        ("0", "Conv2d", "Flat"),
        ("3", "Linear", "Epsilon"),
    ]
    assert "every operation has a rule" in str(check)


def test_what_is_refused_counts_only_where_relevance_comes() -> None:
    """An auxiliary output that is thrown away may hold anything."""

    class Beside(Dividing):
        def forward(self, x: Tensor) -> Tensor:
            torch.cumprod(self.first(x), 1)
            return self.last(self.first(x))

    assert LRPTranspose(Beside()).attribute(torch.randn(2, 4), 1).any()


def test_an_assignment_that_is_not_understood_is_warned_of() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            hidden[hidden < 0] *= 0.1
            return self.last(hidden)

    with pytest.warns(UserWarning, match=r"write it with torch\.where"):
        GuidedBackprop(Leaky()).attribute(torch.randn(2, 4), 1)


def test_numbers_that_differ_at_every_call_are_not_kept_for_ever() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.bound = nn.Linear(4, 3), 0.5

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).clamp(-self.bound, self.bound)

    net = Clamped()
    for call in range(20):
        net.bound = 0.5 + call / 1000
        GuidedBackprop(net).attribute(torch.randn(2, 4), 1)
    assert len(shapes._shapes) <= shapes._MANY
    assert len(steps._steps) <= shapes._MANY
    table: dict[int, int] = {}
    for number in range(3 * shapes._MANY):
        shapes.keep(table, number, number)
    assert len(table) <= shapes._MANY
    assert table[3 * shapes._MANY - 1] == 3 * shapes._MANY - 1
