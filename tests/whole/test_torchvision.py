"""Networks as they are: one of each of torchvision's 21 families of classification networks.

LRP conserves with real biases, layer by layer: at every layer that all relevance passes, what arrives there plus what
biases, constants and stabilisers absorbed above it is the logit. Under LRP-0 stabilisers absorb nothing; on a ReLU
network a bias b absorbs b times the logit's gradient at b, as f(x) = x df/dx + sum b df/db there (Srinivas and Fleuret
2019). Without biases the relevance of the inputs is the logit.
"""

import re

import captum.attr
import pytest
import torch
from support.families import FAMILIES, build, picture, without_biases
from support.helpers import assert_unchanged, slow, snapshot
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, LayerLRPTranspose, LRPTranspose
from plugin.propagation.lrp.ledger import Entry

# Every activation is an nn.ReLU, called once per forward pass.
ONLY_RELU_MODULES = {"alexnet", "mnasnet0_5", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x0_5"}
ONLY_RELU_MODULES |= {"squeezenet1_1", "vgg11_bn"}
ATTENTION = {"vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"}
# Every operation but the layers and the maxima is linear without bias, or a ReLU.
ONLY_RELU = {"alexnet", "densenet121", "googlenet", "inception_v3", "mnasnet0_5", "resnet18", "resnext50_32x4d"}
ONLY_RELU |= {"shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn", "wide_resnet50_2"}

# Others have the same kinds of blocks, and take less time.
LONG = {"inception_v3", "maxvit_t", "wide_resnet50_2"}


@pytest.fixture(params=[slow(name) if name in LONG else name for name in FAMILIES], scope="module")
def name(request: pytest.FixtureRequest) -> str:
    """The tests of a network follow one another, so that it is built once."""
    family: str = request.param
    return family


def test_guided_backprop_and_deconvnet_run(name: str) -> None:
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


def with_biases(name: str) -> tuple[nn.Module, Tensor]:
    """The network with random biases, none zero, and batch norms that let signals pass; a picture."""
    model, generator = build(name), torch.Generator().manual_seed(3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for parameter_name, parameter in model.named_parameters():
        if "bias" in parameter_name or parameter_name in ("class_token", "encoder.pos_embedding"):
            nn.init.normal_(parameter, std=0.1, generator=generator)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        # The statistics of noise in place of zero and one, with which most networks' signals fade away.
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, *picture(name).shape[1:], generator=generator))
    return model.eval(), picture(name)


def chain(model: nn.Module, name: str = "") -> list[str]:
    """Layers that all relevance passes, one after the other, in the order in which they run."""
    if name and not isinstance(model, (nn.Sequential, nn.ModuleList)) and name != "encoder":
        return [] if "aux" in name.lower() else [name]  # heads that help training do not run
    return [link for inner, child in model.named_children() for link in chain(child, f"{name}.{inner}".lstrip("."))]


def place(entry: Entry, links: list[str]) -> float:
    """The position in the chain of the value that an entry stands for."""
    layer = match[1] if (match := re.match("\\w+ in '(.*)'", entry.layer)) else entry.layer
    found = [index for index, link in enumerate(links) if f"{layer}.".startswith(f"{link}.")]
    if not found:
        # Vision transformers add a class token and a position embedding to the output of their first layer.
        assert layer in ("cat in the VisionTransformer", "encoder")
    return found[0] if found else 0.5


def added_by_biases(model: nn.Module, image: Tensor, target: int) -> dict[str, float]:
    """b dlogit/db of each layer by plain autograd; a batch norm right after a convolution counts as a part of it."""
    names = {module: name for name, module in model.named_modules()}
    made: list[tuple[Tensor, str]] = []
    biases: list[tuple[str, Tensor, nn.Parameter]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        name = names[module]
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight * (module.running_var + module.eps).rsqrt()
            before = next((other for value, other in made if value is args[0]), name)
            biases.append((before, module.bias - module.running_mean * scale, module.bias))
        elif module.bias is not None:
            biases.append((name, module.bias, module.bias))
        made.append((output, name))

    layers = [module for module in names if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    handles = [module.register_forward_hook(note) for module in layers]
    logit = model(image)[0, target]
    for handle in handles:
        handle.remove()
    added = dict.fromkeys((name for name, _, _ in biases), 0.0)
    gradients = torch.autograd.grad(logit, [parameter for _, _, parameter in biases])
    for (name, values, _), gradient in zip(biases, gradients, strict=True):
        added[name] += (values * gradient).sum().item()
    return added


def test_relevance_and_what_was_absorbed_above_are_the_logit(name: str) -> None:
    model, image = with_biases(name)
    logit, target = (value.item() for value in model(image)[0].max(0))
    links = chain(model)

    def near(value: float) -> object:
        return pytest.approx(value, abs=1e-3 * abs(logit))

    for preset in ["cp_lrp"] if name in ATTENTION else ["epsilon", "lrp_0"]:
        attribution = LRPTranspose(model, preset)
        ledger = attribution.ledger(image, target)
        assert ledger.output == near(logit)
        assert attribution.attribute(image, target).sum().item() + ledger.absorbed == near(logit)
        assert sum(abs(entry.to_bias) for entry in ledger) > 0.1 * abs(logit), "the biases take part"
        for entry in ledger:
            assert entry.entered == near(entry.left + entry.to_bias), entry

        relevances = LayerLRPTranspose(model, links, rules=preset).attribute(image, target)
        for index, (link, relevance) in enumerate(zip(links, relevances, strict=True)):
            above = sum(entry.to_bias + entry.to_stabiliser for entry in ledger if place(entry, links) > index)
            assert relevance.sum().item() + above == near(logit), link

    if name in ONLY_RELU:
        expected = added_by_biases(model, image, target)
        absorbed = {entry.layer: entry.to_bias for entry in ledger}
        assert absorbed == {layer: near(expected.get(layer, 0.0)) for layer in absorbed}
        assert expected.keys() <= absorbed.keys()


def test_relevance_without_biases_is_the_logit(name: str) -> None:
    model, image = without_biases(build(name)), picture(name)
    before = snapshot(model)
    attribution = LRPTranspose(model, "cp_lrp" if name in ATTENTION else "lrp_0")
    relevance, delta = attribution.attribute(image, 7, return_convergence_delta=True)
    logit = model(image)[:, 7].detach()
    assert_unchanged(before, model)
    assert abs(delta.item()) <= 1e-3 * abs(logit.item())
    torch.testing.assert_close(relevance.sum(dim=(1, 2, 3)), logit - delta, rtol=1e-3, atol=1e-5)
