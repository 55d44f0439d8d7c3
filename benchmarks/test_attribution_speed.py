"""Attribution against the floor, Captum and zennit: `make bench`."""

from collections.abc import Callable
from functools import lru_cache

import captum.attr
import pytest
import torch
import zennit.attribution
import zennit.composites
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose


def zennit_gradient(model: nn.Module, composite: zennit.core.Composite, images: Tensor) -> Tensor:
    """zennit's modified gradient of output 3, scaled by the output as LRP is."""

    def seed(output: Tensor) -> Tensor:
        mask = torch.zeros_like(output)
        mask[:, 3] = output[:, 3]
        return mask.detach()

    with zennit.attribution.Gradient(model=model, composite=composite) as attributor:
        return attributor(images, seed)[1]


@lru_cache(maxsize=1)
def lrp(model: nn.Module, rules: str) -> LRPTranspose:
    """One object for all rounds, as in use: what it derives from the weights is kept between calls."""
    return LRPTranspose(model, rules)


METHODS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "guided ours": lambda model, images: GuidedBackprop(model).attribute(images, 3),
    "guided captum": lambda model, images: captum.attr.GuidedBackprop(model).attribute(images, 3),
    "deconvnet ours": lambda model, images: Deconvolution(model).attribute(images, 3),
    "deconvnet captum": lambda model, images: captum.attr.Deconvolution(model).attribute(images, 3),
    "epsilon ours": lambda model, images: lrp(model, "epsilon").attribute(images, 3),
    "epsilon captum": lambda model, images: captum.attr.LRP(model).attribute(images, 3),
    "epsilon_plus_flat ours": lambda model, images: lrp(model, "epsilon_plus_flat").attribute(images, 3),
    "epsilon_plus_flat zennit": lambda model, images: zennit_gradient(
        model, zennit.composites.EpsilonPlusFlat(), images
    ),
    "epsilon_gamma_box ours": lambda model, images: lrp(model, "epsilon_gamma_box").attribute(images, 3),
    "epsilon_gamma_box zennit": lambda model, images: zennit_gradient(
        model, zennit.composites.EpsilonGammaBox(low=-2.2, high=2.7), images
    ),
    "ten targets ours": lambda model, images: lrp(model, "epsilon").attribute_targets(images, list(range(10))),
}


@pytest.mark.parametrize("method", METHODS)
def test_attribution(method, network, images, against_floor) -> None:
    if method == "epsilon captum" and network.name == "resnet50":
        pytest.skip("Captum's LRP refuses the reused ReLU modules of ResNets")
    if len(images) > 1 and method == "ten targets ours":
        pytest.skip("measured for one image")
    against_floor(lambda: METHODS[method](network, images))
