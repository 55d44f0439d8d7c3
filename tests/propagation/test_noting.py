"""A value computed from a signal under `torch.no_grad` is a constant, as a detached value is."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import Between, assert_close
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose, ModifiedBackprop

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "sigmoid by hand": lambda x: 1 / (1 + torch.exp(-x)),
    "relu": torch.relu,
    "mask": lambda x: (x > 0).to(x),
    "magnitude": torch.abs,
    "square": lambda x: x * x,
    "several steps": lambda x: (x.relu() + 1) * 2,
    "largest": lambda x: x.abs().amax(1, keepdim=True),
}


def weighted(weight: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def function(value: Tensor) -> Tensor:
        with torch.no_grad():
            factor = weight(value)
        return value * factor

    return function


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_that_has_no_gradient_is_held_constant(name) -> None:
    torch.manual_seed(0)
    layers, weight = (nn.Linear(6, 6), nn.Linear(6, 3)), WEIGHTS[name]
    model = Between(layers[0], weighted(weight), layers[1]).double()
    detached = Between(layers[0], lambda value: value * weight(value).detach(), layers[1]).double()
    inputs = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(model(inputs)[:, 1].sum(), inputs)
    assert_close(ModifiedBackprop(model, "gradient").attribute(inputs, target=1), expected, 1e-12)
    for method in (GuidedBackprop, Deconvolution, LRPTranspose):
        found, same = (method(one).attribute(inputs, target=1) for one in (model, detached))
        assert_close(found, same, 1e-12)
