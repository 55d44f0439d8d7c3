"""Attributions, composites and results of activation maximisation are pickled, copied and sent to other processes."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.processes import CONTEXT
from torch import Tensor, nn

from gan import CodeSpaceAM, PixelAM
from gan.maximising.priors import PRIORS
from plugin.attr import (
    DeconvNet,
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    ModifiedBackprop,
    NeuronDeconvolution,
    NeuronGuidedBackprop,
    NeuronLRPTranspose,
    NeuronModifiedBackprop,
)
from plugin.rules import Composite, Epsilon, Gamma, ZBox
from plugin.rules.presets import PRESETS

COMPOSITE = Composite([(nn.Conv2d, Gamma(0.1)), ("4", Epsilon(0.1))], first=ZBox(torch.tensor(-9.0), 9.0))
MAKE: dict[str, tuple[Callable[[nn.Module], Any], Any]] = {
    "GuidedBackprop": (GuidedBackprop, 1),
    "Deconvolution": (lambda net: Deconvolution(net, "center"), 1),
    "GuidedGradCam": (lambda net: GuidedGradCam(net, "0"), 1),
    "ModifiedBackprop": (lambda net: ModifiedBackprop(net, "guided without switches"), 1),
    "LRPTranspose": (lambda net: LRPTranspose(net, "epsilon_plus_flat"), 1),
    "composite": (lambda net: LRPTranspose(net, COMPOSITE), 1),
    "LayerLRPTranspose": (lambda net: LayerLRPTranspose(net, ["0", "2"]), 1),
    "NeuronLRPTranspose": (lambda net: NeuronLRPTranspose(net, "0"), (1, 2, 2)),
    "NeuronGuidedBackprop": (lambda net: NeuronGuidedBackprop(net, "0"), (1, 2, 2)),
    "NeuronDeconvolution": (lambda net: NeuronDeconvolution(net, "0"), (1, 2, 2)),
    "NeuronModifiedBackprop": (lambda net: NeuronModifiedBackprop(net, "0", "gradient"), (1, 2, 2)),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    return nn.Sequential(*layers).eval()


def maps(attribution: Any, images: Tensor, which: Any) -> list[Tensor]:
    result = attribution.attribute(images, which)
    return result if isinstance(result, list) else [result]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MAKE)
def test_a_copy_of_an_attribution_gives_the_same_map(name: str, way: str, images: Tensor) -> None:
    make, which = MAKE[name]
    attribution = make(net())
    expected = maps(attribution, images, which)  # before it is copied, so that its caches are filled
    again = WAYS[way](attribution)
    assert again.model is not attribution.model
    for copied, original in ((again, expected), (attribution, expected)):
        assert all(map(torch.equal, maps(copied, images, which), original))
    with torch.no_grad():  # the copy has weights of its own
        again.model[0].weight.mul_(-1)
    assert not all(map(torch.equal, maps(again, images, which), expected))
    assert all(map(torch.equal, maps(attribution, images, which), expected))


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_deconvnet_gives_the_same_picture(way: str) -> None:
    deconvnet = DeconvNet(net(), "1", (3, 9, 9))
    assert torch.equal(WAYS[way](deconvnet).reconstruct([0, 1]), deconvnet.reconstruct([0, 1]))


@pytest.mark.parametrize("way", WAYS)
def test_composites(way: str) -> None:
    for composite in (*(make() for make in PRESETS.values()), COMPOSITE):
        assert repr(WAYS[way](composite)) == repr(composite)


def test_attributions_are_sent_to_another_process(images: Tensor) -> None:
    attributions = [GuidedBackprop(net()), LRPTranspose(net(), "epsilon_plus_flat")]
    expected = [attribution.attribute(images, 1) for attribution in attributions]
    with CONTEXT.Pool(1) as pool:
        found = pool.starmap(maps, [(attribution, images, 1) for attribution in attributions])
    for (one,), other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


class Generator(nn.Module):
    code_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3 * 81)

    def forward(self, codes: Tensor) -> Tensor:
        return self.linear(codes).sigmoid().view(-1, 3, 9, 9)


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
@pytest.mark.parametrize("prior", [*PRIORS, None, "pixels"])
def test_results_of_activation_maximisation_are_saved(prior: str | None) -> None:
    torch.manual_seed(0)
    maximizer = (
        PixelAM(net(), (3, 9, 9)) if prior == "pixels" else CodeSpaceAM(net(), Generator(), prior=prior, candidates=1)
    )
    result = maximizer.maximize(1, runs=1, steps=2)
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), *(way(result) for way in WAYS.values())):
        assert torch.equal(again.images, result.images)
        assert torch.equal(again.scores, result.scores)
        assert again.targets == result.targets
        further = again.maximizer.maximize(1, runs=1, steps=2)
        assert torch.equal(further.images, result.images)
