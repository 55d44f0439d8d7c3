"""One network of each of torchvision's 21 families of classification networks, with few channels and blocks."""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import inception, mobilenetv3, regnet, swin_transformer, vgg
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux
from torchvision.models.resnet import Bottleneck

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


_CLASSES = 1000


def _with_narrow_head(make: Callable[[], nn.Module], inputs: int) -> nn.Module:
    """An AlexNet or a VGG, whose classes fix 4096 units in dense layers: 64 of them, behind so many inputs."""
    with torch.device("meta"):
        model = make()
        places = [index for index, layer in enumerate(model.classifier) if isinstance(layer, nn.Linear)]
        widths = (inputs, 64, 64, _CLASSES)
        for index, (before, after) in zip(places, pairwise(widths), strict=True):
            model.classifier[index] = nn.Linear(before, after)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
    return model


def _quarter(convolution: Callable[..., nn.Module], inputs: int, outputs: int, **options: Any) -> nn.Module:
    """A convolution of an Inception network, between a quarter of the channels."""
    return convolution(inputs if inputs == 3 else inputs // 4, outputs // 4, **options)


def _googlenet() -> nn.Module:
    narrow = partial(_quarter, BasicConv2d)
    blocks = [narrow, partial(Inception, conv_block=narrow), InceptionAux]
    model = models.GoogLeNet(blocks=blocks, init_weights=False)
    model.fc = nn.Linear(256, _CLASSES)
    return model


def _inception_v3() -> nn.Module:
    narrow = partial(_quarter, inception.BasicConv2d)
    kinds = [getattr(inception, f"Inception{letter}") for letter in "ABCDE"]
    blocks = [narrow, *(partial(kind, conv_block=narrow) for kind in kinds), inception.InceptionAux]
    model = models.Inception3(inception_blocks=blocks, init_weights=False)
    model.fc = nn.Linear(512, _CLASSES)
    return model


# Every kind of block, with few channels and few repetitions. The families missing here have a small network anyway.
_SMALL: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: _with_narrow_head(models.alexnet, 256 * 6 * 6),
    "convnext_tiny": lambda: models.ConvNeXt(
        [CNBlockConfig(16, 32, 2), CNBlockConfig(32, 48, 2), CNBlockConfig(48, 64, 2), CNBlockConfig(64, None, 2)]
    ),
    "densenet121": lambda: models.DenseNet(growth_rate=8, block_config=(2, 3, 3, 2), num_init_features=16),
    "efficientnet_b0": lambda: models.EfficientNet(
        [MBConvConfig(1, 3, 1, 32, 16, 1), MBConvConfig(6, 3, 2, 16, 24, 2), MBConvConfig(6, 5, 2, 24, 40, 2)], 0.2
    ),
    "efficientnet_v2_s": lambda: models.EfficientNet(
        [
            FusedMBConvConfig(1, 3, 1, 24, 24, 1),
            FusedMBConvConfig(4, 3, 2, 24, 32, 2),
            MBConvConfig(4, 3, 2, 32, 48, 2),
        ],
        0.2,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
    ),
    "googlenet": _googlenet,
    "inception_v3": _inception_v3,
    # Its function fixes windows of 7 x 7, and with them an input of 224 pixels.
    "maxvit_t": lambda: models.MaxVit(
        input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[16, 32, 48, 64],
        block_layers=[1, 1, 2, 1], head_dim=8, stochastic_depth_prob=0.2,
    ),
    "mobilenet_v2": lambda: models.MobileNetV2(
        inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2], [6, 48, 2, 1]]
    ),
    "mobilenet_v3_small": lambda: models.MobileNetV3(
        [
            mobilenetv3.InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
            mobilenetv3.InvertedResidualConfig(16, 3, 72, 24, False, "RE", 2, 1, 1.0),
            mobilenetv3.InvertedResidualConfig(24, 3, 88, 24, False, "RE", 1, 1, 1.0),
            mobilenetv3.InvertedResidualConfig(24, 5, 96, 40, True, "HS", 2, 1, 1.0),
            mobilenetv3.InvertedResidualConfig(40, 5, 240, 40, True, "HS", 1, 1, 1.0),
        ],
        last_channel=128,
    ),
    "regnet_y_400mf": lambda: models.RegNet(
        regnet.BlockParams([1, 1, 2, 2], [16, 32, 48, 64], [8] * 4, [1.0] * 4, [2] * 4, se_ratio=0.25)
    ),
    "resnext50_32x4d": lambda: models.ResNet(Bottleneck, [2, 1, 1, 1], groups=8, width_per_group=4),
    "wide_resnet50_2": lambda: models.ResNet(Bottleneck, [2, 1, 1, 1], width_per_group=128),
    "shufflenet_v2_x0_5": lambda: models.ShuffleNetV2([2, 3, 2], [24, 48, 96, 192, 256]),
    "swin_t": lambda: models.SwinTransformer([4, 4], 24, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7]),
    "swin_v2_t": lambda: models.SwinTransformer(
        [4, 4], 24, [2, 2, 2, 2], [1, 2, 4, 8], [8, 8],
        block=swin_transformer.SwinTransformerBlockV2, downsample_layer=swin_transformer.PatchMergingV2,
    ),
    "vgg11_bn": lambda: _with_narrow_head(
        lambda: models.VGG(
            vgg.make_layers([16, "M", 32, "M", 48, 48, "M", 64, 64, "M", 64, 64, "M"], batch_norm=True),
            init_weights=False,
        ),
        64 * 7 * 7,
    ),
    "vit_b_16": lambda: models.VisionTransformer(
        FAMILIES["vit_b_16"], patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128
    ),
}  # fmt: skip


def build(name: str) -> nn.Module:
    """The network with random weights, in eval mode, with a head that is not zero."""
    return deepcopy(_built(name))


@lru_cache(maxsize=1)  # tests of one network follow one another
def _built(name: str) -> nn.Module:
    torch.manual_seed(0)
    make = _SMALL.get(name, partial(models.get_model, name, weights=None))
    model = make().eval()
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
