"""Compiled and exported attributions: the same maps as the attribution's own, and a sentence where that cannot be."""

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import assert_close, assert_unchanged, error_between, slow, snapshot
from support.recorded import ATTRIBUTIONS, images, network
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from plugin import accelerate
from plugin.attr import (
    GuidedBackprop,
    LRPTranspose,
    NeuronGuidedBackprop,
    NeuronLRPTranspose,
)
from plugin.kernels.tracing import tracing

EXPORTED = ["guided", "deconvnet", "epsilon_gamma_box"]


@pytest.fixture(scope="module")
def guided() -> accelerate.CompiledAttribution:
    """Guided backprop of a network that no test changes."""
    return accelerate.compile(GuidedBackprop(network()), images(0), 0, mode="aten")


def normalised_network() -> nn.Sequential:
    """Few operations: generating code takes seconds for each."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.running_mean, std=0.3)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    return net.eval()


@pytest.fixture(scope="module", params=[("epsilon", torch.float32, 1e-6), ("epsilon_plus_flat", torch.float64, 1e-12)])
def fused(request: Any) -> tuple[LRPTranspose, accelerate.CompiledAttribution, torch.dtype, float]:
    """Epsilon in float32, where a rounding in the forward pass would show; and float64, which shows that it is that.

    With the type of the inputs and the largest difference.
    """
    preset, dtype, tolerance = request.param
    attribution = LRPTranspose(normalised_network().to(dtype), rules=preset)
    return attribution, accelerate.compile(attribution, images(0).to(dtype), 0), dtype, tolerance


def test_an_attribution_compiles_itself_at_its_first_call() -> None:
    attribution = LRPTranspose(network(), rules="epsilon_plus_flat")
    compiled = attribution.compile()
    for seed, count in ((0, 2), (1, 2)):
        assert_close(compiled.attribute(images(seed, count), 3), attribution.attribute(images(seed, count), 3))
    with pytest.warns(UserWarning, match="compiling for these too"):
        assert_close(compiled.attribute(images(2, 3), 3), attribution.attribute(images(2, 3), 3))
    with pytest.raises(TypeError, match=r"compiled for inputs of torch\.float32"):
        compiled.attribute(images(0).double(), 3)
    with pytest.raises(ValueError, match="choose one of aten, graph, inductor, cudagraph"):
        attribution.compile(mode="fast")


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_recorded_operations_give_the_same_map(name: str) -> None:
    attribution = ATTRIBUTIONS[name](network())
    before = snapshot(attribution.model)
    compiled = accelerate.compile(attribution, images(0), 0, mode="aten")
    assert_unchanged(before, attribution.model)
    found = compiled.attribute(images(1), [3, 1])
    with tracing():  # convolutions stay convolutions
        assert torch.equal(found, attribution.attribute(images(1), [3, 1]))
    # Else some are products of matrices, which sum in another order.
    assert_close(found, attribution.attribute(images(1), [3, 1]), 1e-6)


@pytest.mark.timeout(900)  # the compiler's own time, on a machine that has other work
def test_generated_code_gives_the_same_map(fused: Any) -> None:
    attribution, compiled, dtype, tolerance = fused
    for seed, target in ((1, 2), (2, [4, 0])):
        given = images(seed).to(dtype)
        relevance, delta = compiled.attribute(given, target, return_convergence_delta=True)
        expected = attribution.attribute(given, target, return_convergence_delta=True)
        assert_close(relevance, expected[0], tolerance)
        assert_close(delta, expected[1], 100 * tolerance)


@pytest.mark.timeout(900)
def test_generated_code_sees_new_weights(fused: Any) -> None:
    attribution, compiled, dtype, tolerance = fused
    with torch.no_grad():
        attribution.model[0].weight.neg_()
        attribution.model[1].running_var.mul_(3)
    given = images(1).to(dtype)
    assert_close(compiled.attribute(given, 1), attribution.attribute(given, 1), tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_fusable_operations_rounds_as_on_a_cpu(layout: torch.memory_format, affine: bool) -> None:
    """One rounding of another kind turns a unit on or off."""
    from plugin.accelerate.graphs import as_on_a_cpu

    random = torch.Generator().manual_seed(0)
    value = torch.randn(2, 9, 19, 23, generator=random).contiguous(memory_format=layout)
    weight, bias, mean = (torch.randn(9, generator=random) for _ in range(3))
    variance = torch.rand(9, generator=random) + 0.1
    arguments = (weight if affine else None, bias if affine else None, mean, variance, False, 0.1, 1e-5)
    expected = torch.ops.aten.native_batch_norm.default(value, *arguments)[0]
    found = as_on_a_cpu()[torch.ops.aten.native_batch_norm.default](value, *arguments)[0]
    # Where the processor has fused multiply-adds, the same; elsewhere ATen rounds twice.
    torch.testing.assert_close(found, expected, rtol=2e-7, atol=2e-7 * float(expected.abs().max()))
    if "avx2" in torch.backends.cpu.get_cpu_capability().lower():
        assert torch.equal(found, expected)


def test_neurons_are_inputs() -> None:
    net = network()
    for attribution in (NeuronGuidedBackprop(net, "strided"), NeuronLRPTranspose(net, net.strided)):
        compiled = accelerate.compile(attribution, images(0), (0, 0, 0), mode="aten")
        expected = attribution.attribute(images(1), neuron_selector=(5, 1, 0))
        assert_close(compiled.attribute(images(1), neuron_selector=(5, 1, 0)), expected, 1e-6)


@pytest.mark.parametrize(
    "target", [3, -1, (2,), torch.tensor(4), torch.tensor([1]), torch.tensor([0, 4]), [2, 3], [(1,), (0,)]]
)
def test_targets_are_inputs(target: Any, guided: accelerate.CompiledAttribution) -> None:
    expected = guided.attribution.attribute(images(1), target)
    assert_close(guided.attribute(images(1), target), expected, 1e-6)


def test_targets_that_are_none(guided: accelerate.CompiledAttribution) -> None:
    for target, error, message in (
        (5, AssertionError, "out of range"),
        ([0, -6], AssertionError, "out of range"),
        ((0, 1), AssertionError, "more indices"),
        ([1, 2, 3], AssertionError, "3 targets for 2 examples"),
        (None, AssertionError, "name one"),
        ((slice(0, 2),), TypeError, "slices"),
        (lambda output: output[:, 0], TypeError, "functions"),
    ):
        with pytest.raises(error, match=message):
            guided.attribute(images(1), target)


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return self.head(torch.relu(self.one(one)) + torch.relu(self.other(other)))

    torch.manual_seed(0)
    attribution = LRPTranspose(Two())
    compiled = accelerate.compile(attribution, (torch.randn(2, 4), torch.randn(2, 3)), 0, mode="aten")
    inputs = torch.randn(2, 4), torch.randn(2, 3)
    found, expected = compiled.attribute(inputs, 1), attribution.attribute(inputs, 1)
    assert isinstance(found, tuple)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-6)


@pytest.mark.parametrize("rules", ["epsilon_gamma_box", "epsilon_plus", "epsilon_alpha2_beta1_flat"])
def test_weights_are_live_though_the_attribution_was_used_before(rules: str) -> None:
    """Values kept from earlier calls, folded and clamped weights, must not become a part of the compiled program."""
    net = network()
    attribution = LRPTranspose(net, rules)
    before = attribution.attribute(images(1), 2)
    compiled = accelerate.compile(attribution, images(0), 0, mode="aten")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.2).add_(0.03)
    expected = LRPTranspose(net, rules).attribute(images(1), 2)
    assert not torch.allclose(expected, before, rtol=0.01)
    assert_close(compiled.attribute(images(1), 2), expected, 1e-5)


def test_weights_are_live_until_the_model_is_another() -> None:
    net = network()
    attribution = LRPTranspose(net, rules="epsilon_gamma_box")
    compiled = accelerate.compile(attribution, images(0), 0, mode="aten")
    before = compiled.attribute(images(1), 2)

    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    net(images(2)).square().sum().backward()
    optimiser.step()
    updated = compiled.attribute(images(1), 2)
    assert_close(updated, attribution.attribute(images(1), 2), 1e-6)
    assert not torch.allclose(updated, before, rtol=0.01)

    net.load_state_dict(network().state_dict(), assign=True)  # other tensors in the old ones' place
    assert_close(compiled.attribute(images(1), 2), before, 1e-6)

    net.train()
    with pytest.raises(RuntimeError, match="train and eval"):
        compiled.attribute(images(1), 2)
    net.eval()
    net.double()
    with pytest.raises(RuntimeError, match=r"no longer .* compile again"):
        compiled.attribute(images(1), 2)
    net.float()
    net.head = nn.Linear(72, 5)
    with pytest.raises(RuntimeError, match="replaced"):
        compiled.attribute(images(1), 2)


def test_other_shapes_are_announced() -> None:
    attribution = GuidedBackprop(network())
    expected = attribution.attribute(images(1, 3), 1)
    for choice, message in (("eager", "itself is run"), ("compile", "compiling for these too")):
        compiled = accelerate.compile(attribution, images(0), 0, mode="aten", other_shapes=choice)
        with pytest.warns(UserWarning, match=message):
            assert_close(compiled.attribute(images(1, 3), 1), expected, 1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_close(compiled.attribute(images(1, 3), 1), expected, 1e-6)


def test_bfloat16_and_channels_last() -> None:
    attribution = LRPTranspose(network(), rules="epsilon_plus")
    expected = attribution.attribute(images(1), 1)
    rounded = accelerate.compile(attribution, images(0), 0, mode="aten", precision="bfloat16")
    found = rounded.attribute(images(1), 1)
    assert found.dtype == torch.float32
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.05  # eight bits in every product, and no more than that
    laid_out = accelerate.compile(attribution, images(0), 0, mode="aten", channels_last=True)
    assert_close(laid_out.attribute(images(1), 1), expected)


def test_channels_last_differs_by_rounding_alone() -> None:
    attribution = LRPTranspose(network().double())  # epsilon: in float32 the rounding shows
    compiled = accelerate.compile(attribution, images(0).double(), 0, mode="aten", channels_last=True)
    assert_close(compiled.attribute(images(1).double(), 1), attribution.attribute(images(1).double(), 1), 1e-12)


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda x: x * 2 if x.sum() > 3 else x, "reads a value"),
        (lambda x: x * x.max().item(), "reads a value"),
        (lambda x: x * x[x > 0].mean(), "size depends on values"),
        (lambda x: x * float(x.detach().numpy().max()), "outside PyTorch"),
        (lambda x: nn.functional.dropout(x, 0.5), "random"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*train mode")
def test_models_that_cannot_be_recorded(choose: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        accelerate.compile(GuidedBackprop(network(choose)), images(0), 0, mode="aten")


@pytest.mark.parametrize("attribution", [GuidedBackprop, LRPTranspose])
def test_a_recorded_backward_pass_stays_on_its_thread(attribution: Callable[[nn.Module], Any]) -> None:
    """Autograd goes on in another thread on a GPU, where nothing is known of the recording, unless it is forbidden."""
    allowed = []

    def watched(hidden: Tensor) -> Tensor:
        hidden.register_hook(lambda _: allowed.append(torch._C._is_multithreading_enabled()))
        return hidden

    accelerate.compile(attribution(network(watched)), images(0), 0, mode="aten")
    assert allowed[0] is False
    assert torch._C._is_multithreading_enabled()


def test_a_transformer_is_recorded_though_its_attention_rounds_otherwise() -> None:
    """LRP-epsilon magnifies by how little attention in one operation differs from its parts: no reason to refuse it."""
    torch.manual_seed(0)
    model = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=3, hidden_dim=96, mlp_dim=192)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    for parameter in model.eval().parameters():
        if parameter.ndim > 1:
            parameter.data *= 160  # attention as sharp as in twelve layers
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    attribution = LRPTranspose(model, "epsilon")
    compiled = accelerate.compile(attribution, image, 3, mode="aten")
    with tracing():
        expected = attribution.attribute(image, 7)
    assert error_between(attribution.attribute(image, 7), expected) > 1e-3, "a recording that differs so is refused"
    assert_close(compiled.attribute(image, 7), expected)


def test_arguments_that_do_not_fit(guided: accelerate.CompiledAttribution) -> None:
    attribution = guided.attribution
    with pytest.raises(TypeError, match="Linear cannot be recorded"):
        accelerate.compile(nn.Linear(1, 1), images(0), 0)
    for option in ("mode", "precision", "other_shapes"):
        with pytest.raises(ValueError, match=f"{option} = 'best': choose one of"):
            accelerate.compile(attribution, images(0), 0, **{option: "best"})
    with pytest.raises(ValueError, match="needs inputs on a CUDA device"):
        accelerate.compile(attribution, images(0), 0, mode="cudagraph")
    with pytest.raises(ValueError, match="no TF32 on cpu"):
        accelerate.compile(attribution, images(0), 0, precision="tf32")
    with pytest.raises(TypeError, match=r"compiled for inputs of torch.float32 on cpu, not torch.float64"):
        guided.attribute(images(0).double(), 0)
    with pytest.raises(TypeError, match="additional_forward_args"):
        guided.attribute(images(0), 0, additional_forward_args=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN or infinite"):
        guided.attribute(images(0) / 0, 0)


@pytest.mark.parametrize("name", [slow(name) if name == "guided" else name for name in EXPORTED])
def test_onnx_gives_the_same_map(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    attribution = ATTRIBUTIONS[name](network())
    before = snapshot(attribution.model)
    (file,) = accelerate.export(attribution, images(0), tmp_path / "map.onnx")
    assert_unchanged(before, attribution.model)
    session = runtime.InferenceSession(str(file))
    (found,) = session.run(None, {"inputs": images(1).numpy(), "target": torch.tensor([3, 1]).numpy()})
    assert_close(torch.from_numpy(found), attribution.attribute(images(1), [3, 1]), 1e-4)


def test_onnx_in_float64_is_epsilon_itself(tmp_path: Path) -> None:
    """In float32 another library's rounding shows in LRP-epsilon; in float64 there is no such excuse."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator  # onnxruntime has no convolution in float64

    net = normalised_network()
    net[3], net[5] = nn.Identity(), nn.Linear(100, 5)  # the evaluator's own pooling returns wrong positions
    attribution = LRPTranspose(net.double(), rules="epsilon")
    (file,) = accelerate.export(attribution, images(0).double(), tmp_path / "map.onnx")
    given = {"inputs": images(1).double().numpy(), "target": torch.tensor([3, 1]).numpy()}
    (found,) = ReferenceEvaluator(onnx.load(file)).run(None, given)
    assert_close(torch.from_numpy(found), attribution.attribute(images(1).double(), [3, 1]), 1e-9)


def test_average_pooling_is_transposed_exactly() -> None:
    """Against autograd, for the windows that overlap, are padded, or reach beyond the input."""
    from plugin.accelerate.exporting import forward_operations

    table, image = forward_operations(), images(0).double().requires_grad_()
    for arguments in ((3, 2, 1, True, True, None), (3, 2, 1, True, False, None), (2, 3, 0, False, True, 7)):
        pooled = nn.functional.avg_pool2d(image, *arguments)
        signal = torch.randn_like(pooled)
        (expected,) = torch.autograd.grad(pooled, image, signal)
        kernel, stride, padding, *rest = arguments
        found = table[torch.ops.aten.avg_pool2d_backward.default](
            signal, image.detach(), [kernel] * 2, [stride] * 2, [padding] * 2, *rest
        )
        torch.testing.assert_close(found, expected)
    for size in ((5, 7), (1, 12), (20, 13)):
        pooled = nn.functional.adaptive_avg_pool2d(image, size)
        signal = torch.randn_like(pooled)
        (expected,) = torch.autograd.grad(pooled, image, signal)
        found = table[torch.ops.aten._adaptive_avg_pool2d_backward.default](signal, image.detach())
        torch.testing.assert_close(found, expected)


def test_exported_program_needs_nothing_of_this_package(tmp_path: Path) -> None:
    attribution = LRPTranspose(network(), rules="epsilon_plus_flat")
    told = BufferingHandler(capacity=1000)
    writer = logging.getLogger("torch.export.pt2_archive._package")  # hands nothing on to the root
    writer.addHandler(told)
    try:
        accelerate.export(attribution, images(0), tmp_path / "map.pt2")
    finally:
        writer.removeHandler(told)
    assert not [record.getMessage() for record in told.buffer if record.levelno >= logging.WARNING]
    expected = attribution.attribute(images(1), [3, 1])
    torch.save({"images": images(1), "target": torch.tensor([3, 1]), "expected": expected}, tmp_path / "case.pt")
    script = (
        "import sys, torch\n"
        "case = torch.load('case.pt')\n"
        "with torch.inference_mode():\n"
        "    (found,) = torch.export.load('map.pt2').module()(case['images'], case['target'])\n"
        "torch.testing.assert_close(found, case['expected'], rtol=0, atol=1e-5 * float(case['expected'].abs().max()))\n"
        "assert not {'plugin', 'captum'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=240)


def test_export_writes_both_files_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribution = GuidedBackprop(nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU()))
    inputs = torch.ones(1, 3, 2, 2)
    files = accelerate.export(attribution, inputs, tmp_path / "map")
    assert [file.name for file in files] == ["map.pt2", "map.onnx"]
    assert all(file.is_file() for file in files)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-simplicity\[accelerate\]"):
        accelerate.export(attribution, inputs, tmp_path / "other")
    assert not (tmp_path / "other.pt2").exists()


def test_an_attribution_does_not_load_the_compiler() -> None:
    """Importing it takes seconds, which the first attribution of a process must not."""
    script = (
        "import sys, torch\n"
        "from plugin.attr import GuidedBackprop, LRPTranspose\n"
        "print(*(name for name in sys.modules if name.startswith('plugin.accelerate')))\n"
        "net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()\n"
        "for method in (GuidedBackprop, LRPTranspose):\n"
        "    method(net).attribute(torch.ones(1, 3), 0)\n"
        "print(*(name for name in sys.modules if name.startswith(('torch._dynamo', 'torch._inductor'))))\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert finished.stdout.split() == []
