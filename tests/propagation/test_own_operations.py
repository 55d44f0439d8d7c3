"""Opaque operations of a user's own: registered, they get the rules of the operation they are declared to be."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.helpers import assert_close, assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary, wrap_torch_function

from plugin import operations
from plugin.attr import (
    DeconvNet,
    Deconvolution,
    GuidedBackprop,
    LayerLRPTranspose,
    LRPTranspose,
    ModifiedBackprop,
    NeuronGuidedBackprop,
)
from plugin.errors import NoRuleError, OptionError
from plugin.operations import Kind

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = [GuidedBackprop, Deconvolution, LRPTranspose]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@contextmanager
def registered(target: Any, kind: Kind, **options: Any) -> Iterator[None]:
    row = operations.register(target, kind, **options)
    try:
        yield
    finally:
        operations.unregister(row)


@contextmanager
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- opaque operations -------------------------------------------------------------------------------------------------


@torch.library.custom_op("tests_of_own::relu", mutates_args=())
def library_relu(values: Tensor) -> Tensor:
    return torch.from_numpy(values.detach().numpy().clip(min=0))


library_relu.register_autograd(
    lambda ctx, signal: signal * (ctx.saved_tensors[0] > 0),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@torch.library.custom_op("tests_of_own::scaled_sum", mutates_args=())
def library_sum(first: Tensor, second: Tensor) -> Tensor:
    return torch.from_numpy(first.detach().numpy() + 2 * second.detach().numpy())


library_sum.register_autograd(lambda ctx, signal: (signal, 2 * signal))


class KernelSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values * values.sigmoid()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        sigmoid = values.sigmoid()
        return signal * (sigmoid + values * sigmoid * (1 - sigmoid))


def kernel_swish(values: Tensor) -> Tensor:
    """As a library writes it whose functions can be overridden."""
    if has_torch_function_unary(values):
        return handle_torch_function(kernel_swish, (values,), values)
    return KernelSwish.apply(values)


class KernelSum(torch.autograd.Function):
    """2 a + b."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        return 2 * first + second

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * signal, signal


@wrap_torch_function(lambda first, second: (first, second))
def kernel_sum(first: Tensor, second: Tensor) -> Tensor:
    return KernelSum.apply(first, second)


class Swish(nn.Module):
    """A pointwise module that calls a kernel."""

    def forward(self, values: Tensor) -> Tensor:
        return KernelSwish.apply(values)


class ScriptedSwish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.jit.script(nn.SiLU())

    def forward(self, values: Tensor) -> Tensor:
        return self.kernel(values)


class SwishInPlace(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.copy_(KernelSwish.apply(values.clone()))


class Sum(nn.Module):
    """The second of two inputs may be computed from the first."""

    def forward(self, first: Tensor, *, second: Tensor) -> Tensor:
        return KernelSum.apply(first, second)


class Gate(nn.Module):
    """Has a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, values: Tensor) -> Tensor:
        return KernelSwish.apply(self.linear(values)) + values


class With(nn.Module):
    """Two convolutions with an activation behind each."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.activation = activation
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.activation(self.second(self.activation(self.first(images))))
        return self.head(hidden.mean((2, 3)))


class Between(nn.Module):
    """`join(hidden, second layer of hidden)` between layers."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.join = join
        self.double().eval()

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.first(values)
        return self.last(F.relu(self.join(hidden, self.second(hidden))))


# -- activations -------------------------------------------------------------------------------------------------------

IMAGES = numbers(2, 3, 9, 9)
# The registered key, the call in the network, and the declared operation.
ACTIVATIONS: dict[str, tuple[Any, Callable[[], Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "custom_op": (library_relu, lambda: library_relu, F.relu),
    "an operator": (torch.ops.tests_of_own.relu, lambda: torch.ops.tests_of_own.relu, F.relu),
    "its overload": (torch.ops.tests_of_own.relu.default, lambda: torch.ops.tests_of_own.relu.default, F.relu),
    "the other way round": (library_relu, lambda: torch.ops.tests_of_own.relu, F.relu),
    "a function": (kernel_swish, lambda: kernel_swish, F.silu),
    "a module": (Swish, Swish, F.silu),
    "a module in place": (SwishInPlace, SwishInPlace, F.silu),
    "a module that is scripted inside": (ScriptedSwish, ScriptedSwish, F.silu),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_registered_activation_has_the_rule_of_activations(name, method) -> None:
    target, build, same = ACTIVATIONS[name]
    expected = method(With(same)).attribute(IMAGES, 1)
    network = With(build())
    with registered(target, Kind.ACTIVATION), nothing_said():
        before = snapshot(network)
        assert_close(method(network).attribute(IMAGES, 1), expected, 1e-5)
        assert_unchanged(before, network)


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
@pytest.mark.parametrize(
    "activation",
    [library_relu, torch.ops.tests_of_own.relu, kernel_swish, Swish()],
    ids=["custom_op", "operator", "function", "module"],
)
def test_an_operation_that_nobody_registered_warns(activation, method) -> None:
    """As before, and after the row has been taken back."""
    target = type(activation) if isinstance(activation, nn.Module) else activation
    with registered(target, Kind.ACTIVATION):
        method(With(activation)).attribute(IMAGES, 1)
    with pytest.warns(UserWarning, match=r"(tests_of_own\.relu|KernelSwish)") as caught:
        found = method(With(activation)).attribute(IMAGES, 1)
    assert len(caught) == len({str(warning.message) for warning in caught})
    leaf = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(With(activation)(leaf)[:, 1].sum(), leaf)
    assert_close(found, gradient, 1e-9)


@pytest.mark.parametrize(
    ("activation", "says"),
    [(library_relu, "relu in the"), (kernel_swish, "kernel_swish in the"), (Swish(), "Kernel")],
)
def test_lrp_refuses_an_operation_that_nobody_registered(activation, says) -> None:
    target = type(activation) if isinstance(activation, nn.Module) else activation
    with registered(target, Kind.ACTIVATION):
        LRPTranspose(With(activation)).attribute(IMAGES, 1)
    with pytest.raises(NoRuleError, match=says):
        LRPTranspose(With(activation)).attribute(IMAGES, 1)


def test_an_operator_warns_once_for_each_layer_that_calls_it() -> None:
    class Layer(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return library_relu(library_relu(values))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), Layer(), nn.Linear(8, 8), Layer(), nn.Linear(8, 3)).double()
    with pytest.warns(UserWarning, match="relu") as caught:
        GuidedBackprop(network).attribute(numbers(2, 6), 1)
    assert ["'1' (Layer)" in str(w.message) or "'3' (Layer)" in str(w.message) for w in caught] == [True, True]


def test_no_operator_warns_that_the_explained_output_does_not_depend_on() -> None:
    class Auxiliary(With):
        def forward(self, images: Tensor) -> Tensor:
            self.activation(images)
            return self.head(images.mean((2, 3)).repeat(1, 2))

    with nothing_said():
        GuidedBackprop(Auxiliary(library_relu)).attribute(IMAGES, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_part_of_an_activation_written_by_hand(method) -> None:
    """x * kernel(x) is one activation, as x * sigmoid(x) is."""

    class Sigmoid(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return KernelSwish.apply(values) / values

    kernel = Sigmoid()
    expected = method(With(F.silu)).attribute(IMAGES, 1)
    with registered(Sigmoid, Kind.ACTIVATION, non_negative=True, weight=True), nothing_said():
        network = With(lambda values: values * kernel(values))
        network.kernel = kernel
        assert_close(method(network).attribute(IMAGES, 1), expected, 1e-5)


def test_relevance_at_zero_is_the_slope_of_a_module() -> None:
    """It takes inputs of its own shape only."""

    class Fixed(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return KernelSwish.apply(values.view(2, 6, 49)).view(values.shape)

    class Zeros(With):
        def forward(self, images: Tensor) -> Tensor:
            hidden = self.first(images)
            hidden = self.activation(torch.where(hidden > 0.5, hidden, torch.zeros_like(hidden)) * 2.0)
            return self.head(hidden.mean((2, 3)))

    expected = LRPTranspose(Zeros(F.silu)).attribute(IMAGES, 1)
    with registered(Fixed, Kind.ACTIVATION):
        assert_close(LRPTranspose(Zeros(Fixed())).attribute(IMAGES, 1), expected, 1e-9)


def test_other_rules_of_the_family() -> None:
    for name in ("gradient", "linear adjoint"):
        expected = ModifiedBackprop(With(F.silu), name).attribute(IMAGES, 1)
        with registered(Swish, Kind.ACTIVATION), nothing_said():
            assert_close(ModifiedBackprop(With(Swish()), name).attribute(IMAGES, 1), expected, 1e-9)


def test_layers_and_neurons() -> None:
    network, twin = With(Swish()), With(nn.SiLU())
    with registered(Swish, Kind.ACTIVATION), nothing_said():
        for at_input in (True, False):
            found, expected = (
                LayerLRPTranspose(net, "activation").attribute(IMAGES, 1, attribute_to_layer_input=at_input)
                for net in (network, twin)
            )
            assert_close(found, expected, 1e-9)
            found, expected = (
                NeuronGuidedBackprop(net, "activation").attribute(IMAGES, (2, 1, 1), None, at_input)
                for net in (network, twin)
            )
            assert_close(found, expected, 1e-9)


def test_deconvnet_without_an_image() -> None:
    with registered(Swish, Kind.ACTIVATION), nothing_said():
        found = DeconvNet(With(Swish()), "second", (3, 9, 9)).reconstruct([0, 1])
    assert_close(found, DeconvNet(With(nn.SiLU()), "second", (3, 9, 9)).reconstruct([0, 1]), 1e-6)


# -- sums and movements ------------------------------------------------------------------------------------------------


class SumModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.sum(first, second=second)


SUMS: dict[str, tuple[Any, Callable[[], Callable[[Tensor, Tensor], Tensor]]]] = {
    "custom_op": (library_sum, lambda: lambda a, b: library_sum(b, a)),
    "a function": (kernel_sum, lambda: kernel_sum),
    "a module": (Sum, SumModule),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.MOVEMENT])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_has_its_own_gradient(name, kind, method) -> None:
    target, build = SUMS[name]
    values = numbers(3, 6)
    expected = method(Between(lambda a, b: 2 * a + b)).attribute(values, 1)
    with registered(target, kind), nothing_said():
        assert_close(method(Between(build())).attribute(values, 1), expected, 1e-9)
    network = Between(build())
    if method is LRPTranspose:
        with pytest.raises(NoRuleError):
            method(network).attribute(values, 1)
    else:
        with pytest.warns(UserWarning, match=r"scaled_sum|KernelSum"):
            method(network).attribute(values, 1)


def test_several_results() -> None:
    class Split(nn.Module):
        def forward(self, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            halves = KernelSum.apply(values, values)
            return halves[:, :4], {"rest": halves[:, 4:]}

    class Net(nn.Module):
        def __init__(self, split: Callable[[Tensor], Any]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.split, self.last = nn.Linear(6, 8), split, nn.Linear(4, 3)
            self.double()

        def forward(self, values: Tensor) -> Tensor:
            one, other = self.split(self.first(values))
            return self.last(F.relu(one) - other["rest"])

    values = numbers(2, 6)
    expected = LRPTranspose(Net(lambda v: ((3 * v)[:, :4], {"rest": (3 * v)[:, 4:]}))).attribute(values, 1)
    with registered(Split, Kind.LINEAR), nothing_said():
        assert_close(LRPTranspose(Net(Split())).attribute(values, 1), expected, 1e-9)


def test_the_ledger_accounts_for_a_module_with_a_bias() -> None:
    class Shift(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return KernelSum.apply(first, second) + 1

    with registered(Shift, Kind.LINEAR):
        ledger = LRPTranspose(Between(Shift()), "lrp_0").ledger(numbers(2, 6), 1)
    assert abs(ledger.output - ledger.input - ledger.absorbed) < 1e-9 * abs(ledger.output)


# -- parts -------------------------------------------------------------------------------------------------------------


def gated(values: Tensor, linear: nn.Linear) -> Tensor:
    return F.silu(linear(values)) + values


@pytest.mark.parametrize("method", METHODS)
def test_a_module_in_its_parts(method) -> None:
    class Parts(Gate):
        def forward(self, values: Tensor) -> Tensor:
            return gated(values, self.linear)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), Gate(), nn.Linear(8, 3)).double()
    twin = nn.Sequential(network[0], Parts().double(), network[2])
    twin[1].linear = network[1].linear
    values = numbers(2, 6)
    expected = method(twin).attribute(values, 1)
    with registered(Gate, Kind.COMPOSITE, parts=lambda gate, values: gated(values, gate.linear)), nothing_said():
        assert_close(method(network).attribute(values, 1), expected, 1e-9)
        if method is LRPTranspose:
            names = [row.layer for row in LRPTranspose(network).check(values).layers]
            assert names == ["0", "1.linear", "2"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operation", [library_relu, kernel_swish], ids=["custom_op", "function"])
def test_an_operation_in_its_parts(operation, method) -> None:
    same = F.relu if operation is library_relu else F.silu
    expected = method(With(same)).attribute(IMAGES, 1)
    parts = (lambda x: x.clamp(min=0)) if operation is library_relu else (lambda x: x * torch.sigmoid(x))
    with registered(operation, Kind.COMPOSITE, parts=parts), nothing_said():
        assert_close(method(With(operation)).attribute(IMAGES, 1), expected, 1e-6)


def test_parts_of_a_module_that_overwrites_its_input() -> None:
    class Doubling(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values.mul_(KernelSwish.apply(torch.zeros_like(values)) + 2)

    class Net(nn.Module):
        def __init__(self, doubling: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.doubling, self.last = nn.Linear(6, 8), doubling, nn.Linear(8, 3)
            self.double()

        def forward(self, values: Tensor) -> Tensor:
            hidden = self.first(values)
            self.doubling(hidden)
            return self.last(F.relu(hidden))

    values = numbers(2, 6)
    expected = LRPTranspose(Net(lambda v: v.mul_(2))).attribute(values, 1)
    with registered(Doubling, Kind.COMPOSITE, parts=lambda module, v: 2 * v), nothing_said():
        assert_close(LRPTranspose(Net(Doubling())).attribute(values, 1), expected, 1e-9)


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parts"), [(Kind.CONVOLUTION, None), (Kind.COMPOSITE, None), (Kind.ACTIVATION, lambda x: x)]
)
def test_what_cannot_be_registered(kind, parts) -> None:
    with pytest.raises(OptionError, match="Kind"):
        operations.register(kernel_swish, kind, parts=parts)


def test_a_subclass_is_another_class() -> None:
    class Other(Swish):
        pass

    with registered(Swish, Kind.ACTIVATION), pytest.raises(NoRuleError):
        LRPTranspose(With(Other())).attribute(IMAGES, 1)


def test_a_row_that_was_replaced_is_not_taken_back() -> None:
    first = operations.register(Swish, Kind.LINEAR)
    second = operations.register(Swish, Kind.ACTIVATION)
    operations.unregister(first)
    with nothing_said():
        LRPTranspose(With(Swish())).attribute(IMAGES, 1)
    operations.unregister(second)
    with pytest.raises(NoRuleError):
        LRPTranspose(With(Swish())).attribute(IMAGES, 1)


def test_a_function_called_relu_is_what_it_is_said_to_be() -> None:
    """Names of PyTorch's operations mean nothing for a user's."""

    @wrap_torch_function(lambda values: (values,))
    def relu(values: Tensor) -> Tensor:
        return KernelSwish.apply(values)

    with registered(relu, Kind.ACTIVATION):
        found = LRPTranspose(With(relu)).attribute(IMAGES, 1)
    assert_close(found, LRPTranspose(With(F.silu)).attribute(IMAGES, 1), 1e-9)


def test_train_mode_overwrites_nothing() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(6)

        def forward(self, values: Tensor) -> Tensor:
            return self.norm(KernelSum.apply(values, values))

    network = With(Normed()).train()
    before = snapshot(network)
    with registered(Normed, Kind.LINEAR), pytest.warns(UserWarning, match="train mode"):
        LRPTranspose(network).attribute(IMAGES, 1)
    assert_unchanged(before, network)


def test_copies_share_the_row() -> None:
    with registered(Swish, Kind.ACTIVATION), nothing_said():
        network = With(Swish())
        found, expected = (LRPTranspose(net).attribute(IMAGES, 1) for net in (copy.deepcopy(network), network))
    assert torch.equal(found, expected)
