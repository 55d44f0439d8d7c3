"""One network of each of torchvision's 21 families of classification networks."""

from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

# Side of the input in pixels: as small as each network takes it, to be fast.
FAMILIES = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 64,
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
    "vit_b_16": 64,
}


# Of `maxvit_t`, whose function fixes windows of 7 x 7, and with them an input of 224 pixels.
_MAXVIT_T: dict[str, Any] = {
    "stem_channels": 64, "block_channels": [64, 128, 256, 512], "block_layers": [2, 2, 5, 2], "head_dim": 32,
    "stochastic_depth_prob": 0.2, "partition_size": 2, "input_size": (64, 64),
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": FAMILIES["vit_b_16"]},
}


def build(name: str) -> nn.Module:
    """The network with random weights, in eval mode, with a head that is not zero."""
    return deepcopy(_built(name))


@lru_cache(maxsize=1)  # tests of one network follow one another
def _built(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "maxvit_t":
        model = models.MaxVit(**_MAXVIT_T).eval()
    else:
        model = models.get_model(name, weights=None, **_OPTIONS.get(name, {})).eval()
    head = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    nn.init.normal_(head.weight, std=0.02)
    for parameter_name, parameter in model.named_parameters():
        if "layer_scale" in parameter_name:  # 1e-6 at the start of training: the blocks would not matter
            nn.init.constant_(parameter, 0.5)
    return model


def picture(name: str) -> Tensor:
    side = FAMILIES[name]
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))


def without_biases(model: nn.Module) -> nn.Module:
    """The model, changed in place: nothing is added in it that the input does not decide."""
    for name, parameter in model.named_parameters():
        if "bias" in name or name in ("class_token", "encoder.pos_embedding"):
            nn.init.zeros_(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
    return model
