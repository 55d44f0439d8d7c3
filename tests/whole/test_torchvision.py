"""Networks as they are: one of each of torchvision's 21 families of classification networks."""

import captum.attr
import pytest
import torch
from support.families import FAMILIES, build, picture
from support.helpers import assert_unchanged, snapshot

from plugin.attr import Deconvolution, GuidedBackprop

# Every activation is an nn.ReLU, called once per forward pass.
ONLY_RELU_MODULES = {"alexnet", "mnasnet0_5", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x0_5"}
ONLY_RELU_MODULES |= {"squeezenet1_1", "vgg11_bn"}


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
