"""A small network with all that real ones consist of, and attributions of it that are recorded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, GuidedGradCam, LayerLRPTranspose, LRPTranspose

SHAPE = (2, 3, 12, 12)


class Residual(nn.Module):
    """The parts of real networks' graphs, small; `choose` is applied to the hidden layer."""

    def __init__(self, choose: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.block, self.block_norm = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.pool, self.strided = nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(6, 8, 3, stride=2)
        self.average, self.head = nn.AdaptiveAvgPool2d(3), nn.Linear(72, 5)
        self.choose = choose

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(torch.relu(self.norm(self.stem(images))))
        hidden = torch.relu(hidden + self.block_norm(self.block(hidden)))
        hidden = self.choose(torch.relu(self.strided(hidden)))
        return self.head(self.average(hidden).flatten(1))


def network(choose: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> nn.Module:
    torch.manual_seed(0)
    net = Residual(choose)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()


def images(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(seed))


ATTRIBUTIONS: dict[str, Callable[[nn.Module], Any]] = {
    "guided": GuidedBackprop,
    "deconvnet": Deconvolution,
    "deconvnet uniform": lambda net: Deconvolution(net, unpooling="uniform"),
    "grad-cam": lambda net: GuidedGradCam(net, net.get_submodule("strided")),
    "layer": lambda net: LayerLRPTranspose(net, "block", rules="epsilon_plus"),
    **{
        preset: lambda net, preset=preset: LRPTranspose(net, rules=preset)  # type: ignore[misc]
        for preset in ("lrp_0", "epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")
    },
}
