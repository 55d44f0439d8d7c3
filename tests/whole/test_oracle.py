"""The engine against `oracle`, which evaluates the formulas literally: every rule, preset and signal to 1e-10."""

from collections.abc import Callable, Sequence

import pytest
import torch
from support import oracle
from support.oracle import PRESET_RULES
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose, ModifiedBackprop
from plugin.rules import (
    SIGNAL_RULES,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    Pass,
    Rule,
    SignalRule,
    WSquare,
    ZBox,
    ZPlus,
)
from plugin.rules.presets import PRESETS

TARGET = 1


class Chain(nn.Module):
    """Modules one after the other; an int n adds the n-th value to the last one, 0 being the input."""

    def __init__(self, shape: tuple[int, ...], *steps: nn.Module | int) -> None:
        super().__init__()
        self.shape, self.order = shape, steps
        self.steps = nn.ModuleList([nn.Identity() if isinstance(step, int) else step for step in steps])

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.order:
            values.append(values[-1] + values[step] if isinstance(step, int) else step(values[-1]))
        return values[-1]

    @property
    def layers(self) -> list[oracle.Layer]:
        return oracle.read(self.order, self.shape)

    @property
    def is_convolution(self) -> list[bool]:
        """Of each linear layer, from the input up."""
        return [isinstance(step, nn.Conv2d) for step in self.order if isinstance(step, nn.Conv2d | nn.Linear)]


NETWORKS: dict[str, Callable[[], Chain]] = {
    "dense": lambda: Chain(
        (6,), nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 7, bias=False), nn.ReLU(), nn.Linear(7, 3)
    ),
    "strides, dilation and groups": lambda: Chain(
        (2, 7, 7),
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, (2, 3), padding=(0, 2), dilation=(1, 2), groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 3 * 4, 3),
    ),
    "pooled": lambda: Chain(
        (3, 6, 7),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 3, 2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.Flatten(),
        nn.Linear(3 * 3 * 4, 3),
    ),
    "windows apart": lambda: Chain(
        (2, 6, 6), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.MaxPool2d((2, 3)), nn.Flatten(), nn.Linear(3 * 3 * 2, 3)
    ),
    "residual": lambda: Chain(
        (2, 5, 5),
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        3,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(75, 3),
    ),
    "the input is added": lambda: Chain(
        (2, 5, 5), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), 0, nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(18, 3)
    ),
}

# The rule, the same in the oracle, and whether its relevance is a multiple of the input.
RULES: dict[str, tuple[Rule, oracle.Rule, bool]] = {
    "LRP-0": (Epsilon(0.0), oracle.Epsilon(0.0), True),
    "epsilon": (Epsilon(), oracle.Epsilon(), True),
    "epsilon 0.25": (Epsilon(0.25), oracle.Epsilon(0.25), True),
    "z+": (ZPlus(), oracle.ZPlus(), True),
    "z+ without bias": (ZPlus(bias=False), oracle.ZPlus(bias=False), True),
    "z+, epsilon 0.1": (ZPlus(epsilon=0.1), oracle.ZPlus(epsilon=0.1), True),
    "alpha 2 beta 1": (AlphaBeta(2, 1), oracle.AlphaBeta(2, 1), True),
    "alpha 1 beta 0": (AlphaBeta(1, 0), oracle.AlphaBeta(1, 0), True),
    "alpha 1.5 beta 0.5": (AlphaBeta(1.5, 0.5, 0.1), oracle.AlphaBeta(1.5, 0.5, 0.1), True),
    "gamma": (Gamma(0.25), oracle.Gamma(0.25), True),
    "gamma 2, epsilon 0.1": (Gamma(2.0, epsilon=0.1), oracle.Gamma(2.0, epsilon=0.1), True),
    "plain gamma": (Gamma(0.25, plain=True), oracle.Gamma(0.25, plain=True), True),
    "w^2": (WSquare(), oracle.WSquare(), False),
    "flat": (Flat(), oracle.Flat(), False),
    "flat, epsilon 0.5": (Flat(0.5), oracle.Flat(0.5), False),
    "z^B": (ZBox(-3.0, 2.0), oracle.ZBox(-3.0, 2.0), False),
}


# In the other one the second convolution reads the input too, by way of the addition. Whether that makes it a first
# layer, whose inputs keep relevance though they are 0, is no question of a rule's formula.
IN_LINE = [name for name in NETWORKS if name != "the input is added"]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Chain:
    return build(NETWORKS[request.param])


def build(make: Callable[[], Chain]) -> Chain:
    """Layers with large biases of either sign, so that their share is no small part."""
    torch.manual_seed(0)
    chain = make().double().eval()
    for module in chain.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.4)
    return chain


def examples(chain: Chain) -> Tensor:
    """Two, between the bounds of z^B; some inputs are 0."""
    x = torch.randn(2, *chain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (x * (x.abs() > 0.1)).clamp(-2.2, 2.0)


def assert_equal(found: Tensor, expected: list[oracle.Values]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64).view(found.shape)
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


def check_relevance(chain: Chain, rules: Composite, literal: Sequence[oracle.Rule]) -> None:
    """The map of each example, and the lines of the ledger, which are sums over the examples."""
    x, layers, attribution = examples(chain), chain.layers, LRPTranspose(chain, rules)
    expected = [oracle.relevance(layers, one.flatten().tolist(), TARGET, literal) for one in x]
    assert_equal(attribution.attribute(x, TARGET), [found.at_input for found in expected])

    entries = {entry.layer: entry for entry in attribution.ledger(x, TARGET) if entry.rule != "-"}
    names = [f"steps.{i}" for i, step in enumerate(chain.order) if isinstance(step, nn.Conv2d | nn.Linear)]
    assert sorted(entries) == sorted(names)
    for name, *lines in zip(reversed(names), *(found.ledger for found in expected), strict=True):
        for part in ("entered", "left", "to_bias", "to_stabiliser"):
            wanted = sum(getattr(line, part) for line in lines)
            scale = max(1.0, *(abs(line.entered) for line in lines))
            assert getattr(entries[name], part) == pytest.approx(wanted, rel=1e-9, abs=1e-10 * scale), (name, part)


@pytest.mark.parametrize("rule", [name for name, (*_, is_multiple) in RULES.items() if is_multiple])
def test_a_rule_everywhere(rule: str, network: Chain) -> None:
    ours, literal, _ = RULES[rule]
    check_relevance(network, Composite(default=ours), [literal] * len(network.is_convolution))


@pytest.mark.parametrize("name", IN_LINE)
@pytest.mark.parametrize("rule", [name for name, (*_, is_multiple) in RULES.items() if not is_multiple])
def test_a_rule_whose_relevance_is_no_multiple_of_the_input(rule: str, name: str) -> None:
    """For the first layer, as such rules are meant; and everywhere: inside, a unit that is 0 keeps its relevance."""
    ours, literal, _ = RULES[rule]
    chain = build(NETWORKS[name])
    others = len(chain.is_convolution) - 1
    check_relevance(chain, Composite(first=ours), [literal, *[oracle.Epsilon()] * others])
    check_relevance(chain, Composite(default=ours), [literal] * (1 + others))


@pytest.mark.parametrize("name", ["dense", "residual"])
def test_relevance_is_passed_on(name: str) -> None:
    """Of the second layer, whose output has its input's shape."""
    chain = build(NETWORKS["dense"])
    if name != "dense":
        chain = build(lambda: Chain((6,), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), 2, nn.Linear(6, 3)))
    rules = [oracle.Epsilon(), oracle.Pass(), oracle.Epsilon()]
    check_relevance(chain, Composite([(1, Pass())]), rules)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset(preset: str, network: Chain) -> None:
    convolutional, dense, first = PRESET_RULES[preset]
    if first is not None and 0 in network.order:
        pytest.skip("two layers read the input")
    rules = [convolutional if is_convolution else dense for is_convolution in network.is_convolution]
    if first is not None:
        rules[0] = first
    check_relevance(network, PRESETS[preset](), rules)


def with_activation(activation: type[nn.Module]) -> Chain:
    return build(
        lambda: Chain(
            (2, 5, 5), nn.Conv2d(2, 3, 3), activation(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4),
            activation(), nn.Linear(4, 3),
        )
    )  # fmt: skip


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
@pytest.mark.parametrize("rule", ["LRP-0", "z+", "alpha 2 beta 1", "gamma"])
def test_relevance_below_activations(activation: type[nn.Module], rule: str) -> None:
    ours, literal, _ = RULES[rule]
    check_relevance(with_activation(activation), Composite(default=ours), [literal] * 3)


# --- the deconvnet family ---------------------------------------------------------------------------------------------

# Backward relu, forward mask, unpooling.
SIGNALS: dict[str, tuple[bool, bool, str]] = {
    "gradient": (False, True, "switches"),
    "gradient without switches": (False, True, "center"),
    "deconvnet": (True, False, "switches"),
    "deconvnet without switches": (True, False, "center"),
    "guided": (True, True, "switches"),
    "guided without switches": (True, True, "center"),
    "linear adjoint with switches": (False, False, "switches"),
    "linear adjoint": (False, False, "center"),
}
MODES = ["switches", "center", "corner", "uniform", "replicate"]


def check_signal(attribution: ModifiedBackprop, chain: Chain, relu: bool, mask: bool, unpooling: str) -> None:
    x, layers = examples(chain), chain.layers
    expected = [oracle.signal(layers, one.flatten().tolist(), TARGET, relu, mask, unpooling) for one in x]
    assert_equal(attribution.attribute(x, TARGET), expected)


@pytest.mark.parametrize("rule", SIGNAL_RULES)
def test_a_signal(rule: str, network: Chain) -> None:
    check_signal(ModifiedBackprop(network, rule), network, *SIGNALS[rule])


@pytest.mark.parametrize("name", ["pooled", "windows apart"])
@pytest.mark.parametrize("unpooling", MODES)
def test_unpooling(unpooling: str, name: str) -> None:
    chain = build(NETWORKS[name])
    check_signal(Deconvolution(chain, unpooling), chain, True, False, unpooling)
    for relu, mask in ((True, True), (False, True), (False, False)):
        check_signal(ModifiedBackprop(chain, SignalRule("", mask, relu, unpooling)), chain, relu, mask, unpooling)
    if unpooling == "switches":
        check_signal(GuidedBackprop(chain), chain, True, True, unpooling)


@pytest.mark.parametrize("activation", [kind for kind in oracle.ACTIVATIONS if kind is not nn.Tanh])
@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided", "linear adjoint"])
def test_a_signal_below_activations(activation: type[nn.Module], rule: str) -> None:
    chain = with_activation(activation)
    check_signal(ModifiedBackprop(chain, rule), chain, *SIGNALS[rule])


# --- the oracle itself ------------------------------------------------------------------------------------------------


def test_the_oracle_computes_what_the_network_does(network: Chain) -> None:
    x = examples(network)
    found = [oracle.run(network.layers, one.flatten().tolist())[-1] for one in x]
    assert_equal(network(x).detach(), found)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, TARGET].sum(), leaf)
    signals = [oracle.signal(network.layers, one.flatten().tolist(), TARGET, False, True) for one in x]
    assert_equal(gradient, signals)


@pytest.mark.parametrize("rule", RULES)
def test_the_oracle_loses_nothing(rule: str, network: Chain) -> None:
    """Relevance that leaves a layer and the shares of its bias and stabiliser add up to the relevance it got."""
    if not RULES[rule][2]:
        rules = [RULES[rule][1], *[oracle.Epsilon()] * (len(network.is_convolution) - 1)]
    else:
        rules = [RULES[rule][1]] * len(network.is_convolution)
    x = examples(network)[0].flatten().tolist()
    found = oracle.relevance(network.layers, x, TARGET, rules)
    for line in found.ledger:
        assert line.entered == pytest.approx(line.left + line.to_bias + line.to_stabiliser, rel=1e-9, abs=1e-9)
    absorbed = sum(line.to_bias + line.to_stabiliser for line in found.ledger)
    output = oracle.run(network.layers, x)[-1][TARGET]
    assert sum(found.at_input) + absorbed == pytest.approx(output, rel=1e-9, abs=1e-9)


def test_what_is_not_written_out_is_refused() -> None:
    with pytest.raises(TypeError, match="Hardswish"):
        oracle.read([nn.Hardswish()], (3,))
