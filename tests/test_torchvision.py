"""Networks as they are: one of each of torchvision's 21 families of classification networks."""

import captum.attr
import pytest
import torch
from helpers import assert_unchanged, snapshot
from torch import Tensor, nn
from torchvision import models

from plugin.attr import Deconvolution, GuidedBackprop

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
# Every activation is an nn.ReLU, called once per forward pass.
ONLY_RELU_MODULES = {"alexnet", "mnasnet0_5", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x0_5"}
ONLY_RELU_MODULES |= {"squeezenet1_1", "vgg11_bn"}


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


@pytest.mark.parametrize("name", FAMILIES)
def test_guided_backprop_and_deconvnet_run(name) -> None:
    model, image = build(name), picture(name)
    before = snapshot(model)
    gradient = captum.attr.Saliency(model).attribute(image, target=7, abs=False)
    guided = GuidedBackprop(model).attribute(image, target=7)
    deconvnet = Deconvolution(model).attribute(image, target=7)
    assert_unchanged(before, model)
    for signal in (guided, deconvnet):
        assert signal.shape == image.shape
        assert signal.isfinite().all()
        assert signal.any()
        assert not torch.allclose(signal / signal.norm(), gradient / gradient.norm(), atol=1e-3), "the plain gradient"
    if name in ONLY_RELU_MODULES:
        torch.testing.assert_close(guided, captum.attr.GuidedBackprop(model).attribute(image, target=7))
        torch.testing.assert_close(deconvnet, captum.attr.Deconvolution(model).attribute(image, target=7))
