"""Every mistake gets one sentence that names the fault and the remedy, before work is lost."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import with_module
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    NeuronDeconvolution,
    NeuronGuidedBackprop,
)
from plugin.errors import NoRuleError, NotFiniteError


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return with_module(nn.ReLU())


@pytest.mark.parametrize(
    "target", [5, -6, (1, 2), [0, 5], [0], torch.tensor([0, 7]), torch.tensor([0, 1, 2]), [(0,), (9,)], 1.5, None]
)
def test_bad_targets_raise_assertion_errors(net, images, target) -> None:
    with pytest.raises(AssertionError):
        GuidedBackprop(net).attribute(images, target)


@pytest.mark.parametrize(
    ("target", "same"),
    [(-1, 4), (torch.tensor(3), 3), (torch.tensor([2]), 2), ([1, 1], 1), ((4,), 4), ([(2,), (2,)], 2)],
)
def test_every_form_of_target(net, images, target, same) -> None:
    expected = GuidedBackprop(net).attribute(images, same)
    torch.testing.assert_close(GuidedBackprop(net).attribute(images, target), expected)


def test_inputs_that_have_no_gradient(net, images) -> None:
    with pytest.raises(TypeError, match=r"input 0 is torch.int64.*floating point"):
        GuidedBackprop(net).attribute(images.long(), 1)
    with pytest.raises(TypeError, match="input 0 is a list"):
        GuidedBackprop(net).attribute(([1.0],), 1)
    with pytest.raises(ValueError, match="input 0 is empty"):
        GuidedBackprop(net).attribute(images[:0], 1)
    for value in (float("nan"), float("inf")):
        damaged = images.clone()
        damaged[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            Deconvolution(net).attribute(damaged, 1)
    damaged[0, 0, 0, :2] = torch.tensor([float("inf"), -float("inf")])
    with pytest.raises(ValueError, match="NaN or infinite"):
        Deconvolution(net).attribute(damaged, 1)


def test_large_inputs_are_finite_though_their_sum_is_not() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).requires_grad_(False)
    gradient = net[1].weight[1].view(1, 3, 8, 8)
    torch.testing.assert_close(GuidedBackprop(net).attribute(torch.full((1, 3, 8, 8), 3e38), 1), gradient)


class Quotient(nn.Module):
    """Divides by 0 where the first input is 0."""

    def forward(self, values: Tensor) -> Tensor:
        return values / values[:, :1].detach().round()


EXPLAINED: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "guided": lambda net, values: GuidedBackprop(net).attribute(values, 1),
    "neuron": lambda net, values: NeuronDeconvolution(net, "1").attribute(values, 1),
    "epsilon": lambda net, values: LRPTranspose(net, unknown="gradient").attribute(values, 1),
    "several targets": lambda net, values: LRPTranspose(net).attribute_targets(values, [1, 2]),
    "layer": lambda net, values: LayerLRPTranspose(net, "0").attribute(values, 1),
    "ledger": lambda net, values: LRPTranspose(net).ledger(values, 1),
}


@pytest.mark.parametrize("explain", EXPLAINED)
def test_outputs_that_are_not_finite(explain) -> None:
    net = nn.Sequential(nn.Linear(3, 3), Quotient(), nn.Linear(3, 3)).requires_grad_(False)
    net[0].weight.copy_(torch.eye(3))
    net[0].bias.zero_()
    values = torch.tensor([[1.0, 2.0, 3.0], [0.0, 2.0, 3.0]])
    with pytest.raises(NotFiniteError, match=r"example 1 is (nan|-?inf).*layer '1' \(Quotient\)\. Look for a division"):
        EXPLAINED[explain](net, values)
    net[2].weight[1, 0] = torch.nan
    if explain != "neuron":
        with pytest.raises(NotFiniteError, match=r"example 0 is nan.*weight of layer '2' \(Linear\) holds such values"):
            EXPLAINED[explain](net, values[:1])


def test_a_model_that_ignores_the_input(images) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight.expand(len(x), 3)

    with pytest.raises(ValueError, match="does not depend on the inputs"):
        GuidedBackprop(Constant()).attribute(images, 1)


def test_one_of_two_inputs_unused_is_zero(images) -> None:
    class Second(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return F.relu(second).sum(dim=(2, 3))

    unused, used = GuidedBackprop(Second()).attribute((images, images), 1)
    assert not unused.any()
    assert used.any()


@pytest.mark.parametrize("wrap", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(1, 3)), torch.compile])
@pytest.mark.parametrize("inside", [False, True])
def test_scripted_and_compiled_models_are_refused(wrap, inside) -> None:
    net = wrap(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval())
    model = nn.Sequential(net, nn.Flatten()) if inside else net
    with pytest.raises(ValueError, match=r"(scripted or traced|compiled): its operations cannot be seen"):
        GuidedBackprop(model)


@torch.jit.script
def scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def test_an_activation_that_cannot_be_seen_is_an_error() -> None:
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scripted_relu(x)

    with pytest.raises(RuntimeError, match="computes an activation"):
        GuidedBackprop(Hidden()).attribute(torch.randn(3, 4), 1)


def test_layers_and_neurons_that_do_not_exist(net, images) -> None:
    with pytest.raises(ValueError, match="not a module of the ActivationNet"):
        NeuronGuidedBackprop(net, nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"no layer 'conv9'; near are: .*conv"):
        NeuronDeconvolution(net, "conv9")
    with pytest.raises(ValueError, match="no layer 'last'"):
        GuidedGradCam(net, "last")
    for neuron in ((6, 0, 0), (0, 9, 0), (0, 0, 0, 0), 3):
        with pytest.raises(AssertionError, match=r"(layer|of layer) 'conv1'"):
            NeuronGuidedBackprop(net, net.conv1).attribute(images, neuron)


def test_a_layer_that_the_forward_pass_does_not_reach(images) -> None:
    net = with_module(nn.ReLU())
    net.spare = nn.Conv2d(3, 3, 1)
    for method in (NeuronGuidedBackprop, NeuronDeconvolution):
        with pytest.raises(ValueError, match=r"'spare'.* was not reached"):
            method(net, net.spare).attribute(images, (0, 0, 0))
    with pytest.raises(ValueError, match=r"'spare'.* was not reached"):
        GuidedGradCam(net, net.spare).attribute(images, 1)


def test_train_mode_warns_only_where_it_matters(images) -> None:
    plain = with_module(nn.ReLU()).train()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GuidedBackprop(plain).attribute(images, 1)
    for layer in (nn.Dropout(0.5), nn.Dropout2d(0.1), nn.BatchNorm2d(3)):
        model = nn.Sequential(layer, plain)
        with pytest.warns(UserWarning, match=r"'0' .* is in train mode"):
            GuidedBackprop(model).attribute(images, 1)


def test_the_model_must_be_a_module() -> None:
    with pytest.raises(AssertionError, match=r"nn\.Module"):
        GuidedBackprop(lambda x: x)


@pytest.mark.parametrize("method", [GuidedBackprop, LRPTranspose])
def test_an_empty_selection_is_no_map_of_zeros(method, images) -> None:
    class Detections(nn.Module):
        """Returns those values only that exceed a threshold, as detectors do."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(243, 5)

        def forward(self, images: Tensor) -> Tensor:
            scores = self.head(images.flatten(1))
            return scores[scores.amax(1) > 1e6]

    for target in (2, lambda found: found[:, 0]):
        with pytest.raises(AssertionError, match=r"\(0,\), which is not one value per example"):
            method(Detections()).attribute(images, target)


def test_a_refusal_names_the_whole_model_without_a_name(images) -> None:
    class Logarithm(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).log()

    with pytest.raises(NoRuleError, match=r"^log in the Logarithm has no LRP rule"):
        LRPTranspose(Logarithm()).attribute(images.abs() + 1, 2)
    with pytest.raises(NoRuleError, match=r"^log in layer '0' \(Logarithm\) has no LRP rule"):
        LRPTranspose(nn.Sequential(Logarithm())).attribute(images.abs() + 1, 2)
