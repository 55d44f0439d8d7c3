"""The memory of a call is free when it returns, without the garbage collector, whose time is not ours to choose."""

import gc

import pytest
import torch
from support.helpers import with_module
from torch import nn

from plugin import attr


def held() -> int:
    """Bytes of all tensors that anything refers to, garbage included."""
    tensors = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


CALLS = {
    "LRP": lambda net, x: attr.LRPTranspose(net, "epsilon_plus_flat").attribute(x, 1),
    "LRP of a neuron": lambda net, x: attr.NeuronLRPTranspose(net, "conv2", rules="epsilon_plus").attribute(
        x, (0, 1, 1)
    ),
    "LRP of a layer": lambda net, x: attr.LayerLRPTranspose(net, "conv2", rules="epsilon_plus").attribute(x, 1),
    "ledger": lambda net, x: attr.LRPTranspose(net, "epsilon_plus").ledger(x, 1),
    "deconvnet": lambda net, x: attr.Deconvolution(net).attribute(x, 1),
    "deconvnet of a neuron": lambda net, x: attr.NeuronDeconvolution(net, "conv2").attribute(x, (0, 1, 1)),
    "guided Grad-CAM": lambda net, x: attr.GuidedGradCam(net, net.conv2).attribute(x, 1),
    "deconvnet without a picture": lambda net, x: attr.DeconvNet(net, "conv2", (3, 9, 9)).reconstruct([(0, 1, 1)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_memory_returns_without_the_collector(name, images) -> None:
    net = with_module(nn.ReLU(), nn.ReLU())
    CALLS[name](net, images)
    gc.collect()
    gc.disable()
    try:
        before = held()
        for _ in range(3):
            CALLS[name](net, images)
        assert held() == before
    finally:
        gc.enable()
