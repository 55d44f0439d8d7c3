"""Writes that autograd does not see, into memory that tensors share: values change, and graphs stay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import assert_close, assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose

VALUES = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Map = Callable[[nn.Module], Tensor]
METHODS: dict[str, Map] = {
    "deconvnet": lambda model: Deconvolution(model).attribute(VALUES, 1),
    "guided": lambda model: GuidedBackprop(model).attribute(VALUES, 1),
    "lrp_0": lambda model: LRPTranspose(model, "lrp_0").attribute(VALUES, 1),
    "z+": lambda model: LRPTranspose(model, "epsilon_plus_flat").attribute(VALUES, 1),
}


class ReluWithRule(torch.autograd.Function):
    """A ReLU with the backward rule of a method, for the reference by PyTorch alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, method: str) -> Tensor:
        ctx.save_for_backward(values)
        ctx.method = method
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None]:
        mask = ctx.saved_tensors[0] > 0
        positive = signals[0].clamp(min=0)
        return {"deconvnet": positive, "guided": positive * mask, "lrp_0": signals[0] * mask}[ctx.method], None


class Between(nn.Module):
    """`between` of a layer's result and of the network, before a layer with a ReLU."""

    def __init__(self, between: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.next, self.last = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)
        self.register_buffer("scale", torch.linspace(0.5, 2, 8))
        self.between, self.relu = between, F.relu
        self.double().eval()

    def forward(self, values: Tensor) -> Tensor:
        return self.last(self.relu(self.next(self.between(self.first(values), self) * self.scale)))


def by_pytorch(between: Callable[[Tensor, Any], Tensor], method: str) -> Tensor:
    model, leaf = Between(between), VALUES.clone().requires_grad_()
    model.relu = lambda values: ReluWithRule.apply(values, method)  # type: ignore[method-assign, assignment]
    (signal,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    return signal * VALUES if method == "lrp_0" else signal


def then(_: Any, hidden: Tensor) -> Tensor:
    return hidden


def without_gradient(write: Callable[[Tensor], Any]) -> Callable[[Tensor, Any], Tensor]:
    def between(hidden: Tensor, _: Any) -> Tensor:
        with torch.no_grad():
            write(hidden)
        return hidden

    return between


def into_detached_zeros(hidden: Tensor, _: Any) -> Tensor:
    zeros = torch.zeros_like(hidden).detach()
    zeros[:, :3] = hidden[:, :3]
    zeros[:, 3:].copy_(2 * hidden[:, 3:])
    return zeros


def into_detached_values(hidden: Tensor, _: Any) -> Tensor:
    detached = hidden.detach()
    detached[:, :3].add_(hidden[:, :3])
    return detached + hidden


def under_a_view(hidden: Tensor, _: Any) -> Tensor:
    detached = hidden.detach()
    view = detached[:, :3]
    hidden.mul_(2)
    view.add_(1)
    return detached * 1.0 + hidden


WRITES: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "h.data.mul_": lambda h, _: then(h.data.mul_(2), h),
    "h.data[...] =": lambda h, _: then(h.data.__setitem__((slice(None), 0), 0.0), h),
    "h.data =": lambda h, _: then(setattr(h, "data", h.data.clamp(min=0)), h),
    "h.data.clamp_": lambda h, _: then(h.data.clamp_(min=0), h),
    "h.data.copy_": lambda h, _: then(h.data.copy_(h.data.clamp(min=0)), h),
    "h.detach().mul_": lambda h, _: then(h.detach().mul_(2), h),
    "a view of h.data": lambda h, _: then(h.data.view(-1)[1].fill_(6.0), h),
    "torch.detach": lambda h, _: then(torch.detach(h.view(-1))[:9].mul_(-1), h),
    "no_grad: mul_": without_gradient(lambda h: h.mul_(2)),
    "no_grad: h[...] =": without_gradient(lambda h: h.__setitem__((slice(None), 0), 0.0)),
    "no_grad: view": without_gradient(lambda h: h[:, :2].mul_(0)),
    "no_grad: copy_": without_gradient(lambda h: h.copy_(h.clamp(min=0))),
    "into detached zeros": into_detached_zeros,
    "into detached values": into_detached_values,
    "under a view": under_a_view,
}


@pytest.mark.parametrize("method", ["deconvnet", "guided", "lrp_0"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.filterwarnings("ignore:.*assigns values selected by a mask")
def test_a_write_that_autograd_does_not_see(write, method) -> None:
    assert_close(METHODS[method](Between(WRITES[write])), by_pytorch(WRITES[write], method), 1e-9)


@pytest.mark.parametrize(
    "write", ["h.data.mul_", "h.data.clamp_", "a view of h.data", "no_grad: mul_", "no_grad: view"]
)
def test_a_recording_has_such_writes_too(write) -> None:
    model = Between(WRITES[write])
    expected = METHODS["guided"](model)
    attribution = GuidedBackprop(model)
    assert_close(attribution.compile().attribute(VALUES, 1), expected, 1e-9)
    assert_close(attribution.attribute(VALUES, 1, create_graph=True).detach(), expected, 1e-9)


def test_the_ledger_counts_it_as_a_constant() -> None:
    ledger = LRPTranspose(Between(WRITES["h.data.mul_"]), "lrp_0").ledger(VALUES, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-9)


def limited(model: Any) -> Tensor:
    return model.next.weight.clamp(-0.1, 0.1)


def limits_in_place(model: Any) -> None:
    with torch.no_grad():
        model.next.weight.clamp_(-0.1, 0.1)


LIMITS: dict[str, Callable[[Any], Any]] = {
    "w.data.clamp_": lambda model: model.next.weight.data.clamp_(-0.1, 0.1),
    "w.data =": lambda model: setattr(model.next.weight, "data", limited(model).detach()),
    "w.data.copy_": lambda model: model.next.weight.data.copy_(limited(model)),
    "w.data[...] =": lambda model: model.next.weight.data.__setitem__(..., limited(model)),
    "w.detach().clamp_": lambda model: model.next.weight.detach().clamp_(-0.1, 0.1),
    "rows of w.data": lambda model: [row.clamp_(-0.1, 0.1) for row in model.next.weight.data],
    "no_grad: w.clamp_": limits_in_place,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_network_that_limits_its_weights(limit, method) -> None:
    expected = Between(lambda hidden, _: hidden)
    with torch.no_grad():
        expected.next.weight.clamp_(-0.1, 0.1)
    model = Between(lambda hidden, model: then(LIMITS[limit](model), hidden))
    before = snapshot(model)
    assert_close(METHODS[method](model), METHODS[method](expected), 1e-9)
    assert_unchanged(before, model)


def test_a_network_that_scales_a_buffer() -> None:
    expected = Between(lambda hidden, _: 2 * hidden)
    model = Between(lambda hidden, model: then(model.scale.data.mul_(2), hidden))
    before = snapshot(model)
    assert_close(METHODS["guided"](model), METHODS["guided"](expected), 1e-9)
    assert_unchanged(before, model)


def test_a_list_of_tensors_is_overwritten() -> None:
    def scaled(hidden: Tensor, model: Any) -> Tensor:
        with torch.no_grad():
            torch._foreach_mul_([model.next.weight, model.next.bias], 0.5)
        return hidden

    expected, model = Between(lambda hidden, _: hidden), Between(scaled)
    with torch.no_grad():
        torch._foreach_mul_([expected.next.weight, expected.next.bias], 0.5)
    before = snapshot(model)
    for method in METHODS.values():
        assert_close(method(model), method(expected), 1e-9)
    assert_unchanged(before, model)


class Spike(torch.autograd.Function):
    """A step with a surrogate gradient, as spiking networks are trained with it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Tensor:
        return signals[0] / (10 * ctx.saved_tensors[0].abs() + 1) ** 2


class SpikeIntoZeros(Spike):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        result = torch.zeros_like(values)
        result[values > 0] = 1.0
        return result


class SpikeIntoClone(Spike):
    @staticmethod
    def forward(values: Tensor) -> Tensor:  # type: ignore[override]
        result = values.clone()
        result.gt_(0)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)


@pytest.mark.parametrize("method", [Deconvolution, GuidedBackprop])
@pytest.mark.parametrize("spike", [SpikeIntoZeros, SpikeIntoClone])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.filterwarnings("ignore:the model calls a torch.autograd.Function")
def test_a_function_of_the_users_returns_what_it_overwrote(skips, spike, method) -> None:
    found, expected = (
        method(Between(lambda hidden, _, of=one: of.apply(hidden) + skips * hidden)).attribute(VALUES, 1)
        for one in (spike, Spike)
    )
    assert_close(found, expected, 1e-12)


class DoubledInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values.mul_(2)
        ctx.mark_dirty(values)
        return values

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Tensor:
        return 2 * signals[0]


@pytest.mark.parametrize("method", ["deconvnet", "guided"])
@pytest.mark.filterwarnings("ignore:the model calls a torch.autograd.Function")
def test_a_function_of_the_users_overwrites_its_argument(method) -> None:
    expected = METHODS[method](Between(lambda hidden, _: 2 * hidden))
    assert_close(METHODS[method](Between(lambda hidden, _: then(DoubledInPlace.apply(hidden), hidden))), expected, 1e-9)


# -- tensors from before the forward pass ------------------------------------------------------------------------------

OUTSIDE = torch.zeros(2, 8, dtype=torch.float64)


class Remembering(Between):
    """Holds tensors that are neither parameters nor buffers, and writes into them."""

    def __init__(self, write: Callable[[Any, Tensor], Any]) -> None:
        super().__init__(lambda hidden, model: then(write(model, hidden), hidden))
        self.plain, self.listed = torch.zeros(2, 8).double(), [torch.zeros(8).double()]
        self.named = {"some": torch.zeros(2, 8).double()}

    def held(self) -> list[Tensor]:
        return [self.plain, *self.listed, *self.named.values(), OUTSIDE]


MEMORIES: dict[str, Callable[[Any, Tensor], Any]] = {
    "a row": lambda model, _: model.plain[0].add_(1),
    "rows": lambda model, hidden: model.plain[:, 1:].copy_(hidden[:2, 1:]),
    "the whole": lambda model, _: model.plain.add_(1),
    "assignment": lambda model, hidden: model.plain.__setitem__(0, hidden[0]),
    "augmented": lambda model, _: setattr(model, "plain", model.plain.__iadd__(1)),
    "a view of it": lambda model, _: model.plain.view(-1)[3:].mul_(0).add_(2),
    "its data": lambda model, _: model.plain.data[0].add_(1),
    "of a list": lambda model, _: model.listed[0][2:].add_(1),
    "of a dictionary": lambda model, hidden: model.named["some"][0].copy_(hidden[0]),
    "of the program": lambda _, hidden: OUTSIDE[0].copy_(hidden[0]),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("write", MEMORIES)
def test_no_tensor_from_before_is_written_into(write, method) -> None:
    model = Remembering(MEMORIES[write])
    objects, values = model.held(), [tensor.clone() for tensor in model.held()]
    METHODS[method](model)
    assert all(found is held for found, held in zip(model.held(), objects, strict=True))
    assert all(torch.equal(found, value) for found, value in zip(model.held(), values, strict=True))
    assert not any(tensor.requires_grad for tensor in model.held())


class Generated(Between):
    """Uses a weight and a shift that were computed by other layers, at an earlier call."""

    def __init__(self, earlier: bool) -> None:
        super().__init__(self.generate)
        self.make = nn.Linear(4, 64).double()
        self.earlier, self.made = earlier, torch.zeros(0)

    def generate(self, hidden: Tensor, _: Any) -> Tensor:
        if not self.made.numel():
            made = torch.tanh(self.make(torch.ones(4, dtype=torch.float64))).view(8, 8)
            self.made = made if self.earlier else made.detach()
        return F.linear(hidden * self.made[0], self.made) + F.relu(self.made).sum(0)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_computed_earlier_is_a_constant(method) -> None:
    model, expected = Generated(earlier=True), Generated(earlier=False)
    model(VALUES)
    assert model.made.requires_grad
    made = model.made
    assert_close(METHODS[method](model), METHODS[method](expected), 1e-9)
    assert model.made is made


@pytest.mark.parametrize("method", [GuidedBackprop, LRPTranspose])
def test_an_additional_argument_with_a_graph_is_a_constant(method) -> None:
    class Product(Between):
        def forward(self, values: Tensor, other: Tensor = VALUES) -> Tensor:
            return self.last(F.relu(self.next(self.first(values) * other)))

    model = Product(lambda hidden, _: hidden)
    weights = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    other = torch.tanh(weights)
    found = method(model).attribute(VALUES, 1, additional_forward_args=other)
    expected = method(model).attribute(VALUES, 1, additional_forward_args=other.detach())
    assert_close(found, expected, 1e-12)
    assert weights.grad is None
