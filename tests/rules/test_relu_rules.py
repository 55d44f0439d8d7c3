"""Guided backprop and deconvnet: every spelling of every activation, against Captum and against the formulas."""

from collections.abc import Callable
from functools import partial

import captum.attr
import pytest
import torch
from support.helpers import ActivationNet, with_module
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, NeuronDeconvolution, NeuronGuidedBackprop

METHODS = [(GuidedBackprop, captum.attr.GuidedBackprop), (Deconvolution, captum.attr.Deconvolution)]


def in_place(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The in-place call as a statement: its return value is not used."""

    def call(x: Tensor) -> Tensor:
        function(x)
        return x

    return call


def into(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    torch.clamp(x, min=0, out=result)
    return result


def zero_where_negative(x: Tensor) -> Tensor:
    """ReLU of half of the channels through a view, the other half through its return value."""
    x[:, ::2].relu_()
    return torch.cat([part if even else F.relu(part) for even, part in alternating(x)], dim=1)


def alternating(x: Tensor) -> list[tuple[bool, Tensor]]:
    return [(index % 2 == 0, x[:, index : index + 1]) for index in range(x.shape[1])]


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu(inplace=True)": partial(F.relu, inplace=True),
    "F.relu(inplace) statement": in_place(partial(F.relu, inplace=True)),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "torch.relu_ statement": in_place(torch.relu_),
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": in_place(Tensor.relu_),
    "aten.relu": torch.ops.aten.relu,
    "aten.relu.default": torch.ops.aten.relu.default,
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "torch.clamp(min=tensor)": lambda x: torch.clamp(x, min=torch.zeros(())),
    "clamp_(min=0)": in_place(lambda x: x.clamp_(min=0)),
    "clip": lambda x: x.clip(0, None),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_min_": in_place(lambda x: x.clamp_min_(0.0)),
    "clamp(out=)": into,
    "maximum(x, 0)": lambda x: torch.maximum(x, torch.zeros(())),
    "maximum(0, x)": lambda x: torch.maximum(torch.zeros_like(x), x),
    "x.max(0)": lambda x: x.max(torch.zeros_like(x)),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold(inplace)": in_place(lambda x: F.threshold(x, 0.0, 0.0, True)),
    "torch.threshold_": in_place(lambda x: torch.threshold_(x, 0, 0)),
    "through views": zero_where_negative,
}


@pytest.mark.parametrize(("ours", "reference"), METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_functional_spellings_equal_captum_on_modules(spelling, ours, reference, images) -> None:
    torch.manual_seed(0)
    modules = with_module(nn.ReLU(), nn.ReLU())
    functions = ActivationNet(lambda index, x: SPELLINGS[spelling](x)).eval()
    functions.load_state_dict(modules.state_dict())
    expected = reference(modules).attribute(images, target=2)
    assert not torch.allclose(expected, captum.attr.Saliency(modules).attribute(images, target=2, abs=False))
    torch.testing.assert_close(ours(functions).attribute(images, target=2), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("ours", "reference"), METHODS)
@pytest.mark.parametrize("modules", [(nn.ReLU(),), (nn.ReLU(inplace=True),), (nn.ReLU(True), nn.ReLU(True))])
def test_module_spellings_equal_captum(modules, ours, reference, images) -> None:
    torch.manual_seed(0)
    own = with_module(nn.ReLU(), nn.ReLU())
    other = with_module(*modules)
    other.load_state_dict(own.state_dict())
    expected = reference(own).attribute(images, target=2)
    torch.testing.assert_close(ours(other).attribute(images, target=2), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (NeuronGuidedBackprop, captum.attr.NeuronGuidedBackprop),
        (NeuronDeconvolution, captum.attr.NeuronDeconvolution),
    ],
)
@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize(
    "selector", [(3, 1, 2), (slice(0, 4), 1, slice(None)), lambda value: value.mean(dim=(1, 2, 3))]
)
def test_neurons_equal_captum(ours, reference, at_input, selector, images) -> None:
    torch.manual_seed(0)
    net = with_module(nn.ReLU(), nn.ReLU())
    arguments = (images, selector, None, at_input)
    expected = reference(net, net.conv2).attribute(*arguments)
    torch.testing.assert_close(ours(net, net.conv2).attribute(*arguments), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours(net, "conv2").attribute(*arguments), expected, rtol=1e-6, atol=1e-6)
    in_place = with_module(nn.ReLU(inplace=True))
    in_place.load_state_dict(net.state_dict())
    torch.testing.assert_close(ours(in_place, "conv2").attribute(*arguments), expected, rtol=1e-6, atol=1e-6)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
    "hardtanh(0, 6)": lambda x: F.hardtanh(x, 0.0, 6.0),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "leaky_relu_": in_place(lambda x: F.leaky_relu_(x, 0.1)),
    "elu": F.elu,
    "elu(inplace)": in_place(lambda x: F.elu(x, inplace=True)),
    "selu": F.selu,
    "torch.selu_": in_place(torch.selu_),
    "celu": F.celu,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "silu(inplace)": in_place(lambda x: F.silu(x, inplace=True)),
    "mish": F.mish,
    "hardswish": F.hardswish,
    "softplus": lambda x: F.softplus(x, beta=2),
    "prelu": lambda x: F.prelu(x, torch.tensor([-0.3], dtype=x.dtype)),
    "rrelu": F.rrelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "clamp(-1, 1)": lambda x: x.clamp(-1, 1),
    "clamp(min=0.5)": lambda x: x.clamp(min=0.5),
    "threshold(1, 0)": lambda x: F.threshold(x, 1, 0),
    "sin": torch.sin,
    "nn.GELU": nn.GELU(),
    "nn.SiLU": nn.SiLU(inplace=True),
    "nn.Hardswish": nn.Hardswish(inplace=True),
    "nn.PReLU": nn.PReLU(),
    "nn.Softplus": nn.Softplus(),
    "nn.ReLU6": nn.ReLU6(inplace=True),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations_follow_their_definition(name) -> None:
    """deconvnet: relu(m); guided: relu(m) * relu(f'(x)), on a layer y = f(x) read out with signed weights."""
    function = ACTIVATIONS[name]
    function = function.eval() if isinstance(function, nn.Module) else function
    weights = torch.linspace(-1, 1, 40, dtype=torch.float64).roll(7)
    x = torch.linspace(-8, 8, 40, dtype=torch.float64).reshape(1, 40)

    class Readout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.function = function

        def forward(self, values: Tensor) -> Tensor:
            return (self.function(values * 1.0) * weights).sum(1)

    net = Readout().double()
    leaf = x.clone().requires_grad_()
    derivative = torch.autograd.grad(function(leaf * 1.0).sum(), leaf)[0]
    expected = weights.clamp(min=0) * derivative.clamp(min=0)
    torch.testing.assert_close(GuidedBackprop(net).attribute(x), expected)
    torch.testing.assert_close(Deconvolution(net).attribute(x), weights.clamp(min=0).reshape(1, 40))


def test_activation_reused_as_residual_clamps_each_path_once(images) -> None:
    """y = relu(x) + x: the signal of the sum reaches x through the ReLU clamped, and past it untouched."""
    signal = torch.linspace(-1, 1, 27).reshape(3, 3, 3)

    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hidden = x * 2
            hidden = hidden + F.relu(hidden)
            return (hidden[:, :, :3, :3] * signal).sum(dim=(1, 2, 3))

    x = torch.randn(1, 3, 3, 3)
    expected = 2 * (signal + signal.clamp(min=0) * (x > 0))
    torch.testing.assert_close(GuidedBackprop(Residual()).attribute(x), expected)
