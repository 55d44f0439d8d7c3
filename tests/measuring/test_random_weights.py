"""Random weights depend on the seed alone: not on the process's generator, nor on the draws of other threads."""

import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torchvision import models

from plugin.experiments.sanity import untrained
from plugin.measuring import measured_networks
from plugin.random_weights import SeededWeights


def weights(network: nn.Module) -> Tensor:
    return parameters_to_vector(network.parameters()).detach()


# Transformers with the initialisers of large ones, in few layers.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "squeezenet1_1": models.squeezenet1_1,
    "resnet18": models.resnet18,
    "vision transformer": partial(models.VisionTransformer, 32, 16, 2, 2, 64, 128),
    "swin transformer": partial(models.SwinTransformer, [4, 4], 24, [2, 2], [2, 2], [4, 4]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_those_of_the_seed(name: str) -> None:
    build = NETWORKS[name]
    torch.manual_seed(3)
    expected = weights(build())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with SeededWeights(3):
        found = weights(build())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_draw_at_once_get_the_same_weights() -> None:
    template = nn.Sequential(*(nn.Conv2d(64, 64, 3) for _ in range(30)))
    expected, found = weights(untrained(template, seed=1)), []
    threads = [threading.Thread(target=lambda: found.append(weights(untrained(template, seed=1)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        torch.manual_seed(0)
        torch.randn(10)
    assert len(found) == 8
    assert all(torch.equal(one, expected) for one in found)


def test_measured_networks_are_the_same_each_time() -> None:
    torch.manual_seed(1)
    first = weights(measured_networks.build("vit_b_16", small=True))
    torch.manual_seed(2)
    assert torch.equal(weights(measured_networks.build("vit_b_16", small=True)), first)


def test_new_random_tensors_are_those_of_the_seed_too() -> None:
    def draw() -> list[Tensor]:
        return [torch.rand(3), torch.randn(2, 2), torch.randint(9, (4,)), torch.randint(2, 9, (4,)), torch.randperm(5),
                torch.full((6,), 0.5).bernoulli()]  # fmt: skip

    torch.manual_seed(7)
    expected = draw()
    torch.manual_seed(8)
    with SeededWeights(7):
        found = draw()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_an_operation_without_a_generator_is_refused() -> None:
    with SeededWeights(0), pytest.raises(NotImplementedError, match=r"native_dropout\.default takes no generator"):
        torch.native_dropout(torch.ones(3), 0.5, True)
