"""Calls that bypass the function mode: hooks of modules on the backward pass, autograd functions, and transforms."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from support.helpers import assert_close
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import DeconvNet, Deconvolution, GuidedBackprop, LayerLRPTranspose, LRPTranspose, ModifiedBackprop
from plugin.errors import AttributionError, UnseenOperationError
from plugin.experiments.unit_survey import receptive_fields

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "deconvnet": Deconvolution,
    "guided": GuidedBackprop,
    "linear adjoint": lambda model: ModifiedBackprop(model, rule="linear adjoint"),
    "epsilon": LRPTranspose,
    "first layer": lambda model: LRPTranspose(model, "epsilon_plus_flat"),
    "alpha-beta": lambda model: LRPTranspose(model, "epsilon_alpha2_beta1"),
}


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model


class Gated(nn.Module):
    """Batch norm, a gate, and an activation written with a module, all of which the engine reads across modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.squeeze, self.gate = nn.Linear(6, 6), nn.Sigmoid()
        self.next, self.swish = nn.Conv2d(6, 6, 3), nn.Sigmoid()
        self.flatten, self.head = nn.Flatten(), nn.Linear(6 * 64, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.norm(self.conv(images)))
        hidden = hidden * self.gate(self.squeeze(hidden.mean((2, 3))))[..., None, None]
        hidden = self.next(hidden)
        return self.head(self.flatten(hidden * self.swish(hidden)))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent, self.head = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.flatten(2)[..., :7].transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.head(self.recurrent(tokens)[0][:, -1])


def look(*_: Any) -> None:
    """A hook that looks only."""


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "full backward": lambda module: module.register_full_backward_hook(look),
    "full backward pre": lambda module: module.register_full_backward_pre_hook(look),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", [Gated, Attending])
def test_a_hook_on_every_module_changes_no_map(build, method, hook) -> None:
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = METHODS[method](seeded(build)).attribute(images, 1)
    hooked = seeded(build)
    for module in hooked.modules():
        HOOKS[hook](module)
    assert_close(METHODS[method](hooked).attribute(images, 1), expected, 1e-9)


@pytest.mark.parametrize("layer", ["conv", "norm", "relu", "squeeze", "gate", "next", "flatten"])
def test_a_hook_on_every_module_changes_no_map_of_a_layer(layer) -> None:
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = LayerLRPTranspose(seeded(Gated), layer).attribute(images, 1)
    hooked = seeded(Gated)
    for module in hooked.modules():
        module.register_full_backward_hook(look)
    found = LayerLRPTranspose(hooked, layer).attribute(images, 1)
    assert (found - expected).abs().max() <= 1e-9 * max(1, float(expected.abs().max()))


def test_the_hooks_of_others_run() -> None:
    met: list[nn.Module] = []
    model = seeded(Gated)
    for module in model.modules():
        module.register_full_backward_hook(lambda module, *_: met.append(module))
    GuidedBackprop(model).attribute(torch.randn(1, 3, 12, 12, dtype=torch.float64), 1)
    assert {model.conv, model.norm, model.relu, model.squeeze, model.head} <= set(met)


class Passing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Tensor:
        return signals[0]


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "an assignment": lambda x: x.__setitem__((slice(None), 0), 0.0),
    "zeros": lambda x: x.zero_().add_(1),
    "a product": lambda x: x.mul_(2),
    "a view": lambda x: x[:, :3].mul_(2),
    "a copy": lambda x: x.copy_(F.relu(x)),
    "a ReLU": lambda x: F.relu(x, inplace=True),
    "two products": lambda x: x.mul_(2).mul_(3),
}


class Overwriting(nn.Module):
    """Overwrites a tensor, and goes on with the object that it had before."""

    def __init__(self, write: Callable[[Tensor], Any], passing: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.write, self.passing = nn.Linear(6, 8), nn.Linear(8, 3), write, passing

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.first(values)
        skip = hidden.sum(-1, keepdim=True)
        self.write(hidden)
        return self.last(Passing.apply(hidden) if self.passing else hidden) + skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("write", WRITES)
def test_a_hook_after_a_tensor_was_overwritten(write, method) -> None:
    values = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = METHODS[method](seeded(lambda: Overwriting(WRITES[write]))).attribute(values, 1)
    hooked = seeded(lambda: Overwriting(WRITES[write]))
    for module in (hooked, hooked.last):
        module.register_full_backward_hook(look)
    assert_close(METHODS[method](hooked).attribute(values, 1), expected, 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("write", [name for name in WRITES if name != "a ReLU"])  # which may really run in place
@pytest.mark.filterwarnings("ignore:the model calls a torch.autograd.Function")
def test_a_function_does_not_silently_read_what_was_overwritten(write, method) -> None:
    attribution = METHODS[method](seeded(lambda: Overwriting(WRITES[write], passing=True)))
    if isinstance(attribution, LRPTranspose):
        attribution.unknown = "gradient"
    with pytest.raises(UnseenOperationError, match=r"Passing.*x = x\.relu_\(\)"):
        attribution.attribute(torch.randn(2, 6, dtype=torch.float64), 1)


@pytest.mark.parametrize(
    "explain",
    [
        lambda model: DeconvNet(model, "last", (6,)),
        lambda model: receptive_fields(model, "last", (1, 1, 6), [(0, 0)]),
    ],
    ids=["DeconvNet", "receptive_fields"],
)
@pytest.mark.filterwarnings("ignore:the model calls a torch.autograd.Function")
def test_nor_in_a_walk_to_a_layer(explain) -> None:
    with pytest.raises(UnseenOperationError, match=r"Passing.*x = x\.relu_\(\)"):
        explain(seeded(lambda: Overwriting(WRITES["a product"], passing=True)).float())


def test_a_function_may_read_a_tensor_before_it_is_overwritten() -> None:
    class Before(Overwriting):
        def forward(self, values: Tensor) -> Tensor:
            hidden = self.first(values)
            passed = Passing.apply(hidden) if self.passing else hidden.clone()
            hidden.mul_(2)
            return self.last(hidden + passed)

    values = torch.randn(2, 6, dtype=torch.float64)
    found, expected = (GuidedBackprop(seeded(lambda passing=p: Before(len, passing))) for p in (True, False))
    with pytest.warns(UserWarning, match="Passing"):
        assert_close(found.attribute(values, 1), expected.attribute(values, 1), 1e-12)


class Ensemble(nn.Module):
    """Several networks at once, as the manual of `torch.func` writes them."""

    def __init__(self) -> None:
        super().__init__()
        members = [nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
        self.base = members[0]
        stacked, _ = torch.func.stack_module_state(members)
        self.stacked = nn.ParameterDict({name.replace(".", "_"): value for name, value in stacked.items()})

    def forward(self, values: Tensor) -> Tensor:
        def member(parameters: dict[str, Tensor]) -> Tensor:
            named = {name.replace("_", ".", 1): value for name, value in parameters.items()}
            result: Tensor = torch.func.functional_call(self.base, named, (values,))
            return result

        return torch.func.vmap(member)(dict(self.stacked)).mean(0)


@pytest.mark.parametrize("method", [Deconvolution, GuidedBackprop, LRPTranspose])
def test_an_ensemble_under_vmap_is_refused_with_the_remedy(method) -> None:
    with pytest.raises(AttributionError, match=r"torch\.func\.vmap"):
        method(seeded(Ensemble)).attribute(torch.randn(2, 6, dtype=torch.float64), 1)


class GramMatrix(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.func.vmap(lambda v: v @ v.T)(values.unflatten(1, (2, 3))).flatten(1)


def test_lrp_refuses_a_product_of_signals_under_vmap() -> None:
    with pytest.raises(AttributionError, match=r"matmul.*torch\.func\.vmap"):
        LRPTranspose(GramMatrix()).attribute(torch.randn(2, 6), 1)
    assert LRPTranspose(GramMatrix(), unknown="gradient").attribute(torch.randn(2, 6), 1).any()


@pytest.mark.parametrize("method", [Deconvolution, GuidedBackprop, LRPTranspose])
@pytest.mark.parametrize("overwrites", [False, True])
def test_operations_of_another_thread_are_refused(overwrites, method) -> None:
    class Threaded(Overwriting):
        def forward(self, values: Tensor) -> Tensor:
            hidden = self.first(values)
            if overwrites:
                hidden.mul_(2)
            with ThreadPoolExecutor(1) as other:
                function = self.last if overwrites else lambda tensor: self.last(F.relu(tensor))
                result: Tensor = other.submit(function, hidden).result()
            return result

    match = "another thread" if overwrites else "cannot be seen"
    with pytest.raises(AttributionError, match=match):
        method(seeded(lambda: Threaded(len))).attribute(torch.randn(2, 6, dtype=torch.float64), 1)


def by_autograd(values: Tensor, energy: Tensor) -> Tensor:
    return torch.autograd.grad(energy.sum(), values, create_graph=True)[0]


def by_backward(values: Tensor, energy: Tensor) -> Tensor:
    energy.sum().backward(inputs=[values], retain_graph=True)
    return torch.ones_like(values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("differentiate", [by_autograd, by_backward])
def test_a_gradient_in_the_forward_pass_is_refused(differentiate, method) -> None:
    class Energy(Overwriting):
        def forward(self, values: Tensor) -> Tensor:
            return values * differentiate(values, self.last(F.relu(self.first(values))))

    with pytest.raises(UnseenOperationError, match=r"Energy computes a gradient.*additional argument"):
        METHODS[method](seeded(lambda: Energy(len))).attribute(torch.randn(2, 6, dtype=torch.float64), 1)


@pytest.mark.parametrize("method", METHODS)
def test_so_is_one_by_a_transform(method) -> None:
    class Score(Overwriting):
        def forward(self, values: Tensor) -> Tensor:
            score: Tensor = torch.func.grad(lambda x: F.softplus(self.first(x)).sum())(values)
            return score[:, :3]

    with pytest.raises(UnseenOperationError, match=r"Score computes a gradient.*additional argument"):
        METHODS[method](seeded(lambda: Score(len))).attribute(torch.randn(2, 6, dtype=torch.float64), 1)


@pytest.mark.parametrize("activate", [F.relu, F.gelu, lambda x: x * torch.sigmoid(x)])
@pytest.mark.parametrize("method", [Deconvolution, GuidedBackprop])
def test_hooks_on_a_tensor_come_before_the_rule(method, activate) -> None:
    """A hook on the result of an activation sees, and may change, the signal before the activation's rule does."""

    class Reversing(Overwriting):
        def forward(self, values: Tensor) -> Tensor:
            hidden = activate(self.first(values))
            if self.passing:
                hidden.register_hook(lambda signal: -signal)
            return self.last(hidden)

    values = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    reversing, plain = (seeded(lambda passing=p: Reversing(len, passing)) for p in (True, False))
    with torch.no_grad():
        plain.last.weight.neg_()
    assert_close(method(reversing).attribute(values, 1), method(plain).attribute(values, 1), 1e-12)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.sign()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Tensor:
        return signals[0]


@torch.jit.script
def scripted_sign(values: Tensor) -> Tensor:
    return torch.sign(torch.relu(values)) * 2 - 1


BINARY: dict[str, Callable[[Tensor], Tensor]] = {
    "function": Sign.apply,
    "scaled function": lambda weight: Sign.apply(weight * 2) * 1.0,
    "multiple of a function": lambda weight: Sign.apply(weight) * weight.abs().sign(),
    "vmap": lambda weight: torch.func.vmap(torch.sign)(weight),
    "script": scripted_sign,
    "gradient": lambda weight: torch.func.grad(lambda w: (w * w.sign()).sum())(weight),
}


class Binary(nn.Module):
    """Weights of one bit, as networks for small devices are trained."""

    def __init__(self, binarise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.binarise = binarise
        self.first, self.gate, self.last = nn.Conv2d(3, 6, 3), nn.Parameter(torch.randn(6, 1, 1)), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(F.conv2d(images, self.binarise(self.first.weight), self.first.bias))
        hidden = hidden * self.binarise(self.gate)
        return F.linear(hidden.mean((2, 3)), self.binarise(self.last.weight))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("binarise", BINARY)
@pytest.mark.filterwarnings("error")
def test_what_is_computed_unseen_from_parameters_is_a_constant(binarise, method, images) -> None:
    expected = METHODS[method](seeded(lambda: Binary(torch.sign))).attribute(images.double(), 1)
    found = METHODS[method](seeded(lambda: Binary(BINARY[binarise]))).attribute(images.double(), 1)
    assert_close(found, expected, 1e-9)
