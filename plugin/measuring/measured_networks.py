"""The measured networks: torchvision's, with random weights, since values do not affect the time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..random_weights import SeededWeights

NAMES = {"vgg16": "VGG-16", "resnet50": "ResNet-50", "mobilenet_v2": "MobileNet-V2", "vit_b_16": "ViT-B/16"}
SIDE, SMALL_SIDE = 224, 32


def build(name: str, small: bool = False) -> nn.Module:
    """A network in eval mode, frozen, the same at every call.

    Args:
        name: a key of `NAMES`.
        small: a few narrow layers of the same kinds, for inputs of `SMALL_SIDE` pixels: for a trial run.
    """
    from torchvision import models

    with SeededWeights(0):
        network: nn.Module = _small(name) if small else models.get_model(name, weights=None)
        if name == "vit_b_16":  # torchvision starts its head at zero: every map would be zero
            nn.init.normal_(network.get_submodule("heads.head").get_parameter("weight"), std=0.02)
    return network.eval().requires_grad_(False)


def images(batch: int, small: bool = False) -> Tensor:
    """Random normalised images `(batch, 3, side, side)`, the same at every call."""
    side = SMALL_SIDE if small else SIDE
    # Within the range of normalised photographs, as the z^B rule demands.
    uniform = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
    return uniform * 4.2 - 2.0


def _small(name: str) -> nn.Module:
    from torchvision.models import mobilenetv2, resnet, vision_transformer

    blocks = [[1, 8, 1, 1], [6, 8, 2, 2]]
    makers: dict[str, Callable[[], nn.Module]] = {
        "resnet50": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=4),
        "mobilenet_v2": lambda: mobilenetv2.MobileNetV2(
            num_classes=10, width_mult=0.25, inverted_residual_setting=blocks
        ),
        "vit_b_16": lambda: vision_transformer.VisionTransformer(SMALL_SIDE, 16, 2, 2, 16, 32, num_classes=10),
    }
    network: nn.Module = makers.get(name, _small_vgg)()
    return network


def _small_vgg() -> nn.Module:
    from torchvision.models import vgg

    with torch.device("meta"):  # its linear layers have no option for their size, and are the bulk of the network
        network: nn.Module = vgg.VGG(nn.Sequential(), num_classes=10, init_weights=False)
    network.features = vgg.make_layers([8, "M", 16, "M", 16])
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    for weight in network.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return network
