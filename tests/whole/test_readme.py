"""The properties that the README claims, sentence by sentence."""

import threading
from collections.abc import Callable

import captum.attr
import pytest
import torch
from support.helpers import ActivationNet, assert_close, assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "Tensor.relu_": lambda x: x.relu_(),
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "maximum(x, 0)": lambda x: torch.maximum(x, torch.zeros(())),
    "threshold(0, 0)": lambda x: F.threshold(x, 0, 0),
}


def spelled(function: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return ActivationNet(lambda _, x: function(x)).eval()


def as_modules() -> nn.Module:
    torch.manual_seed(0)
    modules: list[nn.Module] = [nn.ReLU(), nn.ReLU()]
    return ActivationNet(lambda index, x: modules[index](x), modules).eval()


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
@pytest.mark.parametrize("name", SPELLINGS)
def test_relus_are_one_operation(name, method, images) -> None:
    expected = method(as_modules()).attribute(images, 1)
    assert_close(method(spelled(SPELLINGS[name])).attribute(images, 1), expected, 1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [captum.attr.GuidedBackprop, captum.attr.Deconvolution])
def test_captum_quietly_returns_the_plain_gradient_for_all_but_the_first(method, images) -> None:
    gradient = captum.attr.Saliency(as_modules()).attribute(images, 1, abs=False)
    assert not torch.allclose(method(as_modules()).attribute(images, 1), gradient)
    for function in SPELLINGS.values():
        assert_close(method(spelled(function)).attribute(images, 1), gradient, 1e-5)


@pytest.mark.parametrize(
    ("own", "by_hand"),
    [(F.silu, lambda x: x * torch.sigmoid(x)), (F.relu, lambda x: torch.where(x > 0, x, 0.0))],
)
def test_activations_written_by_hand_are_those_activations(own, by_hand, images) -> None:
    for method in (GuidedBackprop, Deconvolution, LRPTranspose):
        expected = method(spelled(own)).attribute(images, 1)
        assert_close(method(spelled(by_hand)).attribute(images, 1), expected, 1e-5)


@torch.jit.script
def hidden(x: Tensor) -> Tensor:
    return torch.relu(x)


def test_an_activation_that_cannot_be_seen_is_an_error(images) -> None:
    for method in (GuidedBackprop, Deconvolution):
        with pytest.raises(RuntimeError, match="where it cannot be seen"):
            method(spelled(lambda x: hidden(x))).attribute(images, 1)


def test_check_lists_every_operation_without_a_rule(images) -> None:
    check = LRPTranspose(spelled(lambda x: torch.cumprod(torch.fft.fft(x).real, 1))).check(images)
    assert {refusal.operation for refusal in check.refusals} >= {"cumprod"}


def test_nothing_is_touched_also_when_a_call_raises(images) -> None:
    net = spelled(F.relu)
    before = snapshot(net)
    for method in (GuidedBackprop(net), Deconvolution(net), LRPTranspose(net, "epsilon_plus_flat")):
        method.attribute(images, 1)
        with pytest.raises(IndexError):
            method.attribute(images, 99)
    assert_unchanged(before, net)


def test_threads_may_share_one_model(images) -> None:
    net = spelled(F.relu)
    methods = [GuidedBackprop(net), Deconvolution(net), LRPTranspose(net)]
    expected = [method.attribute(images, 1) for method in methods]
    found: list[Tensor] = [torch.empty(0)] * len(methods)

    def explain(index: int) -> None:
        for _ in range(5):
            found[index] = methods[index].attribute(images, 1)

    threads = [threading.Thread(target=explain, args=(index,)) for index in range(len(methods))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)


class AsTheyAre(nn.Module):
    """Everything that the README says networks may have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False)
        self.reused = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.attend = nn.MultiheadAttention(16, 2, bias=False, batch_first=True)
        self.recur = nn.LSTM(16, 6, batch_first=True, bias=False)
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.reused(F.relu(self.reused(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = torch.cat([x, x * gate[:, :, None, None]], 1).flatten(2).mT
        x = x + self.attend(x, x, x)[0]
        return self.head(self.recur(x)[0].mean(1))


def test_networks_as_they_are(images) -> None:
    torch.manual_seed(0)
    net = AsTheyAre().double().eval()
    inputs = images.double()
    relevance = LRPTranspose(net, "cp_lrp").attribute(inputs, 1)
    torch.testing.assert_close(relevance.sum((1, 2, 3)), net(inputs)[:, 1].detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
def test_a_method_is_one_forward_and_one_backward_pass(method, images) -> None:
    net, passes = spelled(F.relu), {"forward": 0, "backward": 0}

    def count(_: nn.Module, __: object, output: Tensor) -> None:
        passes["forward"] += 1
        output.register_hook(lambda signal: passes.update(backward=passes["backward"] + 1))

    handle = net.get_submodule("head").register_forward_hook(count)
    method(net).attribute(images, 1)
    handle.remove()
    assert passes == {"forward": 1, "backward": 1}
