"""A function between two linear layers: its map in one spelling is that in another, or it is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose
from plugin.errors import NoRuleError, UnseenOperationError

from .helpers import Method, assert_same_maps

Pointwise = Callable[[Tensor], Tensor]

RELU_METHODS: dict[str, Method] = {
    "guided": lambda model, inputs: GuidedBackprop(model).attribute(inputs, 1),
    "deconvnet": lambda model, inputs: Deconvolution(model).attribute(inputs, 1),
}
LRP_METHODS: dict[str, Method] = {
    "epsilon": lambda model, inputs: LRPTranspose(model, "epsilon").attribute(inputs, 1),
    "attn_lrp": lambda model, inputs: LRPTranspose(model, "attn_lrp").attribute(inputs, 1),
}
METHODS = RELU_METHODS | LRP_METHODS


class Between(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function: Pointwise) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = nn.Linear(6, 6), nn.Linear(6, 3), function
        self.table = nn.Parameter(torch.tensor([[0.3, 0.5], [-0.2, 1.5], [0.1, -0.4]]))
        self.double().eval()

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.first(values)))
        return result


INPUTS = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def maps(function: Pointwise) -> dict[str, Tensor]:
    return {name: method(Between(function), INPUTS) for name, method in METHODS.items()}


def assert_refused(model: nn.Module, says: str, methods: dict[str, Method] = RELU_METHODS) -> None:
    for method in methods.values():
        with pytest.raises((UnseenOperationError, NoRuleError), match=says):
            method(model, INPUTS)


def assert_same_function(reference: Pointwise, function: Pointwise, methods: dict[str, Method] = METHODS) -> None:
    """Two spellings compute the same values and have the same maps."""
    network = Between(function)
    torch.testing.assert_close(network(INPUTS), Between(reference)(INPUTS))
    assert_same_maps(methods, network, INPUTS, maps(reference))
