"""Outputs of layers, and forward passes that end where they are known."""

import pytest
import torch
from torch import nn

from plugin.errors import LayerError
from plugin.observing import outputs_of


class NeverReached(nn.Module):
    """Fails the test that runs it."""

    def forward(self, values):
        raise AssertionError("the rest of the network was run")


class Cautious(nn.Module):
    """A network that goes on after any error of its parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.rest = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), NeverReached()

    def forward(self, pictures):
        try:
            hidden = self.second(self.first(pictures))
        except Exception:
            hidden = pictures
        return self.rest(hidden)


def test_pass_ends_at_the_last_layer_that_is_asked_for():
    network, pictures = Cautious(), torch.randn(2, 3, 8, 8)
    found = outputs_of(network, ["second", "first"], pictures, used_once=True)
    torch.testing.assert_close(found["first"], network.first(pictures))
    torch.testing.assert_close(found["second"], network.first(pictures).relu())
    with pytest.raises(AssertionError, match="the rest"):
        outputs_of(network, ["first"], pictures)
    with pytest.raises(AssertionError, match="the rest"):  # nothing is observed any more
        network(pictures)


def test_layers_that_are_used_several_times_give_their_last_use():
    network = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    network.append(network[0])
    inputs = torch.randn(5, 2)
    torch.testing.assert_close(outputs_of(network, ["0"], inputs)["0"], network(inputs))
    with pytest.raises(LayerError):
        outputs_of(network, ["3"], inputs, used_once=True)
