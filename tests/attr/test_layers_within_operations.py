"""Relevance at a layer that is one step of an operation written by hand: as of the network above it alone."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import assert_close
from torch import Tensor, nn

from plugin.attr import LayerLRPTranspose, LRPTranspose

Step = Callable[[Tensor], Tensor]
IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class By(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.weight = nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64).view(4, 1, 1))

    def forward(self, value: Tensor) -> Tensor:
        return self.step(value)


STEPS: dict[str, Step] = {
    "2 v": lambda v: 2 * v,
    "-v": lambda v: -v,
    "v + 1": lambda v: v + 1,
    "v * 1": lambda v: v * 1,
    "v * ones": lambda v: v * torch.ones(4, 1, 1).to(v),
    "|v|": torch.abs,
    "v > 0": lambda v: torch.where(v > 0, v, 0.1 * v),
}
AFTERWARDS: dict[str, Step] = {
    "cube": lambda v: v.abs() ** 3,
    "silu": lambda v: v * torch.sigmoid(v),
    "gelu": lambda v: 0.5 * v * (1 + torch.erf(v / 2**0.5)),
    "leaky relu": lambda v: torch.where(v > 0, v, 0.2 * v),
    "relu": lambda v: v * (v > 0),
    "crelu": lambda v: torch.cat([v, -v], 1).clamp(min=0)[:, :4],
}


@pytest.mark.parametrize("rules", ["lrp_0", "epsilon_plus"])
@pytest.mark.parametrize("after", AFTERWARDS)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_an_activation_has_relevance(step: str, after: str, rules: str) -> None:
    torch.manual_seed(0)
    first, layer, above = nn.Conv2d(3, 4, 3), By(STEPS[step]), nn.Sequential(By(AFTERWARDS[after]), nn.Flatten())
    above.append(nn.Linear(64, 3))
    model = nn.Sequential(first, layer, above).double().eval()
    for at_input in (False, True):
        below = model[:1] if at_input else model[:2]
        rest = nn.Sequential(layer, above) if at_input else above
        expected = LRPTranspose(rest, rules).attribute(below(IMAGES).detach(), 1)
        found = LayerLRPTranspose(model, layer, rules=rules).attribute(IMAGES, 1, attribute_to_layer_input=at_input)
        assert_close(found, expected, 1e-9)


def test_the_product_of_a_layer_by_hand_has_relevance() -> None:
    torch.manual_seed(0)
    scaled = By(lambda v: v * scaled.weight)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), scaled, By(lambda v: v.sum(1)), nn.Flatten(), nn.Linear(16, 3))
    model.double().eval()
    expected = LRPTranspose(model[3:]).attribute(model[:3](IMAGES).detach(), 1)
    assert_close(LayerLRPTranspose(model, scaled).attribute(IMAGES, 1), expected, 1e-9)


class Residual(nn.Module):
    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.relu, self.first, self.join = nn.ReLU(), nn.Conv2d(3, 4, 6), join
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.first(self.join(images, self.relu(images))).flatten(1)
        return logits


def test_an_activation_before_the_first_layer_has_relevance() -> None:
    joins = (torch.add, lambda x, y: torch.stack([x, y]).sum(0))
    maps = [
        LayerLRPTranspose(model, model.relu, rules="epsilon_plus_flat").attribute(IMAGES, 1)
        for model in map(Residual, joins)
    ]
    assert maps[1].all()
    assert_close(maps[0], maps[1], 1e-9)


COPIES: dict[str, Step] = {
    "clone": torch.clone,
    "view": lambda v: v.view(v.shape),
    "flatten": lambda v: v.flatten(3),
    "two copies": lambda v: v.clone()[...],
    "moved": lambda v: v.mT.clone().mT,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_layer_whose_copy_is_normalised_has_relevance(name: str) -> None:
    maps = []
    for copy in (lambda v: v, COPIES[name]):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4, eps=0.5)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), By(copy), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        maps.append(LayerLRPTranspose(model.double().eval(), "0", rules="epsilon_plus").attribute(IMAGES, 1))
    assert maps[0].any()
    assert_close(maps[1], maps[0], 1e-9)
