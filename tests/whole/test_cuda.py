"""On a GPU: the same maps as on the CPU, nothing kept, no waiting; CUDA graphs."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.families import build, picture
from support.gpu import GPU as DEVICE
from support.gpu import on_cuda, on_gpu
from support.helpers import assert_close
from support.recorded import ATTRIBUTIONS, images, network
from torch import Tensor, nn

from plugin import accelerate, models
from plugin.attr import DeconvNet, GuidedBackprop, LayerLRPTranspose, LRPTranspose, NeuronGuidedBackprop
from plugin.attr.methods import METHODS
from plugin.measuring.cases import full_precision

pytestmark = on_gpu

NETWORKS = ("resnet18", "mobilenet_v2", "densenet121", "efficientnet_b0", "shufflenet_v2_x0_5", "swin_t", "vit_b_16")
SIGNALS = ("guided-backprop", "deconvnet")
# Between them all rules.
PRESETS = ("lrp-0", "lrp-epsilon-plus-flat", "lrp-epsilon-gamma-box", "lrp-epsilon-alpha2-beta1", "lrp-attn-lrp")


@pytest.fixture(autouse=True)
def products_in_full_precision() -> Iterator[None]:
    """cuDNN may round factors to TF32, by default: that is no difference to test for."""
    with full_precision():
        yield


def attribution(method: str, model: nn.Module) -> Any:
    found = METHODS[method]
    return found.attribution_class(neuron=False)(model, *([found.preset] if found.preset else []))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu() - expected.cpu()).norm() / expected.norm())


def waits(call: Callable[[], Any]) -> list[str]:
    """Where a call waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waiting = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in waiting]


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_cpu(name: str) -> None:
    model, image = build(name).double(), picture(name).double()
    expected = {method: attribution(method, model).attribute(image, target=7) for method in (*SIGNALS, *PRESETS)}
    model.to(DEVICE)
    for method, values in expected.items():
        found = attribution(method, model).attribute(image.to(DEVICE), target=7)
        assert found.device.type == DEVICE
        assert_close(found.cpu(), values, 1e-8)


def test_several_targets_layers_neurons_and_the_ledger() -> None:
    model, batch = build("shufflenet_v2_x0_5").double(), torch.cat([picture("shufflenet_v2_x0_5").double()] * 2)
    batch[1].neg_()

    def everything(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        lrp = LRPTranspose(model, "epsilon_plus_flat")
        ledger = lrp.ledger(batch, target=[1, 2])
        return {
            "targets": lrp.attribute_targets(batch, [3, 5]),
            "a list": lrp.attribute(batch, target=[1, 2]),
            "in parts": lrp.attribute(batch, target=torch.tensor([1, 2], device=batch.device), internal_batch_size=1),
            "layer": LayerLRPTranspose(model, "stage3", rules="epsilon_gamma_box").attribute(batch, target=1),
            "neuron": NeuronGuidedBackprop(model, model.get_submodule("stage3")).attribute(batch, (3, 2, 2)),
            "ledger": torch.tensor([[entry.entered, entry.left] for entry in ledger]),
        }

    expected = everything(model, batch)
    for name, found in everything(model.to(DEVICE), batch.to(DEVICE)).items():
        assert distance(found, expected[name]) < 1e-8, name


def test_deconvnet_without_an_image() -> None:
    model = models.load("all-cnn-c").network
    expected = DeconvNet(model, "features.conv7", (3, 32, 32)).reconstruct(range(20), position=(3, 3))
    try:
        found = DeconvNet(model.to(DEVICE), "features.conv7", (3, 32, 32)).reconstruct(range(20), position=(3, 3))
    finally:
        model.cpu()
    assert found.device.type == DEVICE
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, image = build("resnet18"), picture("resnet18")
    for method, most in (("guided-backprop", 0.1), ("lrp-epsilon-plus-flat", 0.1)):
        expected = attribution(method, model.float().cpu()).attribute(image, target=7)
        found = attribution(method, model.to(DEVICE, dtype)).attribute(image.to(DEVICE, dtype), target=7)
        assert found.dtype == dtype
        assert distance(found.float(), expected) < most


@on_cuda
def test_autocast() -> None:
    model, image = build("resnet18").to(DEVICE), picture("resnet18").to(DEVICE)
    for method in ("guided-backprop", "lrp-epsilon-plus-flat"):
        expected = attribution(method, model).attribute(image, target=7)
        with torch.autocast(DEVICE, torch.bfloat16):
            found = attribution(method, model).attribute(image, target=7)
        assert distance(found.float(), expected) < 0.2


@on_cuda
@pytest.mark.parametrize("method", [*SIGNALS, "lrp-epsilon", "lrp-epsilon-plus-flat"])
def test_nothing_is_kept_and_only_the_check_of_the_input_waits(method: str) -> None:
    """A call that waits for the GPU keeps the processor from running ahead."""
    explained, image = attribution(method, build("resnet18").to(DEVICE)), picture("resnet18").to(DEVICE)

    def call() -> None:
        explained.attribute(image, target=7)

    call()  # tensors that rules derive from weights are derived at the first call
    assert [place.partition(":")[0] for place in waits(call)] == ["_base.py"]
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        call()
    gc.collect()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param("guided", "inductor", marks=on_cuda),
        ("guided", "graph"),
        ("epsilon_gamma_box", "graph"),
        pytest.param("deconvnet uniform", "cudagraph", marks=on_cuda),
        pytest.param("layer", "cudagraph", marks=on_cuda),
        pytest.param("epsilon_gamma_box", "cudagraph", marks=on_cuda),
    ],
)
def test_compiled_maps(name: str, mode: str) -> None:
    explained = ATTRIBUTIONS[name](network().double().to(DEVICE))
    compiled = accelerate.compile(explained, images(0).double().to(DEVICE), 0, mode=mode)
    for seed, target in ((1, [3, 1]), (2, 4)):
        batch = images(seed).double().to(DEVICE)
        found, expected = compiled.attribute(batch, target), explained.attribute(batch, target)
        assert_close(found, expected, 1e-9)


@on_cuda
@pytest.mark.parametrize(
    ("precision", "channels_last", "most"),
    [("float32", False, 1e-5), ("float32", True, 1e-5), ("tf32", False, 0.02), ("bfloat16", True, 0.05)],
)
def test_cuda_graph(precision: str, channels_last: bool, most: float) -> None:
    explained = LRPTranspose(network().to(DEVICE), rules="epsilon_plus")
    compiled = accelerate.compile(
        explained, images(0).to(DEVICE), 0, mode="cudagraph", precision=precision, channels_last=channels_last
    )
    first = compiled.attribute(images(1).to(DEVICE), [1, 2])
    kept = first.clone()
    compiled.attribute(images(2).to(DEVICE), 0)
    assert torch.equal(first, kept)  # a result is not overwritten by the next call
    assert distance(first, explained.attribute(images(1).to(DEVICE), [1, 2])) < most
    with torch.no_grad():
        explained.model.stem.weight.mul_(2)  # in place: the graph knows the weights by address
    assert distance(compiled.attribute(images(1).to(DEVICE), 1), explained.attribute(images(1).to(DEVICE), 1)) < most
    explained.model.stem.weight = nn.Parameter(explained.model.stem.weight * 0.7)  # and in another place
    assert distance(compiled.attribute(images(1).to(DEVICE), 1), explained.attribute(images(1).to(DEVICE), 1)) < most
    assert not torch.backends.cudnn.allow_tf32


def test_inputs_of_another_device_are_refused() -> None:
    compiled = accelerate.compile(GuidedBackprop(network().to(DEVICE)), images(0).to(DEVICE), 0, mode="aten")
    with pytest.raises(TypeError, match=f"on {DEVICE}:0, not torch.float32 on cpu"):
        compiled.attribute(images(0), 0)


def test_exported_programs(tmp_path: Path) -> None:
    explained = LRPTranspose(network().double().to(DEVICE), rules="epsilon_gamma_box")
    accelerate.export(explained, images(0).double().to(DEVICE), tmp_path / "map.pt2")
    program = torch.export.load(tmp_path / "map.pt2").module()
    batch, targets = images(1).double().to(DEVICE), torch.tensor([3, 1], device=DEVICE)
    (found,) = program(batch, targets)
    assert_close(found, explained.attribute(batch, targets), 1e-9)


def test_code_space_starts_and_climbs_as_on_the_cpu() -> None:
    from gan import CodeSpaceAM, load, load_classifier

    classifier, generator = load_classifier("mnist-classifier"), load("dcgan-mnist").generator

    def run() -> Any:
        return CodeSpaceAM(classifier, generator).maximize(target=3, runs=4, seed=0, steps=5, least_steps=5)

    expected = run()
    classifier.to(DEVICE)
    generator.to(DEVICE)
    found = run()
    assert found.images.device.type == DEVICE
    assert distance(found.images, expected.images) < 1e-2


def test_maps_of_a_folder(tmp_path: Path) -> None:
    from PIL import Image

    from plugin.datasets import attribute_folder

    zarr = pytest.importorskip("zarr")
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    maps: dict[str, Any] = {}
    for device in ("cpu", DEVICE):
        path = tmp_path / f"{device}.zarr"
        attribute_folder("all-cnn-c", tmp_path, path, "guided-backprop", device=device, batch_size=2, progress=False)
        maps[device] = torch.from_numpy(zarr.open(path)["maps"][:])
    assert distance(maps[DEVICE], maps["cpu"]) < 1e-4
