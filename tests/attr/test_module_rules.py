"""Captum's `module.rule` on modules of every kind, against `captum.attr.LRP` where that is right."""

import copy
from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from support.helpers import assert_close, assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from plugin.attr import LayerLRPTranspose, LRPTranspose
from plugin.errors import NotSupportedError, OptionError, OptionTypeError
from plugin.rules import Composite, Epsilon, Flat

pytestmark = pytest.mark.usefixtures("one_thread")

# Captum's stabiliser.
RULES = Composite(default=Epsilon(1e-9))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    network = build().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network


def captums(network: nn.Module, inputs: Tensor) -> Tensor:
    return captum.attr.LRP(copy.deepcopy(network)).attribute(inputs.clone(), target=1).detach()


def assert_as_captum(network: nn.Module, inputs: Tensor) -> None:
    expected, before = captums(network, inputs), snapshot(network)
    found = LRPTranspose(network, RULES).attribute(inputs, 1)
    assert_unchanged(before, network)
    assert_close(found, expected, 1e-6)


class Swish(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(values)


class Scaled(nn.Module):
    """A leaf with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, -1.5, 8))

    def forward(self, values: Tensor) -> Tensor:
        return self.weight * values.tanh()


class SquaredWeight(EpsilonRule):
    def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        module.weight.data = module.weight.data**2


class Coarse(EpsilonRule):
    """A stabiliser of its own making."""

    def _create_backward_hook_output(self, outputs: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda relevance: relevance / (outputs + 0.5 * torch.where(outputs < 0, -1.0, 1.0))


# -- vectors: Linear, a module, Linear ---------------------------------------------------------------------------------

MODULES: dict[str, Callable[[], nn.Module]] = {
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "LeakyReLU": nn.LeakyReLU,
    "Sigmoid": nn.Sigmoid,
    "Softmax": lambda: nn.Softmax(1),
    "BatchNorm1d": lambda: nn.BatchNorm1d(8),
    "LayerNorm": lambda: nn.LayerNorm(8),
    "RMSNorm": lambda: nn.RMSNorm(8),
    "Swish": Swish,
    "Scaled": Scaled,
    "ReLU": nn.ReLU,
    "Tanh": nn.Tanh,
    "Dropout": nn.Dropout,
    "Linear": lambda: nn.Linear(8, 8),
}
OWN_RULES: list[PropagationRule] = [
    IdentityRule(),
    EpsilonRule(0.3),
    GammaRule(0.4),
    Alpha1_Beta0_Rule(True),
    SquaredWeight(0.1),
    Coarse(),
]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        pytest.param(name, rule, id=f"{type(rule).__name__} on {name}")
        for name, build in MODULES.items()
        for rule in OWN_RULES
        if not isinstance(rule, SquaredWeight) or hasattr(build(), "weight")
    ],
)
def test_a_rule_on_a_module_between_linear_layers(name, rule) -> None:
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 8), MODULES[name](), nn.Linear(8, 3)))
    network[1].rule = copy.deepcopy(rule)
    assert_as_captum(network, numbers(4, 6))


# -- images ------------------------------------------------------------------------------------------------------------


def images(*middle: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), *copy.deepcopy(middle), nn.Conv2d(4, 3, 2), Mean())


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rule = EpsilonRule()

    def forward(self, values: Tensor) -> Tensor:
        return values.mean((2, 3))


IMAGES: dict[str, tuple[nn.Module, PropagationRule]] = {
    "epsilon on a batch norm behind a ReLU": (nn.BatchNorm2d(4), EpsilonRule(0.2)),
    "gamma on a batch norm": (nn.BatchNorm2d(4), GammaRule(0.2)),
    "squared weight on a batch norm": (nn.BatchNorm2d(4), SquaredWeight(0.2)),
    "epsilon on a group norm": (nn.GroupNorm(2, 4), EpsilonRule(0.2)),
    "epsilon on max pooling": (nn.MaxPool2d(2), EpsilonRule(0.2)),
    "epsilon on overlapping max pooling": (nn.MaxPool2d(3, 1), EpsilonRule(0.2)),
    "epsilon on average pooling": (nn.AvgPool2d(2), EpsilonRule(0.2)),
    "epsilon on adaptive pooling": (nn.AdaptiveAvgPool2d(4), EpsilonRule(0.2)),
    "epsilon on upsampling": (nn.Upsample(scale_factor=2), EpsilonRule(0.2)),
    "squared weight on a convolution": (nn.Conv2d(4, 4, 2), SquaredWeight(0.2)),
    "squared weight on a transposed convolution": (nn.ConvTranspose2d(4, 4, 2), SquaredWeight(0.2)),
    "own stabiliser on a convolution": (nn.Conv2d(4, 4, 2), Coarse()),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_rule_in_a_network_of_images(name) -> None:
    module, rule = IMAGES[name]
    network = seeded(images(module))
    network[2].rule = copy.deepcopy(rule)
    assert_as_captum(network, numbers(2, 2, 12, 12))


@pytest.mark.parametrize("rule", [GammaRule(0.3), Alpha1_Beta0_Rule(), EpsilonRule(0.3), SquaredWeight(0.3)])
def test_a_rule_on_a_convolution_that_a_batch_norm_follows_is_of_the_convolution_itself(rule) -> None:
    network = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 10), Mean())
    )
    network[0].rule = copy.deepcopy(rule)
    assert_as_captum(network, numbers(2, 2, 12, 12))


def test_addition_of_captum_as_a_module() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.add = Addition_Module()
            self.add.rule = EpsilonRule(0.2)

        def forward(self, values: Tensor) -> Tensor:
            hidden = self.first(values)
            return self.last(self.add(hidden, self.second(hidden)))

    network, values = seeded(Residual), numbers(2, 6)

    class Rule(torch.autograd.Function):
        """The rule of the addition, written out."""

        @staticmethod
        def forward(ctx: Any, one: Tensor, two: Tensor) -> Tensor:
            ctx.save_for_backward(one + two)
            return one + two

        @staticmethod
        def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor, Tensor]:
            (total,) = ctx.saved_tensors
            below = multiplier * total / (total + 0.2 * total.sign())
            return below, below

    leaf = values.clone().requires_grad_()
    hidden = network.first(leaf)
    output = network.last(Rule.apply(hidden, network.second(hidden)))
    expected = values * torch.autograd.grad(output[:, 1].sum(), leaf)[0]
    assert_close(LRPTranspose(network, "lrp_0").attribute(values, 1), expected, 1e-9)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)], ids=lambda norm: type(norm).__name__)
def test_identity_behind_a_relu_reaches_what_did_not_fire(norm) -> None:
    """Captum hands the ReLU the norm's relevance before its rule. Here all passes both, where the ReLU is 0 too."""
    network, values = seeded(images(norm)), numbers(2, 2, 12, 12)
    network[2].rule = IdentityRule()
    middle = network[:3](values)
    relevance = LRPTranspose(network[3:], RULES).attribute(middle, 1)
    leaf = values.clone().requires_grad_()
    output = network[0](leaf)
    expected = values * torch.autograd.grad(output, leaf, relevance / output.detach())[0]
    assert_close(LRPTranspose(network, RULES).attribute(values, 1), expected, 1e-5)


# -- beyond Captum -----------------------------------------------------------------------------------------------------


class Keywords(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.first, self.module, self.last = nn.Linear(6, 8), module, nn.Linear(8, 3)

    def forward(self, values: Tensor) -> Tensor:
        return self.last(self.module(input=self.first(values)))


@pytest.mark.parametrize("rule", [IdentityRule(), EpsilonRule(0.3), GammaRule(0.4)])
def test_inputs_by_keyword(rule) -> None:
    network = seeded(lambda: Keywords(nn.LayerNorm(8)))
    twin = nn.Sequential(network.first, copy.deepcopy(network.module), network.last).eval()
    network.module.rule = copy.deepcopy(rule)
    twin[1].rule = copy.deepcopy(rule)
    values = numbers(3, 6)
    assert_close(LRPTranspose(network, RULES).attribute(values, 1), captums(twin, values), 1e-6)


@pytest.mark.parametrize("rule", [IdentityRule(), EpsilonRule(0.3)])
def test_a_module_in_place_whose_input_is_read_later(rule) -> None:
    class Net(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.first, self.activation, self.last = nn.Linear(6, 8), nn.ELU(inplace=in_place), nn.Linear(8, 3)
            self.activation.rule = copy.deepcopy(rule)

        def forward(self, values: Tensor) -> Tensor:
            hidden = self.first(values)
            activated = self.activation(hidden)
            return self.last((hidden if self.activation.inplace else activated) * 2.0 + activated)

    values = numbers(3, 6)
    found, expected = (
        LRPTranspose(seeded(lambda: Net(in_place)), RULES).attribute(values, 1)  # noqa: B023
        for in_place in (True, False)
    )
    assert_close(found, expected, 1e-9)


def test_a_module_that_is_used_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)])
            self.norm = nn.LayerNorm(8)

        def forward(self, values: Tensor) -> Tensor:
            return self.layers[2](self.norm(self.layers[1](self.norm(self.layers[0](values)))))

    network, values = seeded(Net), numbers(3, 6)
    layers, norm = network.layers, network.norm
    twin = nn.Sequential(layers[0], norm, layers[1], copy.deepcopy(norm), layers[2])
    for module in (network.norm, twin[1], twin[3]):
        module.rule = EpsilonRule(0.2)
    expected = captums(twin, values)
    assert_close(LRPTranspose(network, RULES).attribute(values, 1), expected, 1e-6)


@pytest.mark.parametrize("build", [lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), lambda: Keywords(nn.ELU())])
def test_a_rule_on_a_container_is_ignored(build) -> None:
    network, values = seeded(build), numbers(2, 6)
    expected = LRPTranspose(network, RULES).attribute(values, 1)
    network.rule = SquaredWeight()
    assert torch.equal(LRPTranspose(network, RULES).attribute(values, 1), expected)


def test_relevance_passes_unchanged_between_tensors_of_one_shape_only() -> None:
    network = seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 3, 5), nn.Flatten()))
    network[1].rule = IdentityRule()
    with pytest.raises(OptionError, match=r"IdentityRule on layer '1' \(AvgPool2d\)"):
        LRPTranspose(network).attribute(numbers(2, 2, 12, 12), 1)
    del network[1].rule
    network[2].rule = IdentityRule()
    with pytest.raises(OptionError, match="layer '2'"):
        LRPTranspose(network).attribute(numbers(2, 2, 12, 12), 1)


def test_what_belongs_to_captums_passes_is_refused_by_name() -> None:
    class Hooked(EpsilonRule):
        def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
            return outputs

    network = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)))
    for index in (0, 1):
        other = copy.deepcopy(network)
        other[index].rule = Hooked()
        with pytest.raises(OptionTypeError, match=f"layer '{index}'.*Hooked overrides forward_hook"):
            LRPTranspose(other)


def test_a_rule_that_fails_is_named_with_its_layer() -> None:
    class Failing(EpsilonRule):
        def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
            module.nothing.data = 0

    network = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ELU(), nn.Linear(8, 3)))
    network[1].rule = Failing()
    with pytest.raises(OptionTypeError, match=r"Failing cannot be applied to layer '1' \(ELU\)"):
        LRPTranspose(network).attribute(numbers(2, 6), 1)


def test_a_rule_that_must_be_called_where_the_layer_is_not() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, values: Tensor) -> Tensor:
            return F.linear(values, self.layer.weight, self.layer.bias)

    network = seeded(Functional)
    network.layer.rule = SquaredWeight()
    with pytest.raises(OptionTypeError, match=r"SquaredWeight of layer 'layer'"):
        LRPTranspose(network).attribute(numbers(2, 6), 1)


def test_a_subclass_that_overrides_nothing_is_its_base_class() -> None:
    class Strong(GammaRule):
        def __init__(self) -> None:
            super().__init__(gamma=2.0)

    network, twin = (seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))) for _ in range(2))
    network[2].rule, twin[2].rule = Strong(), GammaRule(2.0)
    values = numbers(2, 6)
    found, expected = (LRPTranspose(one).attribute(values, 1) for one in (network, twin))
    assert torch.equal(found, expected)


# -- the rest of the API -----------------------------------------------------------------------------------------------


def ruled() -> nn.Module:
    network = seeded(images(nn.BatchNorm2d(4)))
    network[2].rule = IdentityRule()
    network[3].rule = SquaredWeight(0.1)
    return network


def test_the_ledger_accounts_for_modules() -> None:
    network, values = ruled(), numbers(2, 2, 12, 12)
    ledger = LRPTranspose(network, RULES).ledger(values, 1)
    assert abs(ledger.output - ledger.input - ledger.absorbed) < 1e-9 * abs(ledger.output)
    by_name = {entry.layer: entry for entry in ledger}
    assert by_name["2"].rule == "IdentityRule"
    assert by_name["2"].to_bias == pytest.approx(0, abs=1e-9)
    assert abs(by_name["3"].to_bias) > 1e-3


def test_verbose_and_check_list_modules(capsys) -> None:
    network, values = ruled(), numbers(2, 2, 12, 12)
    attribution = LRPTranspose(network, RULES)
    attribution.attribute(values, 1, verbose=True)
    assert "2: IdentityRule\n" in capsys.readouterr().out
    assert ("3", "SquaredWeight") in {(row.layer, row.rule) for row in attribution.check(values).layers}


def test_relevance_at_a_module_with_a_rule() -> None:
    network, values = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ELU(), nn.Linear(8, 3))), numbers(3, 6)
    network[1].rule = IdentityRule()
    below, above = (
        LayerLRPTranspose(network, network[1], rules=RULES).attribute(values, 1, attribute_to_layer_input=at_input)
        for at_input in (True, False)
    )
    assert_close(below, above, 1e-9)
    assert_close(below.sum(1), LRPTranspose(network[2:], RULES).attribute(network[:2](values), 1).sum(1), 1e-9)


def test_several_targets_at_once() -> None:
    network, values = ruled(), numbers(2, 2, 12, 12)
    attribution = LRPTranspose(network, RULES)
    each = torch.stack([attribution.attribute(values, target) for target in (0, 2)])
    assert_close(attribution.attribute_targets(values, [0, 2]), each, 1e-9)


def test_at_the_inputs_zeros_keep_their_relevance() -> None:
    """A normalisation that passes relevance unchanged is no first layer, and hands on the share of zeros under flat."""
    network = seeded(
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 10), Mean())
    )
    network[0].rule = IdentityRule()
    values = numbers(2, 2, 12, 12)
    values[:, :, :4] = 0
    rules = Composite(default=Epsilon(1e-9), first=Flat())
    found = LRPTranspose(network, rules).attribute(values, 1)
    assert_close(found, LRPTranspose(network[1:], rules).attribute(network[0](values), 1), 1e-9)
    assert found[:, :, :4].abs().sum() > 0
    assert_close(LRPTranspose(network, RULES).attribute(values, 1), captums(network, values), 1e-6)


@pytest.mark.parametrize("rule", [IdentityRule(), EpsilonRule(0.3), SquaredWeight(0.3)])
def test_in_a_checkpointed_part(rule) -> None:
    class Net(nn.Module):
        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8))
            self.body[2].rule = copy.deepcopy(rule)
            self.last, self.checkpointed = nn.Linear(8, 3), checkpointed

        def forward(self, values: Tensor) -> Tensor:
            body = checkpoint(self.body, values, use_reentrant=False) if self.checkpointed else self.body(values)
            return self.last(body)

    values = numbers(2, 6)
    found, expected = (
        LRPTranspose(seeded(lambda: Net(checkpointed)), RULES).attribute(values, 1)  # noqa: B023
        for checkpointed in (True, False)
    )
    assert_close(found, expected, 1e-9)


def test_train_mode_changes_nothing_of_the_model() -> None:
    network = ruled().train()
    before = snapshot(network)
    with pytest.warns(UserWarning, match="train mode"):
        LRPTranspose(network).attribute(numbers(2, 2, 12, 12), 1)
    assert_unchanged(before, network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype) -> None:
    network, values = seeded(images(nn.BatchNorm2d(4))), numbers(2, 2, 12, 12)
    network[2].rule, network[3].rule = EpsilonRule(0.1), SquaredWeight(0.1)
    expected = LRPTranspose(network, "epsilon").attribute(values, 1)
    found = LRPTranspose(copy.deepcopy(network).to(dtype), "epsilon").attribute(values.to(dtype), 1)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert F.cosine_similarity(found.double().flatten(), expected.flatten(), 0) > 0.99


@pytest.mark.parametrize("rule", [IdentityRule(), EpsilonRule(0.3), GammaRule(0.4), Alpha1_Beta0_Rule(True)])
def test_the_graph_of_relevance(rule) -> None:
    """Losses on relevance: the derivative by weights below the module and of its own, against differences."""
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)))
    nn.init.uniform_(network[2].weight, 0.5, 2.0)
    network[2].rule = copy.deepcopy(rule)
    attribution, values = LRPTranspose(network, RULES), numbers(2, 6)
    for weight in (network[0].weight, network[2].weight):
        step = numbers(*weight.shape, seed=3)
        (gradient,) = torch.autograd.grad(
            attribution.attribute(values, 1, create_graph=True).square().sum(), weight, materialize_grads=True
        )
        ends = []
        for size in (1e-6, -1e-6):
            with torch.no_grad():
                weight.add_(size * step)
            ends.append(attribution.attribute(values, 1).square().sum())
            with torch.no_grad():
                weight.sub_(size * step)
        assert float((gradient * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_no_graph_of_relevance_where_a_rule_changes_weights_by_itself() -> None:
    with pytest.raises(NotSupportedError, match="SquaredWeight"):
        LRPTranspose(ruled(), RULES).attribute(numbers(2, 2, 12, 12), 1, create_graph=True)
