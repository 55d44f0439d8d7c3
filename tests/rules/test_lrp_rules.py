"""Each LRP rule against zennit's and against the formula, in float64, on every kind of linear layer."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import zennit.rules
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LayerLRPTranspose, LRPTranspose
from plugin.errors import OptionError
from plugin.rules import (
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    LinearOperation,
    Pass,
    Rule,
    Term,
    WSquare,
    ZBox,
    ZPlus,
    stabilise,
)

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 5), (3, 7)),
    "linear on sequences": (nn.Linear(7, 5), (3, 4, 7)),
    "convolution": (nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
    "strided, padded": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 9, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 7, 7)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2), (2, 3, 9, 9)),
    "without bias": (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 8, 8)),
    "padding same": (nn.Conv2d(3, 4, (3, 5), padding="same"), (2, 3, 8, 8)),
    "one wide": (nn.Conv2d(5, 4, 1), (2, 5, 12, 12)),
    "one wide, strided": (nn.Conv2d(5, 4, 1, stride=2), (1, 5, 7, 6)),
    "from a picture": (nn.Conv2d(3, 6, 3, stride=2, padding=1), (2, 3, 25, 24)),
    "1-d": (nn.Conv1d(3, 4, 3, stride=2), (2, 3, 11)),
    "3-d": (nn.Conv3d(2, 3, 3, padding=1), (2, 2, 5, 5, 5)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1, padding=1), (2, 3, 5, 5)),
    "transposed 1-d, grouped": (nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 7)),
    "transposed 3-d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 3, 3)),
}
# zennit lets the bias into the sums of w^2; methods of the literature do not, so it is taken out there.
RULES: dict[str, tuple[Rule, zennit.core.Hook]] = {
    "epsilon": (Epsilon(), zennit.rules.Epsilon()),
    "epsilon 0.25": (Epsilon(0.25), zennit.rules.Epsilon(0.25)),
    "z+": (ZPlus(), zennit.rules.ZPlus()),
    "z+ without bias": (ZPlus(bias=False), zennit.rules.ZPlus(zero_params="bias")),
    "alpha 2 beta 1": (AlphaBeta(2, 1), zennit.rules.AlphaBeta(2, 1)),
    "alpha 1 beta 0": (AlphaBeta(1, 0), zennit.rules.AlphaBeta(1, 0)),
    "gamma": (Gamma(0.25), zennit.rules.Gamma(0.25)),
    "w^2": (WSquare(), zennit.rules.WSquare(zero_params="bias")),
    "flat": (Flat(), zennit.rules.Flat()),
    "z^B": (ZBox(-3.0, 3.0), zennit.rules.ZBox(-3.0, 3.0)),
}


class Readout(nn.Module):
    """A layer, then fixed signed weights on its output: R = y * weights reaches it."""

    def __init__(self, layer: nn.Module, weights: Tensor, rectify: bool) -> None:
        super().__init__()
        self.layer, self.weights, self.rectify = layer, weights, rectify

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x.relu() if self.rectify else x) * self.weights).flatten(1).sum(1)


def configure(name: str, positive: bool) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = layer.double()
    layer.reset_parameters()
    x = torch.randn(shape, dtype=torch.float64).clamp(-3, 3)
    x = x.abs() if positive else x
    return layer, x, torch.randn_like(layer(x))


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer_name", LAYERS)
def test_equals_zennit(layer_name, rule, positive) -> None:
    layer, x, weights = configure(layer_name, positive)
    ours, theirs = RULES[rule]
    # Through a ReLU the input is known to be non-negative, which takes the one-sided path.
    net = Readout(layer, weights, rectify=positive and ours.proportional)
    relevance = LRPTranspose(net, Composite(default=ours)).attribute(x)

    leaf = x.clone().requires_grad_()
    handles = theirs.copy().register(layer)
    output = layer(leaf)
    (expected,) = torch.autograd.grad(output, leaf, (output * weights).detach())
    handles.remove()
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("rule", [name for name, (rule, _) in RULES.items() if rule.proportional])
def test_padding_by_name_of_a_kernel_with_an_even_reach(rule, dilation) -> None:
    """One position more is padded behind than in front, as PyTorch does it."""
    torch.manual_seed(0)
    by_name = nn.Conv2d(3, 4, (2, 4), padding="same", dilation=dilation).double()
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64)
    reach = [dilation, 3 * dilation]
    front = [amount // 2 for amount in reach]
    sides = (front[1], reach[1] - front[1], front[0], reach[0] - front[0])

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Conv2d(3, 4, (2, 4), dilation=dilation).double()
            self.plain.load_state_dict(by_name.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            return self.plain(F.pad(x, sides))

    weights, composite = torch.randn_like(by_name(x)), Composite(default=RULES[rule][0])
    torch.testing.assert_close(by_name(x), Padded()(x))
    expected = LRPTranspose(Readout(Padded(), weights, False), composite).attribute(x)
    torch.testing.assert_close(LRPTranspose(Readout(by_name, weights, False), composite).attribute(x), expected)


def literal(rule: str, x: Tensor, weight: Tensor, bias: Tensor, relevance: Tensor, gamma: float) -> Tensor:
    """R_i as a sum over pairs (i, j), from the table of formulas, for one example and a matrix."""
    z = x[:, None] * weight.T  # contribution of input i to output j
    y = z.sum(0) + bias
    if rule == "plain gamma":
        z = x[:, None] * (weight + gamma * weight.clamp(min=0)).T
        return (z * (relevance / stabilise(z.sum(0) + bias + gamma * bias.clamp(min=0)))).sum(1)
    positive, negative = z.clamp(min=0), z.clamp(max=0)
    up = (z + gamma * positive) / stabilise((z + gamma * positive).sum(0) + bias + gamma * bias.clamp(min=0))
    down = (z + gamma * negative) / stabilise((z + gamma * negative).sum(0) + bias + gamma * bias.clamp(max=0))
    return (torch.where(y > 0, up, torch.where(y < 0, down, 0.0)) * relevance).sum(1)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("plain", [False, True])
def test_gamma_equals_its_formula(gamma, plain) -> None:
    layer, x, weights = configure("linear", positive=False)
    relevance = LRPTranspose(Readout(layer, weights, False), Composite(default=Gamma(gamma, plain))).attribute(x)
    for index in range(len(x)):
        arriving = layer(x[index]) * weights[index]
        name = "plain gamma" if plain else "gamma"
        expected = literal(name, x[index], layer.weight, layer.bias, arriving, gamma)
        torch.testing.assert_close(relevance[index], expected.detach())


def test_pass_keeps_relevance() -> None:
    layer = nn.Linear(5, 5).double()
    x = torch.randn(2, 5, dtype=torch.float64)
    weights = torch.randn(2, 5, dtype=torch.float64)
    relevance = LRPTranspose(Readout(layer, weights, False), Composite(default=Pass())).attribute(x)
    torch.testing.assert_close(relevance, (layer(x) * weights).detach())
    with pytest.raises(ValueError, match="Pass needs an output of the input's shape"):
        LRPTranspose(Readout(nn.Linear(5, 3), torch.ones(3), False), Composite(default=Pass())).attribute(x.float())


class Routed(nn.Module):
    """Each example goes to one of two experts, by its sum; an expert may get none."""

    def __init__(self, experts: nn.ModuleList) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        choice = (x.flatten(1).sum(1) > 0).long()
        out = torch.zeros_like(self.experts[0](x))
        for number, expert in enumerate(self.experts):
            chosen = torch.where(choice == number)[0]
            out = out.index_put((chosen,), expert(x[chosen]).relu())
        return out.flatten(1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer_name", ["linear", "linear on sequences", "convolution", "transposed"])
def test_a_layer_that_gets_no_example_leaves_the_maps_of_others(layer_name, rule) -> None:
    _, x, _ = configure(layer_name, False)
    network = Routed(nn.ModuleList(configure(layer_name, False)[0] for _ in range(2)))
    sums = x.flatten(1).sum(1)
    x = torch.cat([x[sums > 0], x[sums <= 0]])
    x = torch.cat([x, -x])
    attribution = LRPTranspose(network, Composite(default=RULES[rule][0]))
    one_by_one = attribution.attribute(x, 1, internal_batch_size=1)  # an expert without an example comes first
    assert torch.allclose(one_by_one, attribution.attribute(x, 1), rtol=1e-9, atol=1e-12)
    assert one_by_one.any()


class Vectors(nn.Module):
    """A layer that gets each example as a vector `(F,)`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(example).relu() for example in x])


@pytest.mark.parametrize("rule", RULES)
def test_a_vector_is_explained_as_in_a_batch(rule) -> None:
    layer, x, _ = configure("linear", False)
    composite = Composite(default=RULES[rule][0])
    expected = LRPTranspose(nn.Sequential(layer, nn.ReLU()), composite).attribute(x, 2)
    assert torch.allclose(LRPTranspose(Vectors(layer), composite).attribute(x, 2), expected, rtol=1e-9, atol=1e-12)
    assert expected.any()


@pytest.mark.parametrize("bound", [torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1), 3.0])
def test_box_bounds_may_be_tensors(bound) -> None:
    layer, x, weights = configure("convolution", positive=False)
    bound = bound.double() if isinstance(bound, Tensor) else bound
    relevance = LRPTranspose(Readout(layer, weights, False), Composite(first=ZBox(-bound, bound))).attribute(x)
    low, high = (torch.as_tensor(sign * bound, dtype=x.dtype).expand_as(x) for sign in (-1, 1))
    leaves = [value.clone().requires_grad_() for value in (x, low, high)]
    weight = layer.weight.detach()
    weights_of = (weight, weight.clamp(min=0), weight.clamp(max=0))
    parts = [F.conv2d(value, matrix) for value, matrix in zip(leaves, weights_of, strict=True)]
    denominator = parts[0] - parts[1] - parts[2]
    share = layer(x).detach() * weights / stabilise(denominator.detach())
    gradients = torch.autograd.grad(denominator, leaves, share)
    expected = sum(leaf.detach() * gradient for leaf, gradient in zip(leaves, gradients, strict=True))
    torch.testing.assert_close(relevance, expected)


@pytest.mark.parametrize("arguments", [(2.0, 0.5), (-1.0, -2.0), (1.0, 1.0), (math.nan, 1.0), (math.inf, math.inf)])
def test_alpha_beta_are_checked(arguments) -> None:
    with pytest.raises(ValueError, match="alpha - beta = 1"):
        AlphaBeta(*arguments)


@pytest.mark.parametrize("number", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "rule", [Epsilon, ZPlus, AlphaBeta, Gamma, WSquare, Flat, partial(ZBox, -1.0, 1.0)], ids=lambda rule: str(rule)[:30]
)
def test_stabilisers_are_finite_and_not_negative(rule: Callable[..., Rule], number: float) -> None:
    with pytest.raises(OptionError, match=f"epsilon = {number}: it must be a finite number >= 0"):
        rule(epsilon=number)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_gamma_is_checked(gamma: float) -> None:
    with pytest.raises(OptionError, match=f"gamma = {gamma}"):
        Gamma(gamma)


@pytest.mark.parametrize("bounds", [(0.5, 1.0), (-1.0, -0.5), (math.nan, 1.0), (-1.0, torch.tensor([1.0, math.nan]))])
def test_bounds_enclose_zero(bounds: tuple[float, float]) -> None:
    with pytest.raises(OptionError, match="enclose 0"):
        ZBox(*bounds)


@dataclass(frozen=True)
class Magnitude(Rule):
    """A rule of a user: in proportion to |x_i| |W_ij|."""

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        magnitude = operation.weight.abs()
        total = operation.linear(operation.input.abs(), magnitude)
        yield Term(magnitude, total, epsilon=1e-12, weight_below=-magnitude)


@pytest.mark.parametrize("layer_name", LAYERS)
def test_a_new_rule_works_on_every_layer(layer_name) -> None:
    layer, x, weights = configure(layer_name, positive=False)
    relevance = LRPTranspose(Readout(layer, weights, False), Composite(default=Magnitude())).attribute(x)
    arriving = (layer(x) * weights).flatten(1).sum(1).detach()
    torch.testing.assert_close(relevance.flatten(1).sum(1), arriving, rtol=1e-4, atol=1e-4)
    assert not relevance.allclose(LRPTranspose(Readout(layer, weights, False)).attribute(x))


def test_gamma_is_finite_where_no_product_is_negative() -> None:
    """Large positive sums: the remainder on the negative side is rounding, and must not be divided by."""
    layer = nn.Linear(64, 32)
    nn.init.uniform_(layer.weight, 0, 100)
    nn.init.uniform_(layer.bias, 0, 100)
    x = torch.rand(16, 64, generator=torch.Generator().manual_seed(0)) * 100
    relevance = LRPTranspose(layer, Composite(default=Gamma(0.25))).attribute(x, 3)
    assert relevance.isfinite().all()
    assert relevance.sum(1).max() <= layer(x)[:, 3].max()


@pytest.mark.parametrize(
    "rules",
    [
        (Gamma(0.1), Gamma(1.0)),
        (ZBox(-3.0, 3.0), ZBox(-1.0, 2.0)),
        (ZBox(-3.0, 3.0), ZBox(-3.0, 4.0)),
        (AlphaBeta(2, 1), AlphaBeta(1.5, 0.5)),
        (WSquare(), Flat()),
        (ZPlus(), ZPlus(bias=False)),
    ],
    ids=str,
)
def test_a_weight_that_is_used_twice_may_have_two_rules(rules) -> None:
    """Values kept for a weight belong to one rule; two copies of the weight give the expected maps."""
    torch.manual_seed(0)
    first, second = nn.Linear(5, 5).double(), nn.Linear(5, 5).double()
    second.load_state_dict(first.state_dict())
    composite = Composite(list(enumerate(rules)))
    reused, apart = nn.Sequential(first, nn.ReLU(), first), nn.Sequential(first, nn.ReLU(), second)
    x = torch.randn(4, 5, dtype=torch.float64)
    expected = LRPTranspose(apart, composite).attribute(x, 1)
    torch.testing.assert_close(LRPTranspose(reused, composite).attribute(x, 1), expected)
    swapped = LRPTranspose(reused, Composite(list(enumerate(rules[::-1])))).attribute(x, 1)
    assert not swapped.allclose(expected)


def lessened(value: Tensor) -> Tensor:
    value = value + value.flip(1)
    value[:, 0].sub_(1)
    return value


@pytest.mark.parametrize(
    "between",
    [
        lessened,
        lambda value: torch.add(value, value.flip(1), alpha=-1),
        lambda value: torch.add(value, other=-0.5),
        lambda value: F.pad(value[:, 2:], (1, 1), value=-0.5),
        lambda value: value.flip(1) + value,
        lambda value: value + torch.linspace(-1, 0.5, 7, dtype=value.dtype),
        lambda value: torch.cat([value[:, 3:], torch.full_like(value[:, :3], -0.5)], 1),
        lambda value: torch.maximum(value - 0.5, torch.full_like(value, -0.25)),
        lambda value: F.leaky_relu(value - 0.5, 0.3),
        lambda value: value * torch.linspace(-1, 0.5, 7, dtype=value.dtype),
    ],
    ids=[
        "view lessened",
        "weighted sum",
        "sum by keyword",
        "padding",
        "sum",
        "constant tensor",
        "concatenated constant",
        "maximum of a constant",
        "leaky",
        "weighted",
    ],
)
def test_negative_entries_after_relu_are_seen(between) -> None:
    """The one-sided path is for inputs without a negative entry, and the values after a ReLU may have some."""
    layer, x, weights = configure("linear", positive=False)

    class Net(Readout):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(between(x.relu()))

    composite = Composite(default=ZPlus())
    below = LayerLRPTranspose(Net(layer, weights, False), "layer", rules=composite)
    expected = LRPTranspose(Readout(layer, weights, False), composite).attribute(between(x.relu()))
    torch.testing.assert_close(below.attribute(x, attribute_to_layer_input=True), expected)
