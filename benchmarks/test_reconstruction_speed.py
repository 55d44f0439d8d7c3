"""Sixty-four units of a layer of All-CNN-C without an image, in one call."""

import pytest
import torch
from benchmark_session import synchronising
from captum.attr import NeuronDeconvolution

from plugin import models
from plugin.attr import DeconvNet
from plugin.measuring.cases import Case, Row

UNITS = 64
# Where the signal starts: a position in the middle of the layer.
MIDDLE = {"conv3": 8, "conv7": 3}


@synchronising
@pytest.mark.priority(1)
@pytest.mark.parametrize("implementation", ["ours", "captum"])
@pytest.mark.parametrize("layer", MIDDLE)
def test_reconstruction_speed(layer, implementation, session, measure) -> None:
    """The floor is one forward pass to the layer and one gradient, with a batch of as many images as there are units.

    Captum explains one unit per call and needs an image, which leaves no trace in a network without pooling.
    """
    session.check_time()
    network = models.load("all-cnn-c").network
    position = MIDDLE[layer]
    name = f"features.{layer}"
    below = network.features[: list(dict(network.features.named_children())).index(layer) + 1]
    images = torch.randn(UNITS, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    each = torch.arange(UNITS)

    def floor():
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(below(leaf)[each, each, position, position].sum(), leaf)[0]

    deconvnet = DeconvNet(network, name, (3, 32, 32))
    theirs = NeuronDeconvolution(network, network.get_submodule(name))

    def ours():
        return deconvnet.reconstruct(range(UNITS), position=(position, position))

    def captum():
        return torch.cat([theirs.attribute(images[:1], (unit, position, position)) for unit in range(UNITS)])

    def compared(result):
        difference = float((result - ours()).norm() / ours().norm())
        assert difference < 1e-5
        return difference, ""

    row = Row("all-cnn-c", f"reconstruct-{layer}", implementation, UNITS)
    measure(row, Case({"ours": ours, "captum": captum}[implementation], floor), compared)
