"""Models as people write them (aliases, views, hooks, checkpoints, hidden operations) against their clean equivalent.

The expected values do not come from the engine: they are autograd's on the clean computation, with a ReLU whose
backward pass is written out, and for LRP-0 input times gradient.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose, ModifiedBackprop
from plugin.errors import AttributionError
from plugin.rules import Composite, Flat, Gamma, WSquare, ZBox
from plugin.rules.presets import epsilon_gamma_box

Relu = Callable[[Tensor], Tensor]


class GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        return signal.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class DeconvnetRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        return signal.clamp(min=0)


class Base(nn.Module):
    """Layers; `clean(x, relu)` computes the subclass's `forward` without any trick."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        nn.init.normal_(self.norm.running_mean, std=0.2)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        self.head = nn.Linear(6, 5)

    def classify(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.mean((2, 3)))


class ReusedAfterRelu(Base):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        torch.relu_(hidden)
        branch = self.second(hidden)
        branch.add_(hidden)
        F.relu(branch, inplace=True)
        return self.classify(branch)

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = relu(self.first(x))
        return self.classify(relu(self.second(hidden) + hidden))


class ShortcutIsOverwritten(Base):
    def forward(self, x: Tensor) -> Tensor:
        shortcut = hidden = self.norm(self.first(x))
        hidden = F.relu(hidden, inplace=True)
        return self.classify(self.second(hidden) + shortcut)

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = relu(self.norm(self.first(x)))
        return self.classify(self.second(hidden) + hidden)


class ReadBeforeOverwritten(Base):
    """By a pooling, which keeps nothing of it, and by a convolution, whose input plain autograd could not spare."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x))
        mean = hidden.mean((2, 3), keepdim=True)
        F.relu(hidden, inplace=True)
        total = hidden + mean
        branch = self.second(total)
        F.relu(total, inplace=True)
        F.relu(branch, inplace=True)
        return self.classify(branch + total)

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = self.norm(self.first(x))
        total = relu(hidden) + hidden.mean((2, 3), keepdim=True)
        return self.classify(relu(self.second(total)) + relu(total))


class ByKeyword(Base):
    def forward(self, x: Tensor) -> Tensor:
        hidden = F.conv2d(input=x, weight=self.first.weight, bias=self.first.bias, padding=1)
        norm = self.norm
        hidden = F.batch_norm(
            input=hidden,
            running_mean=norm.running_mean,
            running_var=norm.running_var,
            weight=norm.weight,
            bias=norm.bias,
        )
        hidden = F.relu(input=hidden, inplace=True)
        return F.linear(input=hidden.mean((2, 3)), weight=self.head.weight, bias=self.head.bias)

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        return self.classify(relu(self.norm(self.first(x))))


class ViewsAreWritten(Base):
    """Into a convolution's output, through views made before and after."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        turned = hidden.transpose(2, 3)
        hidden[:, 3:].mul_(0.5)
        hidden.view(len(x), -1)[:, 3] += 1
        turned.add_(0.1)
        return self.classify(self.second(F.relu(hidden + turned.transpose(2, 3))))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        scale = torch.tensor([1, 1, 1, 0.5, 0.5, 0.5]).view(1, 6, 1, 1)
        hidden = self.first(x) * scale
        hidden = hidden + F.one_hot(torch.tensor(3), hidden[0].numel()).view(hidden[0].shape) + 0.1
        return self.classify(self.second(relu(2 * hidden)))


class ViewsOfAnActivationAreWritten(Base):
    """Into values that the backward pass needs: PyTorch itself could not differentiate this."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        hidden[:, :3] *= 2
        hidden[:, [1, 4]] += hidden[:, [0, 5]]
        return self.classify(self.second(hidden))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        scale = torch.tensor([2, 2, 2, 1, 1, 1]).view(1, 6, 1, 1)
        one, two, three, four, five, six = (relu(self.first(x)) * scale).split(1, 1)
        return self.classify(self.second(torch.cat([one, two + one, three, four, five + six, six], 1)))


class ZerosAreWritten(Base):
    """Into views of zeros, which are no zeros then."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu_()
        turned = torch.zeros_like(hidden)
        turned[:, :3].copy_(hidden[:, 3:])
        turned[:, 3:].add_(hidden[:, :3])
        return self.classify(self.second(turned * turned.mean().detach()))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        turned = relu(self.first(x)).roll(3, 1)
        return self.classify(self.second(turned * turned.mean().detach()))


class ViewsSeeTheirBase(Base):
    """Views that were made before their base was overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x))
        some, others = hidden[:, :3], hidden[:, 3:]
        hidden.relu_()
        hidden = self.second(torch.cat([some, others], 1))
        flat, last = hidden.view(-1), hidden.permute(0, 2, 3, 1)
        hidden += 1
        flat.mul_(2)
        return self.classify(F.relu(last.permute(0, 3, 1, 2)))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        return self.classify(relu(2 * (self.second(relu(self.norm(self.first(x)))) + 1)))


class ViewsOfABuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(12.0).view(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        row, flat = self.table[0], self.table.view(-1)
        self.table[0, 1] = 9.0
        flat[2] = 7.0
        self.table.mul_(0.1)
        return self.classify(self.second(self.first(x).relu_() * row[:, None, None]))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        row = torch.tensor([0.0, 0.9, 0.7, 0.3, 0.4, 0.5])
        return self.classify(self.second(relu(self.first(x)) * row[:, None, None]))


class DetachedUnderItsView(Base):
    """A view that was made before keeps its graph."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        others = hidden[:, 3:]
        hidden.detach_()
        return self.classify(self.second(F.relu(torch.cat([hidden[:, :3], others], 1))))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = self.first(x)
        return self.classify(self.second(relu(torch.cat([hidden[:, :3].detach(), hidden[:, 3:]], 1))))


class Checkpointed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.classify(checkpoint(lambda h: F.relu(self.second(F.relu(h))), self.first(x), use_reentrant=False))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        return self.classify(relu(self.second(relu(self.first(x)))))


class BlocksInBlocks(Base):
    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(self.second, nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Sequential(block, block), nn.Sequential(block))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(self.first(x)))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = self.first(x)
        for _ in range(3):
            hidden = relu(self.second(hidden))
        return self.classify(hidden)


class OtherWeights(Base):
    """Weights that are computed, or come from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(True))
        self.parallel = nn.DataParallel(self.block)
        self.weight = nn.Parameter(torch.randn(6, 6, 3, 3) / 5)
        parametrizations.weight_norm(self.first)
        parametrizations.spectral_norm(self.second)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.first(x))).relu()
        hidden = torch.func.functional_call(self.block, {"0.weight": self.weight * 2}, (hidden,))
        return self.classify(self.parallel(hidden))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = relu(self.second(relu(self.first(x))))
        hidden = relu(F.conv2d(hidden, self.weight * 2, self.block[0].bias, padding=1))
        return self.classify(relu(self.block[0](hidden)))


class NormOverTokens(Base):
    """A linear layer's output channels are the last dimension, the batch norm's the second; here of equal size."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.tokens, self.last = nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(36, 5)
        nn.init.uniform_(self.tokens.weight, 0.2, 2)
        nn.init.normal_(self.tokens.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.tokens(self.linear(self.first(x).mean(2)))).flatten(1))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        return self.last(relu(self.tokens(self.linear(self.first(x).mean(2)))).flatten(1))


class Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda module, args, output: output * 2)
        self.second.register_forward_pre_hook(lambda module, args: (args[0].relu(),))
        self.second.register_full_backward_hook(lambda module, below, above: None)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.second(self.first(x)))

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        hidden = relu(2 * F.conv2d(x, self.first.weight, self.first.bias, padding=1))
        return self.classify(F.conv2d(hidden, self.second.weight, self.second.bias, padding=1))


class Autocast(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.classify(F.relu(self.second(self.first(x).relu_()))).float()

    def clean(self, x: Tensor, relu: Relu) -> Tensor:
        return self.classify(relu(self.second(relu(self.first(x)))))


MODELS = [
    ReusedAfterRelu,
    ShortcutIsOverwritten,
    ReadBeforeOverwritten,
    ByKeyword,
    ViewsAreWritten,
    ViewsOfAnActivationAreWritten,
    ZerosAreWritten,
    ViewsSeeTheirBase,
    ViewsOfABuffer,
    DetachedUnderItsView,
    Checkpointed,
]
MODELS += [BlocksInBlocks, OtherWeights, NormOverTokens, Hooked, Autocast]


def expected(net: Base, x: Tensor, relu: Relu) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net.clean(leaf, relu)[:, 2].sum(), leaf)[0]


def assert_near(actual: Tensor, wanted: Tensor, net: nn.Module) -> None:
    tolerance = 0.1 if isinstance(net, Autocast) else 1e-5
    assert (actual - wanted).norm() <= tolerance * wanted.norm()


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def net(request) -> Base:
    torch.manual_seed(0)
    return request.param().eval()


def test_equals_the_clean_computation(net, images) -> None:
    before, kept = snapshot(net), images.clone()
    guided, deconvnet = GuidedBackprop(net).attribute(images, 2), Deconvolution(net).attribute(images, 2)
    relevance = LRPTranspose(net, "lrp_0").attribute(images, 2)
    assert_unchanged(before, net)
    assert torch.equal(images, kept)
    assert_near(guided, expected(net, images, GuidedRelu.apply), net)
    assert_near(deconvnet, expected(net, images, DeconvnetRelu.apply), net)
    assert_near(relevance, images * expected(net, images, F.relu), net)


class Clean(nn.Module):
    def __init__(self, net: Base) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.clean(x, F.relu)


@pytest.mark.parametrize("rules", ["epsilon_plus_flat", epsilon_gamma_box(-4.0, 4.0)], ids=["flat", "box"])
def test_other_rules_see_the_clean_computation_too(rules, net, images) -> None:
    attribution = LRPTranspose(net, rules)
    assert_near(attribution.attribute(images, 2), LRPTranspose(Clean(net), rules).attribute(images, 2), net)
    ledger = attribution.ledger(images, 2)
    tolerance = 0.02 if isinstance(net, Autocast) else 1e-4
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=tolerance)


class Pyramid(nn.Module):
    """One weight, used with several dilations; or a copy of it for each."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(6, 3, 3, 3)
        self.weights = nn.ParameterList([nn.Parameter(weight.clone()) for _ in range(3 if copies else 1)])

    def forward(self, x: Tensor) -> Tensor:
        weights = list(self.weights) * (3 // len(self.weights))
        levels = [F.conv2d(x, w, padding=d, dilation=d) for d, w in enumerate(weights, start=1)]
        return torch.stack(levels).relu().sum(0).mean((2, 3))


@pytest.mark.parametrize("rule", [Flat(), WSquare(), ZBox(-4.0, 4.0), Gamma()], ids=str)
def test_a_weight_may_be_used_with_several_geometries(rule, images) -> None:
    one, three = (LRPTranspose(Pyramid(copies), Composite(default=rule)) for copies in (False, True))
    torch.testing.assert_close(one.attribute(images, 1), three.attribute(images, 1))


class Between(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution, self.function, self.head = nn.Conv2d(3, 4, 3), function, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.convolution(x)).mean((2, 3)))


@torch.jit.script
def scripted_gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return signal * torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))


HIDDEN = {"jit": scripted_gelu, "Function": Swish.apply, "vmap": torch.func.vmap(F.silu)}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_lrp_refuses_what_it_cannot_see(hidden, images) -> None:
    """The gradient must not stand in for a rule unless it was asked for."""
    with pytest.raises(NotImplementedError, match="where it cannot be seen"):
        LRPTranspose(Between(hidden)).attribute(images, 1)
    assert LRPTranspose(Between(hidden), unknown="gradient").attribute(images, 1).any()


def scripted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The computation of a module, in a scripted function; the model does not see the module itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        function = torch.jit.script(module.eval())
    return lambda x: function(x)


# Under LRP the gradient of the first is right as it is; the others have rules.
PIECEWISE_LINEAR: list[Callable[[], nn.Module]] = [nn.ReLU, nn.LeakyReLU, nn.RReLU, nn.PReLU]
CURVED: list[Callable[[], nn.Module]] = [nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus]
OTHERS_WITH_A_RULE: dict[str, Callable[[], nn.Module]] = {
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Hardsigmoid": nn.Hardsigmoid,
    "Conv2d": lambda: nn.Conv2d(4, 4, 1),
    "Linear": lambda: nn.Linear(7, 7),
    "LayerNorm": lambda: nn.LayerNorm(7),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
}


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
@pytest.mark.parametrize("activation", [*PIECEWISE_LINEAR, *CURVED], ids=lambda kind: kind.__name__)
def test_an_activation_in_a_scripted_function_is_refused(activation, method, images) -> None:
    with pytest.raises(RuntimeError, match="where it cannot be seen"):
        method(Between(scripted(activation()))).attribute(images, 1)


@pytest.mark.parametrize("make", [*CURVED, *OTHERS_WITH_A_RULE.values()], ids=lambda make: type(make()).__name__)
def test_lrp_refuses_each_operation_with_a_rule_in_a_scripted_function(make, images) -> None:
    with pytest.raises(NotImplementedError, match="where it cannot be seen"):
        LRPTranspose(Between(scripted(make()))).attribute(images, 1)


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR, ids=lambda kind: kind.__name__)
def test_under_lrp_what_needs_no_rule_may_be_in_a_scripted_function(activation, images) -> None:
    torch.manual_seed(0)
    hidden = Between(scripted(activation())).eval()
    seen = copy.copy(hidden)
    seen.function = activation().eval()
    expected = LRPTranspose(seen, "epsilon").attribute(images, 1)
    torch.testing.assert_close(LRPTranspose(hidden, "epsilon").attribute(images, 1), expected)


class Mish(torch.autograd.Function):
    """Computed by PyTorch's own function, which no rule gets to see here either."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.mish(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(F.mish(leaf), leaf, signal)[0]


def test_an_activation_in_a_function_of_the_users_is_not_taken_for_seen(images) -> None:
    with pytest.raises(NotImplementedError, match="where it cannot be seen"):
        LRPTranspose(Between(Mish.apply)).attribute(images, 1)
    for method in (GuidedBackprop, Deconvolution):
        with pytest.warns(UserWarning, match=r"calls a torch.autograd.Function \(Mish\)"):
            method(Between(Mish.apply)).attribute(images, 1)


class Spike(torch.autograd.Function):
    """1 above 0, with the slope of a smooth function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        return signal / (1 + ctx.saved_tensors[0].abs()) ** 2


@pytest.mark.filterwarnings("ignore:the model calls a torch.autograd.Function")
def test_a_function_of_the_users_keeps_its_backward_pass_among_pointwise_operations(images) -> None:
    def fire(x: Tensor) -> Tensor:
        first = Spike.apply(x - 0.1)
        return first + Spike.apply(0.9 * x - first.detach())

    net, leaf = Between(fire), images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    for method in (GuidedBackprop, Deconvolution):
        torch.testing.assert_close(method(net).attribute(images, 1), gradient)


def test_the_ledger_of_a_model_that_activates_without_a_gradient(images) -> None:
    def choose(x: Tensor) -> Tensor:
        with torch.no_grad():
            channel = F.gelu(x).mean((2, 3)).softmax(1)
        return F.relu(x) * channel[..., None, None]

    ledger = LRPTranspose(Between(choose)).ledger(images, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-5)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
def test_a_part_that_is_computed_once_more_is_refused(method, images) -> None:
    net = Between(lambda x: checkpoint(F.relu, x, use_reentrant=True))
    with pytest.raises(AttributionError, match="use_reentrant=True where it cannot be seen: pass use_reentrant=False"):
        method(net).attribute(images, 1)
    (refusal,) = LRPTranspose(net).check(images).refusals
    assert "use_reentrant=False" in refusal.remedy


# Activations of which the engine sees that values are written by a mask, and no more.
BY_MASK: dict[str, Callable[[Tensor], Tensor]] = {
    "assignment": lambda x: torch.zeros_like(x).index_put_((x > 0,), x[x > 0]),
    "places": lambda x: torch.zeros_like(x).index_put((x > 0).nonzero(as_tuple=True), x[x > 0]),
    "where": lambda x: x.index_put(torch.where(x < 0), torch.zeros(())),
    "masked_scatter": lambda x: torch.zeros_like(x).masked_scatter(x > 0, x[x > 0]),
}


@pytest.mark.parametrize("write", BY_MASK.values(), ids=BY_MASK)
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_values_written_by_a_mask_warn(method, write, images) -> None:
    with pytest.warns(UserWarning, match=r"assigns values selected by a mask.*torch.where"):
        method(Between(write)).attribute(images, 1)


@pytest.mark.parametrize("reduce", ["prod", "multiply"])
def test_values_that_are_multiplied_at_one_place_are_refused(reduce, images) -> None:
    def multiply(x: Tensor) -> Tensor:
        places = torch.zeros_like(x, dtype=torch.long)
        if reduce == "multiply":
            return torch.scatter(x, 1, places[:, :1], 2.0, reduce=reduce) * 1.0
        return torch.ones_like(x).scatter_reduce(1, places, x, reduce)

    with pytest.raises(NotImplementedError, match="scatter"):
        LRPTranspose(Between(multiply)).attribute(images, 1)


# Of some steps PyTorch has no derivative.
STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "heaviside": lambda x: x * torch.heaviside(x - 0.2, torch.zeros(())),
    "//": lambda x: x * (1 + (x - 0.2) // 1e6),
    "rounding": lambda x: x * (1 + torch.div(x - 0.2, 1e6, rounding_mode="floor")),
}


@pytest.mark.parametrize("choose", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
def test_a_step_that_chooses(method, choose, images) -> None:
    net = Between(lambda x: torch.where(x > 0.2, x, 0.0))
    expected = method(net).attribute(images, 1)
    net.function = choose
    torch.testing.assert_close(method(net).attribute(images, 1), expected)


DIVISIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "/": lambda x: x / (x.flip(1) + 3),
    "method": lambda x: x.div(x.flip(1) + 3),
    "function": lambda x: torch.div(x, x.flip(1) + 3),
    "true_divide": lambda x: torch.true_divide(x, x.flip(1) + 3),
    "a constant": lambda x: torch.ones_like(x) / (x + 3),
    "in place": lambda x: (x * 1.0).div_(x.flip(1) + 3),
    "reciprocal": lambda x: x * (x + 3).reciprocal(),
}


@pytest.mark.parametrize("divide", DIVISIONS.values(), ids=DIVISIONS)
def test_lrp_refuses_to_divide_by_a_signal(divide, images) -> None:
    """The relevance of a divisor has no known meaning; its gradient would give it as much as it takes away."""
    with pytest.raises(NotImplementedError, match=r"div|reciprocal"):
        LRPTranspose(Between(divide)).attribute(images, 1)


def test_lrp_divides_by_a_constant(images) -> None:
    torch.manual_seed(0)
    net = Between(lambda x: x / torch.arange(1.0, 5).view(4, 1, 1))
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(LRPTranspose(net, "lrp_0").attribute(images, 1), images * gradient)


BERNOULLI: dict[str, Callable[[Tensor], Tensor]] = {
    # The values that are overwritten are no probabilities, though `Tensor.bernoulli` would read them as such.
    "overwritten zeros": lambda x: torch.zeros_like(x).bernoulli_(),
    "overwritten numbers": lambda x: torch.full_like(x, 7.0).bernoulli_(),
    "probability": lambda x: torch.zeros_like(x).bernoulli_(0.3),
    "probabilities": lambda x: torch.zeros_like(x).bernoulli_(torch.full_like(x, 0.8)),
    "through a view": lambda x: torch.zeros_like(x).flatten().bernoulli_().view_as(x),
}


@pytest.mark.parametrize("draw", BERNOULLI.values(), ids=BERNOULLI)
def test_a_random_mask_is_the_models_own(draw, images) -> None:
    """The same numbers for the same seed, with and without rules."""
    torch.manual_seed(0)
    net = Between(lambda x: F.relu(x) * draw(x))
    leaf = images.clone().requires_grad_()
    torch.manual_seed(5)
    (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    assert gradient.any()
    for attribution, expected in (
        (LRPTranspose(net, "lrp_0"), images * gradient),
        (ModifiedBackprop(net, "gradient"), gradient),
    ):
        for _ in range(2):
            torch.manual_seed(5)
            torch.testing.assert_close(attribution.attribute(images, 1), expected)


def test_a_custom_function_is_said_to_keep_its_own_backward_pass(images) -> None:
    with pytest.warns(UserWarning, match=r"calls a torch.autograd.Function \(Swish\)"):
        GuidedBackprop(Between(Swish.apply)).attribute(images, 1)
    hooked = Between(F.relu)
    hooked.convolution.register_full_backward_hook(lambda module, below, above: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GuidedBackprop(hooked).attribute(images, 1)


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
def test_inference_mode_and_parameters_without_shape(method, images) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Between(F.relu)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.net(x * scale)

    model = Scaled()
    wanted = method(model).attribute(images, 1, torch.full((1,), 2.0))
    with torch.inference_mode():
        torch.testing.assert_close(method(model).attribute(images * 1, 1, torch.full((1,), 2.0)), wanted)
        frozen = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"weight of 'net.convolution' .* inference mode"):
        method(frozen)
    with pytest.raises(ValueError, match=r"weight of '0' .* has no shape yet"):
        method(nn.Sequential(nn.LazyConv2d(4, 3)))
