"""LRP on whole networks: conservation, composites, targets, layers, neurons, dtypes, and Captum's own assertions."""

import gc
import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from support import oracle
from support.families import without_biases
from support.helpers import Between, with_module
from support.oracle import PRESET_RULES
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LayerLRPTranspose, LRPTranspose, NeuronLRPTranspose
from plugin.rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, ZPlus
from plugin.rules.presets import PRESETS


class Small(nn.Module):
    """Everything a ResNet is made of: batch norm, in-place ReLU, max-pooling, a residual addition, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(self.stem(images))
        branch = self.branch(hidden)
        branch += hidden
        hidden = F.relu(branch, inplace=True)
        return self.head(hidden.mean(dim=(2, 3)))


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    net = Small().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def folded(net: Small) -> nn.Module:
    """The same network with its batch norms multiplied into the convolutions by hand."""
    copy = Small().eval()
    copy.load_state_dict(net.state_dict())
    for sequence in (copy.stem, copy.branch):
        sequence[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(sequence[0], sequence[1])
        sequence[1] = nn.Identity()
    return copy


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("preset", PRESETS)
def test_batch_norm_is_folded_on_the_fly(preset, small, pictures) -> None:
    expected = LRPTranspose(folded(small), preset).attribute(pictures, 1)
    torch.testing.assert_close(LRPTranspose(small, preset).attribute(pictures, 1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), Gamma(), WSquare()], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_is_folded_into_transposed_convolutions(groups, rule) -> None:
    """Whose weight has its output channels second, within each group."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 81, 2))
    net = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, stride=2, groups=groups), norm, head).double().eval()
    by_hand = nn.ConvTranspose2d(4, 4, 3, stride=2, groups=groups).double()
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    with torch.no_grad():
        for index in range(4):  # of the inputs; those of a group are joined to its outputs
            group = slice(4 // groups * (index // (4 // groups)), 4 // groups * (index // (4 // groups) + 1))
            by_hand.weight[index] = net[0].weight[index] * scale[group, None, None]
        by_hand.bias.copy_((net[0].bias - norm.running_mean) * scale + norm.bias)
    images = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    expected = nn.Sequential(by_hand, head)
    torch.testing.assert_close(net(images), expected(images))
    composite = Composite(default=rule)
    found = LRPTranspose(net, composite).attribute(images, 1)
    torch.testing.assert_close(found, LRPTranspose(expected, composite).attribute(images, 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_keeps_its_books(preset, small, pictures) -> None:
    """Each line, with the shares of biases and stabilisers, as the formulas say (the ledger takes a difference)."""
    small, pictures = small.double(), pictures.double()
    attribution = LRPTranspose(small, preset)
    ledger = attribution.ledger(pictures, 2)
    relevance, delta = attribution.attribute(pictures, 2, return_convergence_delta=True)
    output = small(pictures)[:, 2].detach()
    assert ledger.output == pytest.approx(output.sum().item(), rel=1e-10)
    assert ledger.input == pytest.approx(relevance.sum().item(), rel=1e-10)
    torch.testing.assert_close(delta, output - relevance.sum(dim=(1, 2, 3)))

    # The mean over the positions is the last pooling; the branch is added to the 4th value.
    branch = [small.pool, *small.branch, 4, nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), small.head]
    layers = oracle.read([*small.stem, *branch], shape=(3, 8, 8))
    convolutional, dense, first = PRESET_RULES[preset]
    rules = [first or convolutional, convolutional, dense]
    literal = [oracle.relevance(layers, picture.flatten().tolist(), 2, rules).ledger for picture in pictures]
    assert [entry.layer for entry in ledger] == ["head", "branch.0", "stem.0"]
    for entry, *lines in zip(ledger, *literal, strict=True):
        for part in ("entered", "left", "to_bias", "to_stabiliser"):
            expected = sum(getattr(line, part) for line in lines)
            assert getattr(entry, part) == pytest.approx(expected, rel=1e-9, abs=1e-10), (entry.layer, part)
    absorbed = sum(line.to_bias + line.to_stabiliser for lines in literal for line in lines)
    assert ledger.absorbed == pytest.approx(absorbed, rel=1e-9, abs=1e-10)
    assert ledger.input + absorbed == pytest.approx(ledger.output, rel=1e-9, abs=1e-10)
    assert "branch.0" in str(ledger)
    assert "absorbed" in str(ledger)


def test_lrp_0_is_input_times_gradient(small, pictures) -> None:
    expected = captum.attr.InputXGradient(small).attribute(pictures, 1)
    torch.testing.assert_close(LRPTranspose(small, "lrp_0").attribute(pictures, 1), expected, rtol=1e-5, atol=1e-7)


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "mT": lambda x: x.mT,
    "mH": lambda x: x.mH,
    "T": lambda x: x.flatten(1).T.T.reshape(x.shape),
    "t": lambda x: x.flatten(1).t().t().view_as(x),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "tril": lambda x: x.tril() + x.triu(1),
    "movedim": lambda x: torch.movedim(x, 1, 3).moveaxis(3, 1),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "hsplit": lambda x: torch.hstack(x.hsplit(2)),
    "unbind": lambda x: torch.stack(x.unbind(1), 1),
    "shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "diagonal": lambda x: x.diagonal(0, 2, 3)[..., None] - x,
    "unfold": lambda x: F.fold(F.unfold(x, 3), x.shape[2:], 3),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_only_moves_values_has_the_gradient_for_lrp_0(name) -> None:
    torch.manual_seed(0)
    last = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    moved = Between(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), MOVED[name], last)
    images = torch.randn(2, 3, 8, 8)
    expected = captum.attr.InputXGradient(moved).attribute(images, 1)
    torch.testing.assert_close(LRPTranspose(moved, "lrp_0").attribute(images, 1), expected, rtol=1e-5, atol=1e-7)


def test_many_targets_equal_single_calls(small, pictures) -> None:
    for preset in ("epsilon", "epsilon_gamma_box", "epsilon_plus_flat"):
        attribution = LRPTranspose(small, preset)
        targets = [2, 0, [1, 2, 3], torch.tensor([0, 0, 1])]
        together = attribution.attribute_targets(pictures, targets)
        assert together.shape == (4, *pictures.shape)
        for target, relevance in zip(targets, together, strict=True):
            torch.testing.assert_close(relevance, attribution.attribute(pictures, target))
    with pytest.raises(ValueError, match="targets is empty"):
        attribution.attribute_targets(pictures, [])


class Perceptron(nn.Module):
    """Layers that end in matrix products, one hidden output of which has a hook of the model's own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.factor, self.sizes = nn.Conv2d(3, 4, 3), factor, []
        self.middle, self.last = nn.Linear(144, 8), nn.Sequential(nn.Linear(8, 7), nn.Dropout(), nn.Linear(7, 4))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.middle(F.relu(self.first(images)).flatten(1)))
        if self.factor != 1:
            hidden.register_hook(self.scale)
        return self.last(hidden)

    def scale(self, signal: Tensor) -> Tensor:
        self.sizes.append(signal.shape)
        return self.factor * signal


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("rule", [Epsilon(0.0), Epsilon(), ZPlus(bias=False), AlphaBeta(), Gamma(), Flat()])
def test_targets_together_in_the_matrix_products_equal_single_calls(rule: Rule, factor: float) -> None:
    torch.manual_seed(0)
    network, images = Perceptron(factor).eval(), torch.randn(2, 3, 8, 8)
    attribution = LRPTranspose(network, Composite(default=rule))
    together = attribution.attribute_targets(images, [0, 2, [3, 1]])
    assert network.sizes == ([] if factor == 1 else [(2, 8)] * 3), "one signal after the other"
    for target, relevance in zip([0, 2, [3, 1]], together, strict=True):
        torch.testing.assert_close(relevance, attribution.attribute(images, target))
    if factor != 1:
        network.factor = 1
        assert not torch.allclose(attribution.attribute(images, 0), together[0]), "the hook takes part"


def test_results_do_not_depend_on_the_batch(small, pictures) -> None:
    attribution = LRPTranspose(small, "epsilon_gamma_box")
    single = torch.cat([attribution.attribute(image[None], 1) for image in pictures])
    torch.testing.assert_close(attribution.attribute(pictures, 1), single, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype, small, pictures) -> None:
    expected = LRPTranspose(small, "epsilon_gamma_box").attribute(pictures, 1)
    relevance = LRPTranspose(small.to(dtype), "epsilon_gamma_box").attribute(pictures.to(dtype), 1)
    assert relevance.dtype == dtype
    error = (relevance.float() - expected).norm() / expected.norm()
    assert error < {torch.float16: 0.02, torch.bfloat16: 0.15, torch.float64: 1e-4}[dtype]


@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_memory_formats(preset, small, pictures) -> None:
    expected = LRPTranspose(small, preset).attribute(pictures, 1)
    for images in (pictures.contiguous(memory_format=torch.channels_last), pictures.mT.contiguous().mT):
        torch.testing.assert_close(LRPTranspose(small, preset).attribute(images, 1), expected, rtol=1e-4, atol=1e-6)


def test_layer_relevance_sums_to_what_the_ledger_says(small, pictures) -> None:
    """Relevance at a layer's output enters it, at its input leaves it; a batch norm belongs to the layer before it."""
    entries = {entry.layer: entry for entry in LRPTranspose(small, "epsilon_plus").ledger(pictures, 1)}
    for name in ("stem.0", "branch.0", "head"):
        for at_input in (False, True):
            layer = LayerLRPTranspose(small, name, rules="epsilon_plus")
            relevance = layer.attribute(pictures, 1, attribute_to_layer_input=at_input)
            if name == "branch.0" and at_input:
                continue  # the residual branch leaves its input too: only the sum of both is at that tensor
            expected = entries[name].left if at_input else entries[name].entered
            assert relevance.sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    several = LayerLRPTranspose(small, ["stem.0", small.head], rules="epsilon_plus")
    relevances, deltas = several.attribute(pictures, 1, return_convergence_delta=True)
    assert [relevance.shape for relevance in relevances] == [(3, 6, 8, 8), (3, 4)]
    assert [delta.shape for delta in deltas] == [(3,), (3,)]


def test_neuron_relevance_sums_to_its_activation(small, pictures) -> None:
    without_biases(small)
    relevance = NeuronLRPTranspose(small, "branch.0", rules="lrp_0").attribute(pictures, (2, 1, 3))
    activation = small.branch[0](small.pool(small.stem(pictures)))[:, 2, 1, 3]
    torch.testing.assert_close(relevance.sum(dim=(1, 2, 3)), activation.detach(), rtol=1e-4, atol=1e-6)


def test_composite_selectors_and_their_table(small, pictures) -> None:
    composite = Composite(
        [(nn.Linear, AlphaBeta(2, 1)), ("branch.*", Gamma(0.5)), (lambda layer: layer.depth == 0, Flat())],
        default=ZPlus(),
    )
    rules = {entry.layer: entry.rule for entry in LRPTranspose(small, composite).ledger(pictures, 1)}
    assert rules == {"head": str(AlphaBeta(2, 1)), "branch.0": str(Gamma(0.5)), "stem.0": str(Flat())}
    entries = [((nn.Conv2d, nn.Linear), Epsilon(0.1)), (0, ZPlus())]
    first_and_last = Composite(entries, first=WSquare(), last=Epsilon(0.5))
    rules = {entry.layer: entry.rule for entry in LRPTranspose(small, first_and_last).ledger(pictures, 1)}
    assert rules == {"head": str(Epsilon(0.5)), "branch.0": str(Epsilon(0.1)), "stem.0": str(WSquare())}
    by_index = Composite([(-1, Epsilon(0.5)), (0, Flat())])
    rules = {entry.layer: entry.rule for entry in LRPTranspose(small, by_index).ledger(pictures, 1)}
    assert rules == {"head": str(Epsilon(0.5)), "branch.0": str(Epsilon()), "stem.0": str(Flat())}
    table = str(composite.explain(small))
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["stem.0", "branch.0", "head"]
    with pytest.raises(TypeError, match="is no rule"):
        Composite([(nn.Linear, Epsilon)])
    with pytest.raises(ValueError, match="unknown preset 'epsilom'"):
        LRPTranspose(small, "epsilom")


def test_layers_are_counted_once_whatever_is_folded_into_them_later(pictures) -> None:
    """Two branches are computed before the batch norm and the ReLU of the first."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            one, other = self.one(images), self.other(images)
            one, other = self.norm(one), other.relu()
            return self.head((one.relu() + other).mean((2, 3)))

    torch.manual_seed(0)
    composite = Composite([(0, ZPlus()), (1, Gamma()), (2, Epsilon(0.1)), (-1, Pass())], last=Epsilon(0.1))
    ledger = LRPTranspose(Branches().eval(), composite).ledger(pictures, 1)
    rules = {entry.layer: entry.rule for entry in ledger}
    # Either convolution may be listed first; neither counts twice, and the last is the last.
    assert sorted(rules) == ["head", "one", "other"]
    assert rules["head"] == str(Epsilon(0.1))
    assert {rules["one"], rules["other"]} == {str(ZPlus()), str(Gamma())}
    assert len(ledger) == 3


def test_reused_layers_and_functional_additions(pictures) -> None:
    """Captum refuses a reused module and doubles relevance at additions; both are ordinary here, and conserved."""

    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return F.relu(self.layer(F.relu(self.layer(first) + second))).sum(1)

    torch.manual_seed(0)
    net, first, second = Reused(), torch.randn(3, 4), torch.randn(3, 4)
    relevances, delta = LRPTranspose(net, "lrp_0").attribute((first, second), return_convergence_delta=True)
    torch.testing.assert_close(sum(r.sum(1) for r in relevances), net(first, second).detach())
    assert delta.abs().max() < 1e-5


def test_a_layer_that_reads_no_input_is_a_constant() -> None:
    class Encoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.encode, self.head = nn.Linear(5, 4), nn.Linear(2, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.embed(x) + self.encode(torch.ones(2))).relu())

    torch.manual_seed(0)
    ledger = LRPTranspose(Encoded()).ledger(torch.randn(3, 5), 1)
    assert [entry.layer for entry in ledger] == ["head", "embed", "add in the Encoded"]
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-5)


def test_inputs_and_modules_that_are_not_used(small, pictures) -> None:
    small.spare = nn.LSTM(3, 3)
    assert LRPTranspose(small).attribute(pictures, 1).any()

    class Ignores(nn.Module):
        def forward(self, first: Tensor, second: Tensor, scale: float) -> Tensor:
            return first.sum(dim=(1, 2, 3)) * scale

    used, unused = LRPTranspose(Ignores()).attribute((pictures, pictures), additional_forward_args=2.0)
    torch.testing.assert_close(used, 2 * pictures)
    assert not unused.any()


def test_captum_rules_on_modules_are_honoured_and_kept(pictures) -> None:
    torch.manual_seed(0)
    net = with_module(nn.ReLU(), nn.ReLU())
    net.conv1.rule, net.conv2.rule, net.head.rule = GammaRule(0.3), Alpha1_Beta0_Rule(), EpsilonRule(0.01)
    rules = [net.conv1.rule, net.conv2.rule, net.head.rule]
    ours = [LRPTranspose(net).attribute(pictures, 1) for _ in range(2)]
    assert torch.equal(*ours)
    assert [net.conv1.rule, net.conv2.rule, net.head.rule] == rules

    class Modules(nn.Module):
        """The same network as Captum wants it: modules only."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(net.conv1, nn.ReLU(), net.conv2, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            self.head = net.head

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(images).flatten(1))

    expected = captum.attr.LRP(Modules()).attribute(pictures, 1)
    torch.testing.assert_close(ours[0], expected, rtol=1e-4, atol=1e-6)

    identity = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    identity[0].rule = IdentityRule()
    by_composite = LRPTranspose(nn.Sequential(*identity), Composite([(0, Pass())])).attribute(pictures[:, 0, 0, :4], 1)
    torch.testing.assert_close(LRPTranspose(identity).attribute(pictures[:, 0, 0, :4], 1), by_composite)

    net.conv1.rule = 1
    with pytest.raises(TypeError, match="only Captum's rules"):
        LRPTranspose(net)


@pytest.mark.parametrize("rule", [GammaRule, Alpha1_Beta0_Rule])
@pytest.mark.parametrize("without_bias", [False, True])
def test_captum_rules_may_leave_the_bias_out(without_bias, rule, pictures) -> None:
    torch.manual_seed(0)
    net, values = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), pictures[:, 0, 0]
    nn.init.uniform_(net[0].bias, 0.5, 1)
    for layer in (net[0], net[2]):
        layer.rule = rule(set_bias_to_zero=without_bias)
    found = LRPTranspose(net).attribute(values, 1)
    torch.testing.assert_close(found, captum.attr.LRP(net).attribute(values, 1), rtol=1e-4, atol=1e-6)


def test_an_operation_without_rule_raises_and_can_be_let_through(pictures) -> None:
    class Exponential(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.exp().sum(dim=(1, 2, 3))

    net = nn.Sequential(Exponential())
    with pytest.raises(NotImplementedError, match=r"exp in layer '0' \(Exponential\) has no LRP rule"):
        LRPTranspose(net).attribute(pictures)
    let_through = LRPTranspose(net, unknown="gradient").attribute(pictures)
    torch.testing.assert_close(let_through, pictures * pictures.exp())


@pytest.mark.parametrize(
    ("function", "at_zero"),
    [(F.silu, 0.5), (F.gelu, 0.5), (F.hardswish, 0.5), (F.mish, 0.6), (F.elu, 1.0), (F.relu6, 0.0), (torch.tanh, 1.0)],
)
def test_activations_pass_relevance_unchanged(function, at_zero) -> None:
    """R at x is R at f(x); the multiplier at x = 0 is f'(0)."""

    class Pointwise(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return function(values).sum(1)

    x = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(LRPTranspose(Pointwise()).attribute(x), function(x))
    shifted = nn.Sequential(Shift(), Pointwise())  # through an addition the multiplier at 0 itself can be seen
    relevance = LRPTranspose(shifted).attribute(torch.ones(1, 1, dtype=torch.float64))
    assert relevance.item() == pytest.approx(at_zero, abs=1e-3)


class Shift(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values - 1


@pytest.mark.parametrize("repeated", [False, True])
def test_an_activation_that_is_not_zero_at_zero_keeps_what_it_adds_there(repeated) -> None:
    """softplus(0) = log 2 is no multiple of 0; everywhere else, however near, relevance passes."""

    class Softplus(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return F.softplus(values, 2.0)

    x = torch.tensor([[-2.0, -1e-30, 0.0, 1e-30, 5.0]], dtype=torch.float64)
    expected = torch.where(x == 0, 0.0, F.softplus(x, 2.0))
    attribution = LRPTranspose(Softplus())
    if repeated:
        found = attribution.attribute_targets(x, [0, 1, 2, 3, 4])
        torch.testing.assert_close(found.sum(0), expected)
    else:
        for index in range(5):
            torch.testing.assert_close(attribution.attribute(x, index)[0, index], expected[0, index])


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(
    "function",
    [torch.sigmoid, F.softplus, F.hardsigmoid, F.logsigmoid, torch.tanh, F.silu],
    ids=lambda function: function.__name__,
)
def test_a_residual_sum_that_is_zero_passes_on_what_is_a_multiple_of_it(function, repeated) -> None:
    """1 - 1 = 0: neither summand gets anything of f(0) if f(0) is not 0, and f'(0) times its value if f(0) = 0."""

    class Residual(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return function(first + second)

    first = torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64)
    second = torch.tensor([[-1.0, 1.0, -0.5]], dtype=torch.float64)
    origin = torch.zeros((), dtype=torch.float64, requires_grad=True)
    at_zero = function(origin)
    slope = float(torch.autograd.grad(at_zero, origin)[0]) if at_zero == 0 else 0.0
    total = first + second
    multiplier = torch.where(total == 0, slope, function(total) / torch.where(total == 0, 1.0, total))
    attribution = LRPTranspose(Residual())
    if repeated:
        found = [part.sum(0) for part in attribution.attribute_targets((first, second), [0, 1, 2])]
    else:
        singles = [attribution.attribute((first, second), index) for index in range(3)]
        found = [sum(parts) for parts in zip(*singles, strict=True)]
    for relevance, summand in zip(found, (first, second), strict=True):
        torch.testing.assert_close(relevance, summand * multiplier)


def test_the_slope_at_zero_is_that_of_the_arguments() -> None:
    """It is known from the first call on, for these very arguments: ELU's slope there is its alpha."""

    class Pointwise(nn.Module):
        def __init__(self, alpha: float) -> None:
            super().__init__()
            self.alpha = alpha

        def forward(self, values: Tensor) -> Tensor:
            return F.elu(values - 1, self.alpha)

    for alpha in (1.0, 0.25, 3.0):
        for dtype in (torch.float64, torch.float32):
            relevance = LRPTranspose(Pointwise(alpha)).attribute(torch.ones(1, 1, dtype=dtype), 0)
            assert relevance.item() == pytest.approx(alpha, abs=1e-3)


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh, F.gelu])
def test_an_activation_may_be_given_its_input_by_name(function) -> None:
    class Named(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return function(input=values).sum(1)

    x = torch.tensor([[-2.0, 0.5, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(LRPTranspose(Named()).attribute(x), function(x))


@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid, lambda x: torch.softmax(x, 1)])
def test_a_gate_gets_nothing(gate, pictures) -> None:
    class Gated(nn.Module):
        def forward(self, signal: Tensor, control: Tensor) -> Tensor:
            return (signal * gate(control.mean(dim=(2, 3), keepdim=True)).expand_as(signal)).sum(dim=(1, 2, 3))

    signal, control = LRPTranspose(Gated()).attribute((pictures, pictures))
    expected = pictures * gate(pictures.mean(dim=(2, 3), keepdim=True))
    torch.testing.assert_close(signal, expected)
    assert not control.any()


def test_a_gate_gets_nothing_through_dropout_either(pictures) -> None:
    class Gated(nn.Module):
        def forward(self, signal: Tensor, control: Tensor) -> Tensor:
            gate = F.dropout(torch.sigmoid(control), 0.5, training=True)
            return (signal * gate).sum(dim=(1, 2, 3))

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal, control = LRPTranspose(Gated()).attribute((pictures, pictures))
    assert not control.any()
    dropped = signal == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(signal[~dropped], (2 * pictures * torch.sigmoid(pictures))[~dropped])


def test_a_product_of_two_gates_loses_nothing(pictures) -> None:
    """Explained itself it is a product of two signals."""

    class Gates(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (torch.sigmoid(first) * torch.sigmoid(second)).sum(dim=(1, 2, 3))

    inputs = (pictures, pictures.flip(0))
    relevances = LRPTranspose(Gates()).attribute(inputs)
    torch.testing.assert_close(sum(part.sum(dim=(1, 2, 3)) for part in relevances), Gates()(*inputs))


@pytest.mark.parametrize("function", [F.linear, F.conv1d], ids=["linear", "conv1d"])
def test_a_weight_that_depends_on_the_input_is_not_taken_for_a_constant(function, pictures) -> None:
    """Refused, or given a share: never a layer whose weight is said to be the model's."""

    class Dynamic(nn.Module):
        def forward(self, signal: Tensor, control: Tensor) -> Tensor:
            return function(signal, control).sum().reshape(1)

    signal, control = pictures[:1, :, :, 0], pictures[0, :3, :3, :3] if function is F.conv1d else pictures[0, 0]
    try:
        relevances = LRPTranspose(Dynamic()).attribute((signal, control))
    except NotImplementedError:
        return
    assert relevances[1].any()
    total = sum(part.sum() for part in relevances)
    torch.testing.assert_close(total, Dynamic()(signal, control)[0], rtol=1e-3, atol=1e-4)


def test_a_product_of_two_signals_is_halved(pictures) -> None:
    class Product(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (first * second).sum(dim=(1, 2, 3))

    first, second = LRPTranspose(Product()).attribute((pictures, pictures + 1))
    torch.testing.assert_close(first, pictures * (pictures + 1) / 2)
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(8), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True), nn.RMSNorm(8)]
)
def test_norms_are_linear_with_constant_deviation(norm, pictures) -> None:
    net = nn.Sequential(norm, nn.Flatten(), nn.Linear(192, 2, bias=False)).eval()
    relevance, delta = LRPTranspose(net, "lrp_0").attribute(pictures, 1, return_convergence_delta=True)
    assert delta.abs().max() < 1e-4, "without biases a norm conserves"
    assert relevance.any()


# Of each norm: over which dimensions its statistics are, in which shape, and whether the mean is taken away.
STATISTICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...], bool]] = {
    "layer norm": (lambda: nn.LayerNorm(8), (-1,), (3, 3, 8, 8), True),
    "layer norm of planes": (lambda: nn.LayerNorm((8, 8), eps=0.3), (-2, -1), (3, 3, 8, 8), True),
    "RMS norm": (lambda: nn.RMSNorm(8, eps=0.3), (-1,), (3, 3, 8, 8), False),
    "RMS norm of planes": (lambda: nn.RMSNorm((8, 8)), (-2, -1), (3, 3, 8, 8), False),
    "group norm": (lambda: nn.GroupNorm(3, 3, eps=0.3), (-1,), (3, 3, 64), True),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (-2, -1), (3, 3, 8, 8), True),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_norms_give_what_their_gradient_gives_at_constant_deviation(name, pictures) -> None:
    """Each entry of the map, and the output of the norm; the mean is linear, and its part of the gradient stays."""
    make, dims, shape, centre = STATISTICS[name]
    norm = make().double().eval()
    torch.manual_seed(0)
    nn.init.normal_(norm.weight)
    if getattr(norm, "bias", None) is not None:
        nn.init.normal_(norm.bias)
    head = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    net, leaf = nn.Sequential(norm, head), (pictures.double() + 0.5).requires_grad_()
    grouped = leaf.view(shape)
    centred = grouped - grouped.mean(dims, keepdim=True) if centre else grouped
    eps = torch.finfo(torch.float64).eps if norm.eps is None else norm.eps
    deviation = (centred.square().mean(dims, keepdim=True) + eps).sqrt().detach()
    per_channel = (-1, 1, 1) if len(norm.weight) == 3 else norm.weight.shape
    normal = (centred / deviation).view(leaf.shape) * norm.weight.view(per_channel)
    if getattr(norm, "bias", None) is not None:
        normal = normal + norm.bias.view(per_channel)
    output = head(normal)[:, 1]
    torch.testing.assert_close(output, net(leaf)[:, 1])
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    values = leaf.detach()
    relevance, delta = LRPTranspose(net, "lrp_0").attribute(values, 1, return_convergence_delta=True)
    torch.testing.assert_close(relevance, values * gradient)
    torch.testing.assert_close(delta, (output - (values * gradient).sum((1, 2, 3))).detach())


ADDED_PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "addmm": lambda b, x, w: torch.addmm(b, x, w),
    "addmm, weighted": lambda b, x, w: torch.addmm(b, x, w, beta=0.5, alpha=-2.0),
    "baddbmm": lambda b, x, w: torch.baddbmm(b.expand(len(x), 1, 3), x[:, None], w.expand(len(x), 4, 3))[:, 0],
    "baddbmm, weighted": lambda b, x, w: torch.baddbmm(
        b.expand(len(x), 1, 3), x[:, None], w.expand(len(x), 4, 3), beta=0.5, alpha=-2.0
    )[:, 0],
}


@pytest.mark.parametrize("name", ADDED_PRODUCTS)
def test_a_product_and_a_sum_in_one_call(name) -> None:
    """Input times gradient, and the output is the model's."""
    random = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=random).double() for shape in ((2, 4), (4, 3), (3,)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

        def forward(self, x: Tensor) -> Tensor:
            return ADDED_PRODUCTS[name](self.bias, x, self.weight).tanh()

    expected = torch.tanh(ADDED_PRODUCTS[name](bias, x, weight))
    before = ADDED_PRODUCTS[name](bias, x, weight) - ADDED_PRODUCTS[name](bias, torch.zeros_like(x), weight)
    factor = -2.0 if "weighted" in name else 1.0
    torch.testing.assert_close(before, factor * x @ weight)
    # tanh hands R on, so each input has its share of y = f x W + b.
    share = factor * x * weight[:, 1] / ADDED_PRODUCTS[name](bias, x, weight)[:, 1:2]
    relevance, delta = LRPTranspose(Net(), "lrp_0").attribute(x, 1, return_convergence_delta=True)
    torch.testing.assert_close(relevance, share * expected[:, 1:2])
    torch.testing.assert_close(delta, expected[:, 1] - relevance.sum(1))


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_is_expressed_in_its_parts(preset, batch_first) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=False).eval()

    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
            mixed = self.attention(tokens, tokens, tokens, attn_mask=mask, need_weights=False)[0]
            return mixed.sum(dim=(1, 2)) if batch_first else mixed.sum(dim=(0, 2))

    tokens = torch.randn((2, 5, 8) if batch_first else (5, 2, 8))
    relevance = LRPTranspose(SelfAttention(), preset).attribute(tokens)
    total = relevance.sum(dim=(1, 2)) if batch_first else relevance.sum(dim=(0, 2))
    conserved = torch.allclose(total, SelfAttention()(tokens), rtol=1e-4, atol=1e-5)
    assert conserved == (preset == "cp_lrp"), "the gradient of softmax gives relevance to queries and keys as well"


BOOLEAN = torch.tensor([[True, False, True, True], [True, True, True, False], [True] * 4])
ATTENTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask": {"attn_mask": BOOLEAN},
    "added": {"attn_mask": torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
}


def by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention as users write it, of operations that have rules of their own."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.softmax(scores, -1) @ value


@pytest.mark.parametrize("options", ATTENTIONS)
@pytest.mark.parametrize("preset", ["epsilon", "attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("constant", [None, "query", "key", "value", "query, key", "key, value"])
def test_attention_in_one_operation_is_attention_by_hand(options, preset, constant) -> None:
    """Whichever of Q, K and V depend on the input: the others get no share, and leave the rest to those that do."""

    class Attending(nn.Module):
        def __init__(self, attend: Callable[..., Tensor]) -> None:
            super().__init__()
            self.attend = attend

        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            given = {"query": query, "key": key, "value": value}
            given = {name: part.detach() if name in str(constant) else part for name, part in given.items()}
            if options == "scale":  # by keyword
                return self.attend(**given, **ATTENTIONS[options]).square().sum(dim=(1, 2, 3))
            return self.attend(*given.values(), **ATTENTIONS[options]).square().sum(dim=(1, 2, 3))

    random = torch.Generator().manual_seed(1)
    shapes = ((2, 2, 3, 6), (2, 2, 4, 6), (2, 2, 4, 5))
    inputs = tuple(torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    attributions = [
        LRPTranspose(Attending(attend).eval(), preset, unknown="gradient")
        for attend in (F.scaled_dot_product_attention, by_hand)
    ]
    if preset == "cp_lrp" and "value" in str(constant):
        for attribution in attributions:  # softmax is held constant, and nothing is left
            with pytest.raises(ValueError, match="does not depend on the inputs"):
                attribution.attribute(inputs)
        return
    found, expected = (attribution.attribute(inputs) for attribution in attributions)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert any(one.any() for one in found)


def test_self_attention_without_projections() -> None:
    """Q, K and V are one tensor: it gets the shares of all three."""
    tokens = torch.randn(2, 2, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    class Attending(nn.Module):
        def __init__(self, attend: Callable[..., Tensor]) -> None:
            super().__init__()
            self.attend = attend

        def forward(self, tokens: Tensor) -> Tensor:
            return self.attend(tokens, tokens, tokens).sum(dim=(1, 2, 3))

    found, expected = (
        LRPTranspose(Attending(attend).eval()).attribute(tokens) for attend in (F.scaled_dot_product_attention, by_hand)
    )
    torch.testing.assert_close(found, expected)


def test_what_was_overwritten_before_a_composite_function_stays_so() -> None:
    """Attention is expressed in its parts; in-place changes before it must survive that."""
    torch.manual_seed(0)

    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, bias=False)

        def forward(self, tokens: Tensor) -> Tensor:
            tokens = tokens * 1.0
            tokens.mul_(3)
            mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return (mixed + tokens).sum(dim=(1, 2))

    tokens = torch.randn(5, 3, 4)
    net = Overwrites().eval()
    relevance = LRPTranspose(net, "cp_lrp").attribute(tokens)
    torch.testing.assert_close(relevance.sum(), net(tokens).sum().detach(), rtol=1e-4, atol=1e-4)


def test_two_calls_agree_and_memory_returns(small, pictures) -> None:
    attribution = LRPTranspose(small, "epsilon_gamma_box")
    first = attribution.attribute(pictures, 1)
    gc.collect()
    before = sum(isinstance(o, Tensor) for o in gc.get_objects())
    for _ in range(20):
        assert torch.equal(attribution.attribute(pictures, 1), first)
    gc.collect()
    assert sum(isinstance(o, Tensor) for o in gc.get_objects()) <= before + 2


def test_a_changed_weight_is_noticed(small, pictures) -> None:
    """Values cached for a weight belong to its version."""
    attribution = LRPTranspose(small, "epsilon_plus")
    before = attribution.attribute(pictures, 1)
    with torch.no_grad():
        small.branch[0].weight.mul_(-1)
        small.stem[1].weight.mul_(2)
    after = attribution.attribute(pictures, 1)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, LRPTranspose(small, "epsilon_plus").attribute(pictures, 1))


@pytest.mark.parametrize("preset", ["epsilon_plus", "epsilon_gamma_box"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_replaced_weight_is_noticed(preset, frozen, small, pictures) -> None:
    small.requires_grad_(not frozen)
    attribution = LRPTranspose(small, preset)

    def agrees(inputs: Tensor) -> None:
        assert torch.equal(attribution.attribute(inputs, 1), LRPTranspose(small, preset).attribute(inputs, 1))

    agrees(pictures)
    small.double()
    agrees(pictures.double())
    small.float()
    agrees(pictures)
    for tensor in [*small.parameters(), *small.buffers()]:
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor)
    agrees(pictures)
    small.branch[1].weight = nn.Parameter(torch.rand(6))
    small.branch[1].running_mean = torch.rand(6)
    agrees(pictures)


@pytest.mark.parametrize("preset", ["lrp_0", "epsilon_plus", "epsilon_gamma_box"])
@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("folded", [True, False])
def test_each_replaced_tensor_of_a_batch_norm_is_noticed(folded, name, preset, pictures) -> None:
    """A new tensor in the place of the old one, the others as they were; behind a layer and on its own."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    before_norm = nn.Identity() if folded else nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), before_norm, norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    attribution = LRPTranspose(net, preset)
    before = attribution.attribute(pictures, 1)
    for number in range(2):
        tensor = torch.linspace(0.5 if name == "running_var" else -1.5, 2, 4).roll(number)
        setattr(norm, name, nn.Parameter(tensor) if name in ("weight", "bias") else tensor)
        after = attribution.attribute(pictures, 1)
        assert not torch.allclose(after, before)
        torch.testing.assert_close(after, LRPTranspose(net, preset).attribute(pictures, 1))
        before = after


class ManyReaders(nn.Module):
    """A convolution whose output is read by a ReLU, a batch norm and an addition; with copies, by one each."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1) for _ in range(3 if copies else 1)])
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        outputs = [convolution(images) for convolution in self.convolutions]
        first, second, third = outputs if len(outputs) == 3 else outputs * 3
        return self.head((first.relu() + self.norm(second).relu() + third).mean((2, 3)))


@pytest.mark.parametrize("preset", ["lrp_0", "epsilon", "epsilon_plus", "epsilon_gamma_box"])
def test_what_is_folded_into_a_layer_may_have_other_readers(preset, pictures) -> None:
    torch.manual_seed(0)
    one, three = ManyReaders(copies=False).eval(), ManyReaders(copies=True).eval()
    nn.init.uniform_(one.norm.bias)
    nn.init.uniform_(one.norm.running_mean)
    for copy in three.convolutions:
        copy.load_state_dict(one.convolutions[0].state_dict())
    three.norm.load_state_dict(one.norm.state_dict())
    three.head.load_state_dict(one.head.state_dict())

    relevance = LRPTranspose(one, preset).attribute(pictures, 1)
    torch.testing.assert_close(relevance, LRPTranspose(three, preset).attribute(pictures, 1), rtol=1e-4, atol=1e-6)
    ledger = LRPTranspose(one, preset).ledger(pictures, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-4)
    at_layer = LayerLRPTranspose(one, "convolutions.0", rules=preset).attribute(pictures, 1)
    apart = LayerLRPTranspose(three, list(three.convolutions), rules=preset).attribute(pictures, 1)
    torch.testing.assert_close(at_layer, sum(apart), rtol=1e-4, atol=1e-6)


def test_captum_tools(small, pictures) -> None:
    attribution = LRPTranspose(small, Composite(first=ZBox(-4.0, 4.0)))
    assert attribution.multiplies_by_inputs
    assert attribution.has_convergence_delta()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smooth, delta = captum.attr.NoiseTunnel(attribution).attribute(
            pictures, nt_samples=2, target=1, return_convergence_delta=True
        )
    assert smooth.shape == pictures.shape
    assert delta.shape == (6,)
