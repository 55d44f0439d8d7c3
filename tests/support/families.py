"""One network of each of torchvision's 21 families of classification networks."""

import torch
from torch import Tensor, nn
from torchvision import models

# Side of the input in pixels: small where the network takes any size, to be fast.
FAMILIES = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
    "vit_b_16": 224,
}


def build(name: str) -> nn.Module:
    """The network with random weights, in eval mode, with a head that is not zero."""
    torch.manual_seed(0)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **extra).eval()
    head = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    nn.init.normal_(head.weight, std=0.02)
    for parameter_name, parameter in model.named_parameters():
        if "layer_scale" in parameter_name:  # 1e-6 at the start of training: the blocks would not matter
            nn.init.constant_(parameter, 0.5)
    return model


def picture(name: str) -> Tensor:
    side = FAMILIES[name]
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))
