"""What every benchmark needs: networks, the floor, and rounds in which floor and measured call take turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

torch.set_num_threads(2)


@pytest.fixture(scope="session", params=["vgg16", "resnet50"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A torchvision network with random weights, frozen, in eval mode."""
    torch.manual_seed(0)
    model = models.get_model(request.param, weights=None).eval().requires_grad_(False)
    model.name = request.param
    return model


@pytest.fixture(scope="session", params=[1, 8], ids=["batch1", "batch8"])
def images(request: pytest.FixtureRequest) -> Tensor:
    """Random images `(N, 3, 224, 224)`; small ones where nothing is timed and the code only has to run."""
    side = 224 if request.config.getoption("benchmark_enable") else 32
    return torch.randn(request.param, 3, side, side, generator=torch.Generator().manual_seed(1))


def floor(model: nn.Module, images: Tensor, target: int = 3) -> Tensor:
    """One forward pass plus one gradient at the input: what no backward-pass method can be faster than."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
    return gradient


@pytest.fixture
def against_floor(benchmark: Any, network: nn.Module, images: Tensor) -> Callable[[Callable[[], Any]], None]:
    """Time a call; before each round the floor is timed, and the ratios of the pairs go into the result."""

    def measure(call: Callable[[], Any], rounds: int = 7) -> None:
        floors: list[float] = []

        def run_floor() -> None:
            start = time.perf_counter()
            floor(network, images)
            floors.append(time.perf_counter() - start)

        benchmark.group = f"{network.name}, batch {len(images)}"
        benchmark.pedantic(call, setup=run_floor, rounds=rounds, warmup_rounds=1, iterations=1)
        if benchmark.disabled:
            return
        ratios = [ours / base for ours, base in zip(benchmark.stats.stats.data, floors[1:], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        benchmark.extra_info |= {"ratio_to_floor": quartiles[1], "ratio_quartiles": [quartiles[0], quartiles[2]]}
        print(f"\n{benchmark.name}: {quartiles[1]:.3f} x floor [{quartiles[0]:.3f}, {quartiles[2]:.3f}]")

    return measure
