"""Conservation with real biases, layer by layer, on one of each of torchvision's families of networks.

At every layer that all relevance passes, what arrives there plus what biases, constants and stabilisers absorbed above
it is the logit. Under LRP-0 stabilisers absorb nothing; on a ReLU network a bias b absorbs b times the logit's gradient
at b, as f(x) = x df/dx + sum b df/db there (Srinivas and Fleuret 2019).
"""

import re
from collections.abc import Callable

import pytest
import torch
from support.families import FAMILIES, build, picture
from support.helpers import Between
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LayerLRPTranspose, LRPTranspose
from plugin.propagation.lrp.ledger import Entry

ATTENTION = {"vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"}
# Every operation but the layers and the maxima is linear without bias, or a ReLU.
ONLY_RELU = {"alexnet", "densenet121", "googlenet", "inception_v3", "mnasnet0_5", "resnet18", "resnext50_32x4d"}
ONLY_RELU |= {"shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn", "wide_resnet50_2"}


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
    """The position in the chain of what an entry stands for."""
    layer = match[1] if (match := re.match("\\w+ in '(.*)'", entry.layer)) else entry.layer
    found = [index for index, link in enumerate(links) if f"{layer}.".startswith(f"{link}.")]
    if not found:
        # Vision transformers add a class token and a position embedding to what their first layer returns.
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


@pytest.mark.parametrize("name", FAMILIES)
def test_relevance_and_what_was_absorbed_above_are_the_logit(name) -> None:
    model, image = with_biases(name)
    logit, target = (value.item() for value in model(image)[0].max(0))
    links = chain(model)

    def near(value: float) -> object:
        return pytest.approx(value, abs=1e-3 * abs(logit))

    for preset in ["cp_lrp"] if name in ATTENTION else ["lrp_0", "epsilon"]:
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
        absorbed = {entry.layer: entry.to_bias for entry in LRPTranspose(model, "lrp_0").ledger(image, target)}
        assert absorbed == {layer: near(expected.get(layer, 0.0)) for layer in absorbed}
        assert expected.keys() <= absorbed.keys()


class Adding(Between):
    """Two linear maps and something between them that adds what no input decides."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.Linear(6, 6), between, nn.LazyLinear(2))


def assigned(value: Tensor) -> Tensor:
    value[:, 1] = 0.7
    return value


def assigned_through_a_view(value: Tensor) -> Tensor:
    value.view(-1, 2, 3)[:, 0] = 0.7
    return value


def added_in_place_and_rectified(value: Tensor) -> Tensor:
    value = value + value.flip(1)
    value += 0.3
    return F.relu(value, inplace=True)


def attending(value: Tensor) -> Tensor:
    scores = value[:, :, None] * value[:, None, :]
    scores = scores.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    return (scores.softmax(-1) @ value[:, :, None]).squeeze(-1)


# Of each, whether it keeps relevance under LRP-0.
BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "sum": (lambda value: value + 0.7, True),
    "difference, by keyword": (lambda value: torch.sub(input=value, other=torch.arange(6.0).double()), True),
    "weighted sum": (lambda value: torch.add(value, torch.ones_like(value), alpha=-2), True),
    "concatenation, by keyword": (lambda value: torch.cat(tensors=[value, torch.ones_like(value)], dim=1), True),
    "padding": (lambda value: F.pad(value, (1, 2), value=-0.4), True),
    "padding with zeros": (lambda value: F.pad(value, (1, 2)), False),
    "filled where masked": (lambda value: value.masked_fill(value < 0, 0.7), False),
    "chosen": (lambda value: torch.where(value > 0, value, torch.full_like(value, 0.7)), False),
    "maximum": (lambda value: torch.maximum(value, torch.full_like(value, 0.2)), False),
    "assignment": (assigned, True),
    "assignment through a view": (assigned_through_a_view, True),
    "sum in place, then ReLU in place": (added_in_place_and_rectified, True),
    "attention": (attending, True),
    "dropout": (lambda value: F.dropout(value, training=False), False),
    "movements": (lambda value: value.flip(1).reshape(-1, 3, 2).flatten(1), False),
    "pooling": (lambda value: F.avg_pool1d(value, 2), False),
    "sum of signals": (lambda value: value + value.roll(1, 1), False),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_added_between_layers_is_in_the_ledger(name) -> None:
    between, keeps = BETWEEN[name]
    torch.manual_seed(0)
    model, inputs = Adding(between).double(), torch.randn(3, 6, dtype=torch.float64)
    model(inputs)
    for preset in ("lrp_0", "epsilon", "epsilon_plus"):
        attribution = LRPTranspose(model, preset)
        ledger = attribution.ledger(inputs, 1)
        assert ledger.output == pytest.approx(model(inputs)[:, 1].sum().item(), abs=1e-12)
        assert ledger.input == pytest.approx(attribution.attribute(inputs, 1).sum().item(), abs=1e-12)
        assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, abs=1e-10)
        assert keeps == any(entry.rule == "-" for entry in ledger)


def test_what_a_gradient_loses_is_in_the_ledger() -> None:
    model, inputs = Adding(torch.exp), torch.randn(3, 6)
    model(inputs)
    ledger = LRPTranspose(model, "lrp_0", unknown="gradient").ledger(inputs, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-4)
    assert [entry.layer for entry in ledger if entry.rule == "-"] == ["exp in the Adding"]
