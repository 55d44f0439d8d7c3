"""Where many layers divide at once, as on a GPU, maps are those of layers that divide one after the other."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LayerLRPTranspose, LRPTranspose
from plugin.kernels.pointwise import stabilise, stabilised_quotients
from plugin.propagation.lrp import linear, quotients


class Branches(nn.Module):
    """Batch norms, a layer that is used twice, one with two readers, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.unread = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu_()
        self.unread(x)
        y = self.twice(x)
        x = self.twice(F.relu(y)) + y + x
        result: Tensor = self.last(x.mean((2, 3)))
        return result


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Branches().eval()


@pytest.mark.parametrize(
    ("rules", "at_once", "expected"),
    [
        ("epsilon", 1, [1, 1, 1, 1]),
        ("epsilon", 1600, [3, 1]),  # the last layer has 15 values, each of the others 768
        ("epsilon", 1 << 21, [5]),
        ("epsilon_plus", 1 << 21, [1]),
        ("lrp_0", 1 << 21, []),
    ],
)
def test_maps_are_the_same(network, monkeypatch, rules, at_once, expected) -> None:
    groups: list[int] = []

    def counted(outputs: Sequence[Tensor], epsilons: Sequence[float]) -> Sequence[Tensor]:
        groups.append(len(outputs))
        return stabilised_quotients(outputs, epsilons)

    monkeypatch.setattr(quotients, "stabilised_quotients", counted)
    monkeypatch.setattr(quotients, "_AT_ONCE", at_once)
    monkeypatch.setattr(linear, "waits_for_launches", lambda value: True)
    images = torch.randn(3, 3, 8, 8)
    attribution = LRPTranspose(network, rules)
    here, delta = attribution.attribute(images, target=2, return_convergence_delta=True)
    assert groups == expected
    layer = LayerLRPTranspose(network, "twice", rules=rules).attribute(images, target=2)
    targets, ledger = attribution.attribute_targets(images, [0, 3]), attribution.ledger(images, target=2)
    monkeypatch.undo()
    assert torch.equal(here, attribution.attribute(images, target=2))
    assert torch.equal(delta, attribution.attribute(images, target=2, return_convergence_delta=True)[1])
    assert torch.equal(layer, LayerLRPTranspose(network, "twice", rules=rules).attribute(images, target=2))
    assert torch.equal(targets, attribution.attribute_targets(images, [0, 3]))
    assert str(ledger) == str(attribution.ledger(images, target=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quotient_is_that_of_the_stabiliser(dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    values = torch.cat([torch.randn(1000, dtype=dtype), torch.tensor([0.0, -0.0, tiny, -tiny, 1e-6, -1e-6, 1e30])])
    for epsilon in (1e-6, 0.25):
        found = stabilised_quotients([values.to(dtype), -values.to(dtype)], [epsilon, 2 * epsilon])
        assert torch.equal(found[0], values.to(dtype) / stabilise(values.to(dtype), epsilon))
        assert torch.equal(found[1], -values.to(dtype) / stabilise(-values.to(dtype), 2 * epsilon))
