"""`device=` for training, maximising and judging, in Python and on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.gpu import GPU, on_gpu
from torch import Tensor, nn

from gan import (
    CodeSpaceAM,
    ImageSpaceAM,
    LatentGenerator,
    PixelAM,
    Recipe,
    load,
    load_classifier,
    scorecard,
    train,
    train_classifier,
)  # fmt: skip
from gan.__main__ import main
from gan.classifiers import CLASSIFIERS, check_fit
from gan.data import read
from gan.maximising.objectives import direction
from plugin.attr import GuidedBackprop
from plugin.experiments.faithfulness import removal_curves
from plugin.experiments.invariance import invariance, maximising_sets, sufficiency
from plugin.experiments.sanity import class_check
from plugin.experiments.unit_survey import PictureBatch, survey_units
from plugin.models.checkpoints import load_weights

DIGITS = read("digits", train=True), read("digits", train=False)
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
    first, second = (train(TINY, *DIGITS, tmp_path / name, device="cpu") for name in ("a", "b"))
    assert first["scores"] == second["scores"]
    metadata = train_classifier(tmp_path / "judge.safetensors", *DIGITS, kind="judge", epochs=1, device="cpu")
    assert metadata["accuracy"] > 0.1


def test_a_judge_is_tried_where_it_is() -> None:
    judge = CLASSIFIERS["judge"]((1, 8, 8), tuple("0123456789"))
    check_fit(judge.to("meta"), read("digits", train=True))


def values_of(found: Any) -> list[Tensor]:
    """The tensors and numbers in a result, in their order, without measured times."""
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, (int, float)):
        return [torch.tensor(found, dtype=torch.float64)]
    if isinstance(found, Mapping):
        return [value for name, each in found.items() if name != "seconds" for value in values_of(each)]
    if isinstance(found, (list, tuple)):
        return [value for each in found for value in values_of(each)]
    return values_of(vars(found)) if hasattr(found, "__dict__") else []


COLOURED = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
GREY, LABELS = COLOURED[:, :1, :8, :8], torch.arange(40) % 3
CODES = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
Call = Callable[[nn.Module, nn.Module], Any]
# Of a network of grey images, and one of coloured images whose units are its classes.
CALLS: dict[str, Call] = {
    **{name: lambda net, _, of=of: of(net, None).maximize(1, runs=2, steps=4) for name, of in MAXIMIZERS.items()},
    "a unit": lambda net, _: MAXIMIZERS["codes"](net, "0").maximize((1, 2, 2), runs=2, steps=4),
    "mixed": lambda net, _: MAXIMIZERS["codes"](net, None).maximize(
        [1, 1, lambda found: found.mean(1)], steps=4, repulsion=0.1, stop_at=[0.5, 0.6, 0.7]
    ),
    "real": lambda net, _: MAXIMIZERS["codes"](net, None).maximize(
        1, steps=4, init=CODES, stop_at="data", real=(GREY.numpy(), LABELS.tolist())
    ),
    "inverted": lambda net, _: MAXIMIZERS["codes"](net, None).invert(GREY[:2].numpy(), steps=3),
    "shifted": lambda net, _: PixelAM(net, (1, 8, 8), jitter=2).maximize(1, runs=2, steps=4),
    "spectrum": lambda _, net: ImageSpaceAM(net, (3, 16, 16), space="maco").maximize(1, runs=2, steps=4),
    "direction": lambda _, net: ImageSpaceAM(net, (3, 16, 16), "0").maximize(direction([1.0, 2, 0, 0]), 2, steps=4),
    "latents": lambda _, net: CodeSpaceAM(
        net, LatentGenerator(lambda latents: latents[:, :3].sigmoid(), torch.cat([COLOURED, COLOURED[:, :1]], 1))
    ).maximize(1, runs=2, steps=3),
    "scorecard": lambda net, _: scorecard(
        MAXIMIZERS["codes"](net, None).maximize([0, 1], steps=3, stop_at=0.9), net, (GREY, LABELS)
    ),
    "invariance": lambda _, net: invariance(net, COLOURED, ["0"], amounts={"shift": [1], "rotation": [5]}, rate=0.1),
    "sufficiency": lambda _, net: sufficiency(net, COLOURED, ["0"], units=2),
    "removal": lambda net, _: removal_curves(lambda some: net(some)[:, 1], GREY[:2], GREY[2:4]),
    "survey": lambda net, _: survey_units(net, "0", [PictureBatch(GREY, range(40), LABELS.tolist())], 5, classes=3),
    "solutions": lambda net, _: maximising_sets(
        net, GREY, images_of, partial(MAXIMIZERS["codes"], net), ["0"], units=2, runs=3, points=3
    ),
    "sanity": lambda net, _: class_check(GuidedBackprop, net, GREY[:2], target=1, other=2),
}


@pytest.mark.filterwarnings("ignore:.*did not reach", "ignore:the judge")
@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_of_pytorch_does_not_matter(name: str) -> None:
    coloured = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nets = network(), coloured
    expected = values_of(CALLS[name](*nets))
    with torch.device(GPU or "meta"):  # users of a GPU may have made it the default; "meta" has no values
        found = CALLS[name](*nets)
    assert expected
    for one, other in zip(values_of(found), expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


TRAINED: dict[str, Callable[[Path], Any]] = {
    "gan": lambda folder: train(TINY, *DIGITS, folder)["scores"],
    "judge": lambda folder: train_classifier(folder / "judge.safetensors", *DIGITS, kind="judge", epochs=1)["accuracy"],
}


@on_gpu
@pytest.mark.parametrize("name", TRAINED)
def test_the_default_device_does_not_matter_to_a_training(name: str, tmp_path: Path) -> None:
    expected = values_of(TRAINED[name](tmp_path / "expected"))
    with torch.device(GPU):
        found = TRAINED[name](tmp_path / "found")
    torch.testing.assert_close(values_of(found), expected)


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
