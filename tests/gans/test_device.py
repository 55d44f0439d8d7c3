"""`device=` for training, maximising and judging, in Python and on the command line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.gpu import GPU, on_gpu
from torch import Tensor, nn

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM, Recipe, load, load_classifier, scorecard, train, train_classifier
from gan.__main__ import main
from gan.classifiers import CLASSIFIERS, check_fit
from gan.data import read
from plugin.models.checkpoints import load_weights

TINY = Recipe("mlp", {"hidden": (32, 32), "code_size": 6}, steps=6, batch_size=16, precision="float32")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


def images_of(codes: Tensor) -> Tensor:
    return codes.sigmoid().view(-1, 1, 8, 8)


MAXIMIZERS: dict[str, Callable[..., Any]] = {
    "codes": lambda net, layer, **options: CodeSpaceAM(net, images_of, layer, code_size=64, **options),
    "pixels": lambda net, layer, **options: PixelAM(net, (1, 8, 8), layer, **options),
    "fourier": lambda net, layer, **options: ImageSpaceAM(net, (1, 8, 8), layer, **options),
}


@pytest.mark.parametrize("name", MAXIMIZERS)
def test_the_networks_own_device_is_the_default_and_cpu_is_it(name: str) -> None:
    net = network()
    plain, told = MAXIMIZERS[name](net, net[1]), MAXIMIZERS[name](net, net[1], device="cpu")
    assert told.classifier is net
    results = [am.maximize((1, 2, 2), runs=2, steps=4) for am in (plain, told)]
    assert torch.equal(results[0].images, results[1].images)
    with pytest.raises(ValueError, match="device 'cuda:99' is not there: this PyTorch sees"):
        MAXIMIZERS[name](net, None, device="cuda:99")


@pytest.mark.parametrize("device", ["cuda:99", "meta"])
@pytest.mark.parametrize(
    "command",
    [
        "train --data digits --network mlp",
        "train --data digits --network judge",
        "maximize --target 3",
        "score --data digits --target 3",
    ],
)
def test_a_device_that_is_not_there_is_a_sentence(
    command: str, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--device", device, "--out", str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err.startswith(f"error: device '{device}' is not there: this PyTorch sees")


def test_training_on_the_device_that_is_named(tmp_path: Path) -> None:
    digits = read("digits", train=True), read("digits", train=False)
    first, second = (train(TINY, *digits, tmp_path / name, device="cpu") for name in ("a", "b"))
    assert first["scores"] == second["scores"]
    metadata = train_classifier(tmp_path / "judge.safetensors", *digits, kind="judge", epochs=1, device="cpu")
    assert metadata["accuracy"] > 0.1


def test_a_judge_is_tried_where_it_is() -> None:
    judge = CLASSIFIERS["judge"]((1, 8, 8), tuple("0123456789"))
    check_fit(judge.to("meta"), read("digits", train=True))


@on_gpu
def test_training_goes_on_on_another_device(tmp_path: Path) -> None:
    digits = read("digits", train=True), read("digits", train=False)
    train_classifier(tmp_path / "judge.safetensors", *digits, kind="judge", epochs=1, device=GPU)
    judge = load_classifier(tmp_path / "judge.safetensors").to(GPU)
    train(TINY, *digits, tmp_path / "cpu", device="cpu")
    train(TINY, *digits, tmp_path / "gpu", judge, device=GPU)
    weights = load_weights(tmp_path / "cpu" / "mlp.safetensors")
    for name, value in load_weights(tmp_path / "gpu" / "mlp.safetensors").items():
        torch.testing.assert_close(value, weights[name], atol=2e-2, rtol=0)
    state = tmp_path / "cpu" / "training.pt"
    longer = replace(TINY, steps=6)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "training.pt").write_bytes(state.read_bytes())
    assert train(longer, *digits, tmp_path / "both", device=GPU)["steps"] == 6


@on_gpu
@pytest.mark.parametrize("name", MAXIMIZERS)
def test_networks_are_copied_to_the_device(name: str) -> None:
    net = network()
    found = MAXIMIZERS[name](net, net[1], device=GPU).maximize((1, 2, 2), runs=2, steps=4)
    assert found.images.device.type == GPU
    assert {value.device.type for value in net.parameters()} == {"cpu"}
    expected = MAXIMIZERS[name](net, net[1]).maximize((1, 2, 2), runs=2, steps=4)
    torch.testing.assert_close(found.images.cpu(), expected.images, atol=2e-2, rtol=0)


@on_gpu
def test_runs_on_a_gpu_are_judged_there() -> None:
    am = CodeSpaceAM(load_classifier("mnist-classifier"), load("dcgan-mnist").generator, device=GPU)
    card = scorecard(am.maximize(3, runs=4), load_classifier("mnist-judge"), read("digits", False, size=28))
    assert card["agreement"]["maximised"] == 1
