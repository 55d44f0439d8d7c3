"""The tiny autoencoder of natural images among the real data (taef2, MIT, by Ollin Boer Bohan), as PyTorch modules."""

from pathlib import Path

import torch
from torch import Tensor, nn


class Clamp(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents / 3) * 3


class Block(nn.Module):
    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(convolution(64), nn.ReLU(), convolution(64), nn.ReLU(), convolution(64))
        self.pool = None
        if pooled:
            layers = [nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU()]
            self.pool = nn.Sequential(*layers, nn.Conv2d(256, 64, 1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps if self.pool is None else maps + self.pool(maps)
        return (self.conv(maps) + maps).relu()


def convolution(inputs: int, outputs: int = 64, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def encoder(folder: Path) -> nn.Module:
    """Images in [0, 1] to latents `(N, 32, H / 8, W / 8)`."""
    layers: list[nn.Module] = [convolution(3), Block()]
    for pooled in (False, False, True):
        layers += [convolution(64, stride=2, bias=False), *(Block(pooled) for _ in range(3))]
    return _loaded(nn.Sequential(*layers, convolution(64, 32)), folder / "taef2_encoder.pth")


def decoder(folder: Path) -> nn.Module:
    """Latents to images, nearly in [0, 1]."""
    layers: list[nn.Module] = [Clamp(), convolution(32), nn.ReLU()]
    for pooled in (True, False, False):
        layers += [*(Block(pooled) for _ in range(3)), nn.Upsample(scale_factor=2), convolution(64, bias=False)]
    return _loaded(nn.Sequential(*layers, Block(), convolution(64, 3)), folder / "taef2_decoder.pth")


def _loaded(network: nn.Module, path: Path) -> nn.Module:
    state = torch.load(path, weights_only=True)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval().requires_grad_(False)
