"""The classes behave as Captum's do, and Captum's tools work on them."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import captum.attr
import matplotlib as mpl
import pytest
import torch
from captum.attr import NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from support.helpers import with_module
from torch import Tensor, nn

import plugin.attr
from plugin.attr import Deconvolution, GuidedBackprop, GuidedGradCam, NeuronDeconvolution, NeuronGuidedBackprop

CLASSES = ["Deconvolution", "GuidedBackprop", "GuidedGradCam", "NeuronDeconvolution", "NeuronGuidedBackprop"]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return with_module(nn.ReLU(), nn.ReLU())


@pytest.mark.parametrize("name", CLASSES)
def test_signatures_accept_every_call_that_captums_do(name) -> None:
    ours, theirs = getattr(plugin.attr, name), getattr(captum.attr, name)
    for method in ("__init__", "attribute"):
        expected = list(inspect.signature(getattr(theirs, method)).parameters.values())
        actual = list(inspect.signature(getattr(ours, method)).parameters.values())
        named = {parameter.name: parameter for parameter in actual}
        for position, parameter in enumerate(expected):
            assert named[parameter.name].default == parameter.default
            assert actual[position].name == parameter.name


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_that_captum_code_reads(name, net, images) -> None:
    layer = [net.conv2] if "Neuron" in name or "GradCam" in name else []
    method = getattr(plugin.attr, name)(net, *layer)
    assert isinstance(method, captum.attr.GradientAttribution)
    assert method.forward_func is net
    assert method.model is net
    assert callable(method.gradient_func)
    assert callable(method.attribute.__wrapped__)
    assert not method.has_convergence_delta()
    assert not method.multiplies_by_inputs
    with pytest.raises(NotImplementedError):
        method.attribute_future()


def test_tuple_in_tuple_out(net, images) -> None:
    for method in (GuidedBackprop(net), Deconvolution(net), GuidedGradCam(net, net.conv2)):
        single = method.attribute(images, 1)
        (wrapped,) = method.attribute((images,), 1)
        assert isinstance(single, Tensor)
        assert torch.equal(single, wrapped)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("at_input", [False, True])
def test_guided_grad_cam_equals_captums(net, images, mode, at_input) -> None:
    arguments = (images, 3, None, mode, at_input)
    expected = captum.attr.GuidedGradCam(net, net.conv2).attribute(*arguments)
    torch.testing.assert_close(GuidedGradCam(net, "conv2").attribute(*arguments), expected)
    assert expected.any()


def test_noise_tunnel(net, images) -> None:
    for ours, theirs in ((GuidedBackprop, captum.attr.GuidedBackprop), (Deconvolution, captum.attr.Deconvolution)):
        torch.manual_seed(0)
        result = NoiseTunnel(ours(net)).attribute(images, nt_samples=4, stdevs=0.1, target=2)
        torch.manual_seed(0)
        expected = NoiseTunnel(theirs(net)).attribute(images, nt_samples=4, stdevs=0.1, target=2)
        torch.testing.assert_close(result, expected)
    neuron = NeuronGuidedBackprop(net, net.conv2)
    smooth = NoiseTunnel(neuron).attribute(images, nt_samples=2, neuron_selector=(1, 1, 1))
    assert smooth.shape == images.shape


def test_metrics(net, images) -> None:
    for method in (GuidedBackprop(net), NeuronDeconvolution(net, net.conv2)):
        extra = {"target": 1} if isinstance(method, GuidedBackprop) else {"neuron_selector": (0, 1, 1)}
        assert sensitivity_max(method.attribute, images, n_perturb_samples=2, **extra).shape == (2,)

    def perturb(values: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.full_like(values, 0.01)
        return noise, values - noise

    score = infidelity(net, perturb, images, GuidedBackprop(net).attribute(images, 1), target=1)
    assert score.isfinite().all()


def test_visualization(net, images) -> None:
    mpl.use("Agg")
    attribution = GuidedBackprop(net).attribute(images, 1)[0].permute(1, 2, 0).numpy()
    figure, _ = visualization.visualize_image_attr(attribution, sign="all", show_colorbar=True, use_pyplot=False)
    assert len(figure.axes) == 2


def test_captums_own_tests() -> None:
    """Runs them with our classes in place of Captum's where CAPTUM_TESTS names a folder prepared for that."""
    folder = os.environ.get("CAPTUM_TESTS")
    if not folder:
        pytest.skip("set CAPTUM_TESTS to a checkout of Captum's tests whose conftest replaces the classes when OURS=1")
    environment = os.environ | {"OURS": "1", "OURS_ROOT": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "pytest", "-q", "tests"]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:]
