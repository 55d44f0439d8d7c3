"""Errors: one base class, the built-in type that callers expect, and a sentence with layer, value and remedy."""

import ast
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.browser import ROOT
from torch import Tensor, nn
from torch.nn import functional as F

from plugin import errors
from plugin.attr import (
    AttributionError,
    DeconvNet,
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    ModifiedBackprop,
    NeuronDeconvolution,
    NeuronGuidedBackprop,
    NeuronLRPTranspose,
)
from plugin.rules import Composite

INPUTS = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize(
    ("kind", "builtins"),
    [
        (errors.TargetError, (AssertionError, IndexError)),
        (errors.NeuronError, (AssertionError, IndexError, ValueError)),
        (errors.NotAModuleError, (AssertionError, TypeError)),
        (errors.InputTypeError, (AssertionError, TypeError)),
        (errors.InputValueError, (ValueError,)),
        (errors.ModelError, (ValueError,)),
        (errors.ModelOutputError, (AssertionError, TypeError)),
        (errors.LayerError, (ValueError,)),
        (errors.OptionError, (ValueError,)),
        (errors.OptionTypeError, (TypeError,)),
        (errors.NoDependenceError, (ValueError,)),
        (errors.NotFiniteError, (ValueError,)),
        (errors.NoRuleError, (NotImplementedError,)),
        (errors.UnseenOperationError, (RuntimeError,)),
        (errors.ModelChangedError, (RuntimeError,)),
    ],
)
def test_one_base_class_and_what_callers_expect(kind: type[Exception], builtins: tuple[type[Exception], ...]) -> None:
    assert issubclass(kind, (AttributionError,))
    for builtin in builtins:
        with pytest.raises(builtin, match="why"):
            raise kind("why")


REFUSED: dict[str, tuple[Callable[[nn.Module], Any], type[Exception], str]] = {
    "target": (lambda net: GuidedBackprop(net).attribute(INPUTS, 3), IndexError, r"target 3 .* between -3 and 2"),
    "no target": (
        lambda net: LRPTranspose(net).attribute(INPUTS),
        errors.TargetError,
        r"\(2, 3\).* name one with target=",
    ),
    "a word": (lambda net: LRPTranspose(net).attribute(INPUTS, "cat"), errors.TargetError, "'cat' is no index: pass"),
    "mixed": (lambda net: LRPTranspose(net).attribute(INPUTS, [1, (1,)]), errors.TargetError, "partly ints"),
    "two columns": (
        lambda net: LRPTranspose(net).attribute(INPUTS, torch.ones(2, 2, dtype=torch.int64)),
        errors.TargetError,
        r"has shape \(2, 2\): pass one integer per example",
    ),
    "floats": (lambda net: LRPTranspose(net).attribute(INPUTS, np.ones(2)), errors.TargetError, "1.0 is no index"),
    "a function of too much": (
        lambda net: LRPTranspose(net).attribute(INPUTS, lambda output: output),
        errors.TargetError,
        r"given as target, of the output \(2, 3\), returns \(2, 3\)",
    ),
    "a list for maps": (
        lambda net: GuidedBackprop(nn.Sequential(net, nn.Unflatten(1, (3, 1)))).attribute(INPUTS, [1, 2]),
        errors.TargetError,
        "pass a list of tuples",
    ),
    "neuron": (
        lambda net: NeuronGuidedBackprop(net, "0").attribute(INPUTS, 6),
        IndexError,
        r"layer '0' \(Linear\) has no neuron 6: its shape per example is \(6,\)",
    ),
    "layer": (lambda net: NeuronLRPTranspose(net, "00"), errors.LayerError, "no layer '00'; near are: 0"),
    "no name": (
        lambda net: NeuronLRPTranspose(net, 0),
        errors.OptionTypeError,
        "pass a module of the model, or its name",
    ),
    "list of inputs": (lambda net: LRPTranspose(net).attribute([INPUTS], 1), errors.InputTypeError, r"tuple\(inputs\)"),
    "rule": (lambda net: LRPTranspose(net, 3), errors.OptionTypeError, "rules = 3"),
    "no rule": (lambda net: ModifiedBackprop(net, [0]), errors.OptionTypeError, r"rule = \[0\]: give a name in"),
    "preset in the place of devices": (
        lambda net: LayerLRPTranspose(net, "0", "epsilon_plus"),
        errors.OptionTypeError,
        "belongs to device_ids, a list of ints: give rules by keyword, rules='epsilon_plus'",
    ),
    "composite in the place of devices": (
        lambda net: NeuronLRPTranspose(net, "0", Composite()),
        errors.OptionTypeError,
        r"give rules by keyword, rules=Composite\(",
    ),
    "unpooling in the place of devices": (
        lambda net: NeuronDeconvolution(net, "0", "center"),
        errors.OptionTypeError,
        "give unpooling by keyword, unpooling='center'",
    ),
    "rule in the place of devices": (
        lambda net: NeuronGuidedBackprop(net, "0", "guided"),
        errors.OptionTypeError,
        "device_ids = 'guided': .*: leave it out",
    ),
    "mode in the place of devices": (
        lambda net: GuidedGradCam(net, "0", "bilinear"),
        errors.OptionTypeError,
        "device_ids = 'bilinear': .*: leave it out",
    ),
    "unknown": (lambda net: LRPTranspose(net, unknown="skip"), errors.OptionError, "unknown = 'skip'"),
    "no targets": (
        lambda net: LRPTranspose(net).attribute_targets(INPUTS, []),
        errors.OptionError,
        "name at least one",
    ),
    "future": (lambda net: LRPTranspose(net).attribute_future(), AttributionError, "call attribute"),
    "unit": (
        lambda net: DeconvNet(net, "0", (5,)).reconstruct(6),
        IndexError,
        r"has no unit \(6,\).* channels are 0 to 5",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_an_attribution_error(name: str) -> None:
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call(small_net())
    assert isinstance(error.value, AttributionError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "target",
    [
        np.int64(1),
        [np.int64(1)] * 2,
        (np.int32(1),),
        np.array([1, 1]),
        np.array([[1], [1]]),
        torch.tensor([[1], [1]]),
        [torch.tensor(1), 1],
        lambda output: output[:, 1],
        lambda output: output[:, 1].sum(),
    ],
)
def test_integers_of_every_kind_are_targets(target: Any) -> None:
    expected = GuidedBackprop(small_net()).attribute(INPUTS, 1)
    for size in (None, 1):
        attributed = GuidedBackprop(small_net()).attribute(INPUTS, target, internal_batch_size=size)
        torch.testing.assert_close(attributed, expected)


def test_integers_of_every_kind_are_neurons() -> None:
    attribution = NeuronGuidedBackprop(small_net(), "0")
    expected = attribution.attribute(INPUTS, 1)
    for neuron in (np.int64(1), (np.int64(1),), torch.tensor(1), slice(1, 2)):
        torch.testing.assert_close(attribution.attribute(INPUTS, neuron), expected)


def test_a_function_of_an_output_that_is_no_tensor() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.net(x)}

    expected = LRPTranspose(small_net()).attribute(INPUTS, 1)
    torch.testing.assert_close(LRPTranspose(Several()).attribute(INPUTS, lambda out: out["logits"][:, 1]), expected)
    with pytest.raises(errors.ModelOutputError, match=r"returned a dict: wrap it .* or pass as target a function"):
        LRPTranspose(Several()).attribute(INPUTS, 1)


def test_what_holds_a_module_is_no_module() -> None:
    for name in ("network", "module", "model"):
        with pytest.raises(TypeError, match=rf"a SimpleNamespace that holds one: pass model\.{name}"):
            LRPTranspose(SimpleNamespace(**{name: small_net()}))
    with pytest.raises(errors.NotAModuleError, match=r"the class Linear: pass an instance"):
        GuidedBackprop(nn.Linear)
    with pytest.raises(AssertionError, match=r"not a function: wrap it"):
        DeconvNet(lambda x: x, "0", (5,))


def test_nothing_is_decided_by_an_assertion() -> None:
    """With `python -O` there are none: ours only inform a type checker, and our errors do not rest on Captum's."""
    for path in [path for package in ("plugin", "gan") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                assert re.fullmatch(r".* is not None|isinstance\(.*\)", ast.unparse(node.test)), (path, node.lineno)
    net = small_net()

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.both = net, nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.both((x, self.net(x)))[1]

    calls: dict[str, Callable[[], object]] = {
        "target": lambda: GuidedBackprop(net).attribute(INPUTS, 3),
        "negative": lambda: LRPTranspose(net).attribute(INPUTS, [0, -1]),
        "length": lambda: LRPTranspose(net).attribute(INPUTS, [0]),
        "length in batches": lambda: LRPTranspose(net).attribute(INPUTS, [0], internal_batch_size=1),
        "no target": lambda: GuidedBackprop(net).attribute(INPUTS),
        "too long": lambda: GuidedBackprop(net).attribute(INPUTS, (1, 1)),
        "text": lambda: GuidedBackprop(net).attribute(INPUTS, "1"),
        "list of inputs": lambda: GuidedBackprop(net).attribute([INPUTS], 1),
        "neuron": lambda: NeuronGuidedBackprop(net, "0").attribute(INPUTS, 6),
        "neuron too long": lambda: NeuronLRPTranspose(net, "0").attribute(INPUTS, (1, 1)),
        "two tensors": lambda: NeuronGuidedBackprop(Two(), "both").attribute(INPUTS, 1),
        "two tensors of Grad-CAM": lambda: GuidedGradCam(Two(), "both").attribute(INPUTS, 1),
    }
    for kind in (GuidedBackprop, LRPTranspose):
        calls[f"{kind.__name__} of a function"] = partial(kind, lambda x: x)
    for call in calls.values():
        with pytest.raises(errors.AttributionError):
            call()


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()


class WithoutGradient(Holder):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class FrozenBackbone(Holder):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            hidden = self.net[:2](x)
        return self.net[2](hidden.clone())


class ByNumpy(Holder):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.from_numpy(x.detach().numpy()))


class Decision(Holder):
    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.net(x).argmax(1), 3).float()


class Detaching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


LOST = [
    (WithoutGradient, "Autograd is off where layer 'net.0' (Linear) runs"),
    (FrozenBackbone, "Autograd is off where layer 'net.0' (Linear) runs"),
    (ByNumpy, "They get lost in the ByNumpy"),
    (Decision, "They get lost in the Decision"),
    (lambda: nn.Sequential(small_net(), Detaching(), nn.Linear(3, 3)), "They get lost in '1' (Detaching)"),
]


@pytest.mark.parametrize(("make", "place"), LOST)
@pytest.mark.parametrize("method", [GuidedBackprop, LRPTranspose])
def test_an_output_that_does_not_depend_on_the_inputs(make: Any, place: str, method: Any) -> None:
    with pytest.raises(ValueError, match="does not depend on the inputs") as error:
        method(make().eval()).attribute(INPUTS, 1)
    assert isinstance(error.value, errors.NoDependenceError)
    for word in ("no_grad", "detach", "NumPy", "argmax", place):
        assert word in str(error.value)


def test_a_target_that_does_not_depend_on_the_inputs() -> None:
    with pytest.raises(
        errors.NoDependenceError, match=r"The model's output depends on them\. The value that the target selects"
    ):
        GuidedBackprop(small_net()).attribute(INPUTS, lambda output: output[:, 1].detach())


@pytest.mark.filterwarnings("ignore:.* is in train mode")
def test_a_model_is_run_as_it_is_when_its_layers_are_searched() -> None:
    model = nn.Sequential(nn.BatchNorm1d(5), Detaching(), nn.Linear(5, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(errors.NoDependenceError, match="'1'"):
        LRPTranspose(model).attribute(INPUTS, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_is_called_so() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(small_net(), {nn.Linear}, dtype=torch.qint8)
    for method in (GuidedBackprop, Deconvolution, LRPTranspose):
        with pytest.raises(
            errors.ModelError, match=r"layer '0' \(Linear\) is quantised: .*linear_dynamic.* floating point"
        ):
            method(quantised)
    aware = nn.Sequential(nn.Linear(5, 6), torch.ao.quantization.FakeQuantize(), nn.ReLU(), nn.Linear(6, 3)).eval()
    assert GuidedBackprop(aware).attribute(INPUTS, 1).any()


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> None:
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [Deconvolution, GuidedBackprop])
def test_a_function_that_hands_nothing_down(method: Any) -> None:
    class Beside(Holder):
        def forward(self, x: Tensor) -> Tensor:
            return self.net[2](Cut.apply(F.relu(self.net[0](x)))) + x[:, :3]

    expected = torch.zeros(2, 5).index_fill(1, torch.tensor(1), 1.0)
    torch.testing.assert_close(method(Beside()).attribute(INPUTS, 1), expected)


class Gated(nn.Module):
    """A squeeze-and-excitation gate, a layer that is not used, and one that sees constants only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.gate, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.spare, self.position = nn.Linear(5, 5), nn.Embedding(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.body(x))
        return self.head(hidden * torch.sigmoid(self.gate(hidden)) + self.position(torch.arange(6)).flatten())


def test_a_layer_without_relevance_has_zeros() -> None:
    net = Gated().eval()
    gate, body = LayerLRPTranspose(net, ["gate", "body"]).attribute(INPUTS, 1)
    assert torch.equal(LayerLRPTranspose(net, "gate").attribute(INPUTS, 1), torch.zeros(2, 6))
    assert torch.equal(gate, torch.zeros(2, 6))
    assert torch.equal(body, LayerLRPTranspose(net, "body").attribute(INPUTS, 1))
    assert body.any()
    with pytest.raises(errors.LayerError, match=r"'spare' \(Linear\) was not reached by the forward pass"):
        LayerLRPTranspose(net, "spare").attribute(INPUTS, 1)
    net.requires_grad_(False)
    for attribution in (LayerLRPTranspose(net, "position"), GuidedGradCam(net, "position")):
        with pytest.raises(errors.LayerError, match="does not depend on the inputs: choose a layer that they reach"):
            attribution.attribute(INPUTS, 1)


def test_a_layer_that_reads_weights_alone_is_refused() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))).eval()
    layer = LayerLRPTranspose(net, "0.parametrizations.weight.0")
    for at_input in (False, True):
        with pytest.raises(errors.LayerError, match="does not depend on the inputs: choose a layer that they reach"):
            layer.attribute(INPUTS, 1, attribute_to_layer_input=at_input)
