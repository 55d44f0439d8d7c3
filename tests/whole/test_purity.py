"""An attribution leaves no trace on the model or the inputs, also when it raises, and threads may share a model."""

import threading
import warnings
from typing import Any

import pytest
import torch
from support.helpers import ActivationNet, assert_unchanged, snapshot, with_module
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, GuidedGradCam, NeuronDeconvolution, NeuronGuidedBackprop


class Awkward(nn.Module):
    """Overwrites its input, its input's views, its buffers and an additional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("table", torch.zeros(4, 2))

    def forward(self, images: Tensor, scale: Tensor | None = None, fail: bool = False) -> Tensor:
        images.sub_(0.1)
        images[:, 0].mul_(0.5)
        images[:, 1, 0] = 1.0
        self.calls += 1
        self.calls[0] = 7
        self.table[:, 0].copy_(torch.arange(4.0))
        self.table.view(-1).add_(1)
        if scale is not None:
            scale.mul_(2)
            scale.view(-1)[0].zero_()
        hidden = self.norm(self.conv(images))
        F.relu(hidden, inplace=True)
        hidden += self.table[:, :1, None]
        if fail:
            raise RuntimeError("the model failed")
        return self.head(hidden.mean(dim=(2, 3)))


def reference(net: Awkward, images: Tensor, scale: Tensor, target: int) -> Tensor:
    """The gradient of the same computation, written without overwriting anything."""
    leaf = images.clone().requires_grad_()
    factors = torch.ones_like(images)
    factors[:, 0] = 0.5
    mask = torch.ones_like(images)
    mask[:, 1, 0] = 0.0
    x = (leaf - 0.1) * factors * mask + (1 - mask)
    table = torch.zeros(4, 2)
    table[:, 0] = torch.arange(4.0)
    hidden = F.relu(net.norm(net.conv(x))) + (table + 1)[:, :1, None]
    (gradient,) = torch.autograd.grad(net.head(hidden.mean(dim=(2, 3)))[:, target].sum(), leaf)
    return gradient


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_of_an_overwriting_model_changes(training, frozen, images) -> None:
    torch.manual_seed(0)
    net = Awkward().train(training).requires_grad_(not frozen)
    scale = torch.tensor([2.0, 3.0])
    before, kept, given = snapshot(net), images.clone(), scale.clone()
    version, flags = images._version, (images.requires_grad, images.grad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            result = GuidedBackprop(net).attribute(images, 1, additional_forward_args=scale)
        with pytest.raises(RuntimeError, match="the model failed"):
            GuidedBackprop(net).attribute(images, 1, additional_forward_args=(scale, True))
        with pytest.raises(AssertionError, match="target 9"):
            Deconvolution(net).attribute(images, 9)
    assert_unchanged(before, net)
    assert torch.equal(images, kept)
    assert torch.equal(scale, given)
    assert (images._version, (images.requires_grad, images.grad)) == (version, flags)
    assert not result.requires_grad
    assert result.grad_fn is None


def test_overwriting_is_computed_as_pytorch_would(images) -> None:
    """The gradient comes from the plain engine below: GuidedBackprop equals it where no unit has negative signal."""
    torch.manual_seed(0)
    net = Awkward().eval()
    with torch.no_grad():
        net.head.weight.abs_()
        net.norm.weight.abs_()
    expected = reference(net, images, torch.ones(2), target=1)
    torch.testing.assert_close(GuidedBackprop(net).attribute(images, 1), expected)


def test_inputs_that_require_grad_or_come_from_inference_mode(images) -> None:
    net = with_module(nn.ReLU())
    expected = GuidedBackprop(net).attribute(images, 1)
    leaf = images.clone().requires_grad_()
    assert torch.equal(GuidedBackprop(net).attribute(leaf, 1), expected)
    assert leaf.grad is None
    with torch.inference_mode():
        assert torch.equal(GuidedBackprop(net).attribute(images.clone(), 1), expected)
    with torch.no_grad():
        assert torch.equal(GuidedBackprop(net).attribute(images, 1), expected)


def test_eight_threads_share_a_model_and_its_input(images) -> None:
    torch.manual_seed(0)
    net = ActivationNet(lambda index, x: F.relu_(x) if index else F.silu(x, inplace=True)).eval()

    calls: list[Any] = [
        lambda: GuidedBackprop(net).attribute(images, 1),
        lambda: Deconvolution(net).attribute(images, 1),
        lambda: GuidedBackprop(net).attribute(images, 3),
        lambda: NeuronGuidedBackprop(net, net.conv2).attribute(images, (2, 1, 1)),
        lambda: NeuronDeconvolution(net, net.conv1).attribute(images, (2, 1, 1)),
        lambda: GuidedGradCam(net, net.conv2).attribute(images, 2),
        lambda: NeuronDeconvolution(net, net.conv2).attribute(images, (0, 0, 3)),
        lambda: torch.autograd.grad(net(leaf := images.clone().requires_grad_())[:, 0].sum(), leaf)[0],
    ]
    expected = [call() for call in calls]
    before = snapshot(net)
    wrong: list[str] = []

    def work(index: int) -> None:
        try:
            for _ in range(25):
                if not torch.equal(calls[index](), expected[index]):
                    wrong.append(f"call {index} differs")
        except Exception as error:
            wrong.append(f"call {index}: {error!r}")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_unchanged(before, net)


def test_user_hooks_run_and_stay(images) -> None:
    net = with_module(nn.ReLU())
    seen: list[str] = []
    net.conv1.register_forward_hook(lambda module, args, output: seen.append("forward"))
    net.conv1.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append("backward"))
    before = snapshot(net)
    GuidedBackprop(net).attribute(images, 1)
    assert seen == ["forward", "backward"]
    assert_unchanged(before, net)
