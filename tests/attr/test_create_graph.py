"""Relevance with a graph: its gradient is that of the literal formulas, and a loss on it trains a model."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, LayerLRPTranspose, LRPTranspose
from plugin.errors import NotSupportedError, OptionTypeError, TargetError
from plugin.rules import Composite, Epsilon, Gamma
from plugin.rules.composite import CONVOLUTIONS

EPSILON = 1e-6
GAMMA = 0.25


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(45, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    return net.double().eval()


def normalised_net() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.running_mean, std=0.3)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, std=0.3)
    layers = (nn.Conv2d(2, 4, 3, bias=False), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(*layers).double().eval()


def activations_net() -> nn.Sequential:
    """Activations whose ratio f(x) / x is recorded, at exact zeros too, and norms."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.GELU(), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3))
    return nn.Sequential(*layers).double().eval()


def images(seed: int = 0, count: int = 2) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed)).double()


# -- the formulas ------------------------------------------------------------------------------------------------------

Layer = nn.Conv2d | nn.Linear
Formula = Callable[[Layer, Tensor, Tensor, Tensor], Tensor]


def forwards(layer: Layer, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(value, weight, bias)
    return F.conv2d(value, weight, bias, layer.stride, layer.padding)


def backwards(layer: Layer, signal: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return signal @ weight
    missing = layer.stride[0] - 1  # of a kernel of 3 on 6 positions
    return F.conv_transpose2d(signal, weight, None, layer.stride, layer.padding, missing)


def stabilised(value: Tensor, epsilon: float) -> Tensor:
    return value + epsilon * torch.where(value >= 0, 1.0, -1.0)


def epsilon_rule(layer: Layer, value: Tensor, output: Tensor, relevance: Tensor, epsilon: float = EPSILON) -> Tensor:
    return value * backwards(layer, relevance / stabilised(output, epsilon), layer.weight)


def zero_rule(layer: Layer, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
    return epsilon_rule(layer, value, output, relevance, 0.0)


def plus_rule(layer: Layer, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
    """In proportion to max(0, a_i w_ij)."""
    assert layer.bias is not None
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    above, below = value.clamp(min=0), value.clamp(max=0)
    total = forwards(layer, above, up, layer.bias.clamp(min=0)) + forwards(layer, below, down, None)
    share = relevance / (total + EPSILON)
    return above * backwards(layer, share, up) + below * backwards(layer, share, down)


def gamma_rule(layer: Layer, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
    """In proportion to a_i w_ij + gamma max(0, a_i w_ij); below a ReLU relevance arrives at y > 0 alone."""
    assert layer.bias is not None
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    above, below = value.clamp(min=0), value.clamp(max=0)
    positive = forwards(layer, above, up, layer.bias.clamp(min=0)) + forwards(layer, below, down, None)
    share = relevance / (output.clamp(min=0) + GAMMA * positive + EPSILON)
    plain = value * backwards(layer, share, layer.weight)
    return plain + GAMMA * (above * backwards(layer, share, up) + below * backwards(layer, share, down))


def flat_rule(layer: Layer, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
    ones = torch.ones_like(layer.weight)
    return backwards(layer, relevance / (forwards(layer, torch.ones_like(value), ones, None) + EPSILON), ones)


FORMULAS: dict[str, tuple[str | Composite, Formula, Formula, Formula]] = {
    "lrp_0": ("lrp_0", zero_rule, zero_rule, zero_rule),
    "epsilon": ("epsilon", epsilon_rule, epsilon_rule, epsilon_rule),
    "epsilon_plus": ("epsilon_plus", plus_rule, plus_rule, epsilon_rule),
    "epsilon_plus_flat": ("epsilon_plus_flat", flat_rule, plus_rule, epsilon_rule),
    "gamma": (
        Composite([(CONVOLUTIONS, Gamma(GAMMA))], default=Epsilon()),
        gamma_rule,
        gamma_rule,
        epsilon_rule,
    ),
}


def literally(net: nn.Sequential, inputs: Tensor, target: list[int], rules: tuple[Formula, Formula, Formula]) -> Tensor:
    """Relevance by the formulas, which autograd can differentiate."""
    first, convolution, linear = rules
    values = [inputs]
    for module in net:
        values.append(module(values[-1]))
    rows = torch.arange(len(inputs))
    relevance = torch.zeros_like(values[-1])
    relevance[rows, target] = values[-1][rows, target]
    for position in reversed(range(len(net))):
        module, value, output = net[position], values[position], values[position + 1]
        if isinstance(module, nn.Flatten):
            relevance = relevance.view_as(value)
        elif isinstance(module, nn.Linear):
            relevance = linear(module, value, output, relevance)
        elif isinstance(module, nn.Conv2d):
            relevance = (first if position == 0 else convolution)(module, value, output, relevance)
    return relevance


def loss_of(relevance: Tensor) -> Tensor:
    """No symmetry: each value counts otherwise."""
    weights = torch.randn(relevance.shape, generator=torch.Generator().manual_seed(9)).double()
    return (weights * relevance).sum() + relevance.square().sum()


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_the_formulas(name: str) -> None:
    preset, *rules = FORMULAS[name]
    net, inputs, target = conv_net(), images().requires_grad_(), [2, 0]
    sources = [inputs, *net.parameters()]
    expected = literally(net, inputs, target, tuple(rules))  # type: ignore[arg-type]
    attribution = LRPTranspose(net, preset)
    before = snapshot(net)
    found = attribution.attribute(inputs, target, create_graph=True)
    assert_unchanged(before, net)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.detach(), attribution.attribute(inputs, target), rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(loss_of(map_), sources, allow_unused=True) for map_ in (found, expected)]
    for source, one, other in zip(sources, *gradients, strict=True):
        scale = 1e-4 if other is None else max(1e-4, float(other.abs().max()))
        pair = [torch.zeros_like(source) if gradient is None else gradient for gradient in (one, other)]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-8 * scale)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients[0] if gradient is not None)


@pytest.mark.parametrize(
    ("method", "build"),
    [
        (lambda net: LRPTranspose(net, "epsilon_plus"), normalised_net),
        (lambda net: LRPTranspose(net, "epsilon_gamma_box"), normalised_net),
        (lambda net: LRPTranspose(net, "epsilon_alpha2_beta1_flat"), conv_net),
        (lambda net: LRPTranspose(net, "epsilon"), activations_net),
        (GuidedBackprop, activations_net),
        (Deconvolution, normalised_net),
    ],
)
def test_gradients_are_differences_of_the_map(method: Callable[[nn.Module], Any], build: Callable[[], Any]) -> None:
    """Of the map without graph, along a random direction of inputs and parameters."""
    net, inputs = build(), images().requires_grad_()
    attribution = method(net)
    found = attribution.attribute(inputs, [1, 2], create_graph=True)
    assert torch.allclose(found, attribution.attribute(inputs, [1, 2]), rtol=1e-10, atol=1e-10)
    sources = [inputs, *net.parameters()]
    gradients = torch.autograd.grad(loss_of(found), sources, allow_unused=True)
    random = torch.Generator().manual_seed(3)
    for source, gradient in zip(sources, gradients, strict=True):
        direction = torch.randn(source.shape, generator=random).double()
        losses = []
        for step in (1e-6, -2e-6, 1e-6):  # there, to the other side, and back
            with torch.no_grad():
                source.add_(direction, alpha=step)
            losses.append(float(loss_of(attribution.attribute(inputs, [1, 2]))))
        slope = (losses[0] - losses[1]) / 2e-6
        found_slope = 0.0 if gradient is None else float((gradient * direction).sum())
        assert found_slope == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_at_a_kink_the_slope_is_that_to_the_right() -> None:
    """Black pixels and new biases lie on one."""
    net, inputs = conv_net(), images()
    inputs[:, 0, 2:4] = 0
    with torch.no_grad():
        net[0].bias.zero_()
        net[0].weight[0, 0, 0].zero_()
    inputs.requires_grad_()
    attribution = LRPTranspose(net, "epsilon_plus")
    sources = [inputs, net[0].weight, net[0].bias]
    gradients = torch.autograd.grad(loss_of(attribution.attribute(inputs, 1, create_graph=True)), sources)
    before = float(loss_of(attribution.attribute(inputs, 1)))
    for source, gradient in zip(sources, gradients, strict=True):
        kinks = (source.detach() == 0).double()
        with torch.no_grad():
            source.add_(kinks, alpha=1e-9)
        slope = (float(loss_of(attribution.attribute(inputs, 1))) - before) / 1e-9
        with torch.no_grad():
            source.sub_(kinks, alpha=1e-9)
        assert float((gradient * kinks).sum()) == pytest.approx(slope, rel=1e-3)


def test_a_loss_on_relevance_lowers_what_lies_outside_a_mask() -> None:
    net, inputs, mask = conv_net(), images(count=4), torch.zeros(6, 6).double()
    mask[:, :3] = 1
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02)  # made before the attribution, of the model's own parameters
    attribution = LRPTranspose(net, "epsilon_plus")
    losses, logits = [], []
    for _ in range(15):
        relevance = attribution.attribute(inputs, [0, 1, 2, 0], create_graph=True)
        outside = ((1 - mask) * relevance).square().sum() / relevance.square().sum().detach()
        optimiser.zero_grad()
        outside.backward()
        optimiser.step()
        losses.append(float(outside.detach()))
        logits.append(net(inputs).detach())
        expected = attribution.attribute(inputs, [0, 1, 2, 0])
        torch.testing.assert_close(
            attribution.attribute(inputs, [0, 1, 2, 0], create_graph=True).detach(), expected, rtol=1e-10, atol=1e-10
        )
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.allclose(logits[0], logits[-1])


def test_what_needs_no_gradient_gets_none() -> None:
    net = conv_net()
    net[2].requires_grad_(False)
    attribution = LRPTranspose(net, "epsilon_plus")
    loss_of(attribution.attribute(images(), 1, create_graph=True)).backward()
    assert net[2].weight.grad is None
    assert net[0].weight.grad is not None
    net.requires_grad_(False)
    assert not attribution.attribute(images(), 1, create_graph=True).requires_grad
    inputs = images().requires_grad_()
    loss_of(attribution.attribute(inputs, 1, create_graph=True)).backward()
    assert inputs.grad is not None


def test_the_convergence_delta_and_parts_of_a_batch() -> None:
    net, inputs = conv_net(), images(count=5).requires_grad_()
    attribution = LRPTranspose(net, "epsilon_plus_flat")
    targets = [0, 1, 2, 1, 0]
    whole, delta = attribution.attribute(inputs, targets, return_convergence_delta=True, create_graph=True)
    parts, part_deltas = attribution.attribute(
        inputs, targets, return_convergence_delta=True, internal_batch_size=2, create_graph=True
    )
    expected = attribution.attribute(inputs, targets, return_convergence_delta=True)
    sources = [inputs, *net.parameters()]
    for found in ((whole, delta), (parts, part_deltas)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-10, atol=1e-10)
    for one, other in ((whole, parts), (delta, part_deltas)):
        losses = (loss_of(one), loss_of(other))
        gradients = [torch.autograd.grad(loss, sources, allow_unused=True, retain_graph=True) for loss in losses]
        for first, second in zip(*gradients, strict=True):
            assert (first is None) == (second is None)
            if first is not None:
                torch.testing.assert_close(first, second)


def test_the_graph_is_that_of_the_caller() -> None:
    """Inputs that were computed, in a caller that built no graph until now, or leads autograd itself."""
    net, source = conv_net(), images().requires_grad_()
    attribution = LRPTranspose(net)
    relevance = attribution.attribute(torch.tanh(source).transpose(2, 3), 1, create_graph=True)
    (gradient,) = torch.autograd.grad(relevance.square().sum(), source, create_graph=True)
    assert gradient.requires_grad
    with torch.no_grad():
        assert attribution.attribute(source, 1, create_graph=True).requires_grad
    with torch.inference_mode():
        inputs = images()
    assert attribution.attribute(inputs, 1, create_graph=True).requires_grad


def test_layers_and_several_inputs() -> None:
    net = conv_net()
    attribution = LayerLRPTranspose(net, [net[0], net[3]], rules="epsilon_plus")
    for at_input in (False, True):
        given = {"return_convergence_delta": True, "attribute_to_layer_input": at_input}
        found = attribution.attribute(images(), 2, create_graph=True, **given)
        expected = attribution.attribute(images(), 2, **given)
        for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-10, atol=1e-10)
            assert one.requires_grad


class Two(nn.Module):
    """Two inputs, and a number that selects the computation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)
        self.power = 1

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        hidden = torch.relu(self.one(one)) + self.power * torch.relu(self.other(other))
        return self.head(hidden)


def test_what_else_changes_the_model_is_seen() -> None:
    net = Two().double()
    attribution = LRPTranspose(net)
    inputs = torch.randn(2, 4).double(), torch.randn(2, 3).double()

    def check() -> None:
        found = attribution.attribute(inputs, 1, create_graph=True)
        for one, other in zip(found, attribution.attribute(inputs, 1), strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-10, atol=1e-10)

    check()
    net.power = 3
    check()
    net.head = nn.Linear(6, 2).double()
    check()
    net.load_state_dict(Two().double().state_dict(), assign=True)
    check()
    net.train()
    check()
    inputs = inputs[0][:1], inputs[1][:1]
    check()
    net.float()
    inputs = inputs[0].float(), inputs[1].float()
    check_type = attribution.attribute(inputs, 1, create_graph=True)
    assert check_type[0].dtype == torch.float32


def test_an_attribution_with_recordings_is_copied_and_pickled() -> None:
    attribution = LRPTranspose(conv_net())
    expected = attribution.attribute(images(), 1, create_graph=True)
    for other in (copy.deepcopy(attribution), pickle.loads(pickle.dumps(attribution))):
        torch.testing.assert_close(other.attribute(images(), 1, create_graph=True), expected)


class Choosing(nn.Module):
    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hidden, self.head, self.choose = nn.Linear(4, 6), nn.Linear(6, 2), choose

    def forward(self, value: Tensor, factor: float = 1.0) -> Tensor:
        return self.head(self.choose(torch.relu(self.hidden(value)))) * factor


def test_what_is_refused() -> None:
    inputs = torch.randn(2, 4)
    for choose, message in (
        (lambda x: x * 2 if x.sum() > 0 else x, "reads a value"),
        (lambda x: F.dropout(x, 0.5), "random"),
    ):
        with pytest.raises(NotSupportedError, match=message):
            LRPTranspose(Choosing(choose).eval()).attribute(inputs, 1, create_graph=True)
    attribution = LRPTranspose(Choosing(lambda x: x).eval())
    with pytest.raises(NotSupportedError, match="additional_forward_args"):
        attribution.attribute(inputs, 1, additional_forward_args=2.0, create_graph=True)
    with pytest.raises(OptionTypeError, match="slices and functions"):
        attribution.attribute(inputs, lambda output: output[:, 0], create_graph=True)
    with pytest.raises(TargetError, match="out of range"):
        attribution.attribute(inputs, 2, create_graph=True)
    with pytest.raises(ValueError, match="NaN or infinite"):
        attribution.attribute(inputs / 0, 1, create_graph=True)


def test_operations_without_a_derivative_are_refused() -> None:
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, value: Tensor) -> Tensor:
            heads = self.hidden(value)[:, None]
            return self.head(F.scaled_dot_product_attention(heads, heads, heads)[:, 0].mean(1))

    inputs = torch.randn(2, 5, 4)
    with pytest.raises(NotSupportedError, match=r"scaled_dot_product.* has no derivative.*sdpa_kernel"):
        GuidedBackprop(Attention().eval()).attribute(inputs, 1, create_graph=True)
    assert LRPTranspose(Attention().eval(), "attn_lrp").attribute(inputs, 1, create_graph=True).requires_grad
