"""Checkpoints as people have them: each opens, or one sentence names the file and the remedy; nothing in one is run."""

import argparse
import collections
import os
import pickle
import re
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import get_model

from plugin import models
from plugin.attr import LRPTranspose
from plugin.models.state_dicts import guess, state_dicts
from plugin.models.tensor_files import read_tensors

NETWORK = "squeezenet1_0"


def network(classes: int = 1000, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return get_model(NETWORK, weights=None, num_classes=classes)


class LitModel(nn.Module):
    """What Lightning's module is: the network is one of its parts, beside a loss with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.loss = network(), nn.CrossEntropyLoss(weight=torch.ones(1000))


class Hyperparameters(dict[str, Any]):
    """A class that is nowhere when the file is read."""


def elsewhere(kind: type) -> type:
    """The class as if a module of the user's had it, which does not exist when the file is read."""
    kind.__module__ = "users_training"
    sys.modules.setdefault("users_training", types.ModuleType("users_training"))
    setattr(sys.modules["users_training"], kind.__name__, kind)
    return kind


def lightning(path: Path) -> None:
    hyper = elsewhere(Hyperparameters)
    torch.save(
        {"epoch": 3, "state_dict": LitModel().state_dict(), "hyper_parameters": hyper(lr=0.1), "optimizer_states": [{
            "state": {0: {"exp_avg": torch.zeros(3)}}}], "loops": {"fit": {}}}, path,
    )  # fmt: skip


def reference_script(path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ema = AveragedModel(network(seed=1))
    torch.save({"model": model.state_dict(), "model_ema": ema.state_dict(), "optimizer": optimizer.state_dict(),
                "epoch": 5, "args": argparse.Namespace(lr=0.1)}, path)  # fmt: skip


def timm_style(path: Path) -> None:
    torch.save({"arch": NETWORK, "state_dict": network().state_dict(),
                "state_dict_ema": network(seed=1).state_dict(), "metric": 0.5}, path)  # fmt: skip


def legacy(path: Path) -> None:
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)


def program(path: Path) -> None:
    torch.export.save(torch.export.export(network().eval(), (torch.zeros(1, 3, 64, 64),)), path)


def prefixed(prefix: str, classes: int = 1000) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in network(classes).state_dict().items()}


WRAPPED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "state dict": ("weights.pt", lambda path: torch.save(network().state_dict(), path)),
    "half precision": ("half.pth", lambda path: torch.save(network().half().state_dict(), path)),
    "safetensors": ("model.safetensors", lambda path: save_file(network().state_dict(), path)),
    "safetensors called bin": ("pytorch_model.bin", lambda path: save_file(network().state_dict(), path)),
    "Lightning": ("epoch=3-step=100.ckpt", lightning),
    "DataParallel": ("parallel.pt", lambda path: torch.save(nn.DataParallel(network()).state_dict(), path)),
    "torchvision's reference script": ("checkpoint.pth", reference_script),
    "timm's training script": ("model_best.pth.tar", timm_style),
    "averaged": ("ema.pt", lambda path: torch.save(AveragedModel(network()).state_dict(), path)),
    "compiled": ("compiled.pt", lambda path: torch.save(torch.compile(network()).state_dict(), path)),  # type: ignore[attr-defined]
    "compiled in DataParallel": ("c.pt", lambda path: torch.save(prefixed("_orig_mod.module."), path)),
    "backbone": ("backbone.pt", lambda path: torch.save(prefixed("backbone."), path)),
    "before zip files": ("legacy.pth", legacy),
    "program of torch.export": ("program.pt2", program),
    "whole pickle": ("whole.pt", lambda path: torch.save(network(), path)),
    "whole pickle in a dictionary": ("whole.ckpt", lambda path: torch.save({"net": network(), "epoch": 1}, path)),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_checkpoint_opens(kind: str, tmp_path: Path) -> None:
    name, write = WRAPPED[kind]
    write(tmp_path / name)
    sys.modules.pop("users_training", None)
    loaded = models.load(NETWORK, checkpoint=tmp_path / name).network.state_dict()
    tolerance = 1e-3 if kind == "half precision" else 0.0
    for key, value in network().state_dict().items():
        torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)


def test_another_number_of_classes(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"net.{key}": value for key, value in network(7).state_dict().items()}}, tmp_path / "7.pt"
    )
    loaded = models.load(NETWORK, checkpoint=tmp_path / "7.pt")
    assert loaded.network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert loaded.classes == ()


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 7), ("mobilenet_v3_small", 1000), ("vit_b_32", 3)])
def test_an_architecture_is_recognised(name: str, classes: int, tmp_path: Path) -> None:
    state = get_model(name, weights=None, num_classes=classes).state_dict()
    assert guess({f"model.{key}": value for key, value in state.items()}) == (name, classes)
    lightning_like = {f"model.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(classes)}
    for content in (state, {"epoch": 1, "state_dict": lightning_like}):
        torch.save(content, tmp_path / "mine.pt")
        message = rf"^the checkpoint mine\.pt does not fit {NETWORK}: it holds a {name} with {classes} classes"
        with pytest.raises(models.OtherArchitecture, match=message) as caught:
            models.load(NETWORK, checkpoint=tmp_path / "mine.pt")
        assert (caught.value.architecture, caught.value.classes) == (name, classes)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def archive_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def rewritten(path: Path, ending: str, change: Callable[[str], str]) -> None:
    """Write an archive again with other text in the entries of this ending."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content.decode()).encode() if name.endswith(ending) else content)


def torn(path: Path) -> None:
    """A program whose first weight is said to be larger than its values."""
    exported(path)
    rewritten(path, "_weights_config.json", lambda text: text.replace('"as_int": 2', '"as_int": 99999', 1))


def expanded(path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(100_000, 100_000)}, path)


def bomb(path: Path) -> None:
    """A file of a few kilobytes that unpacks to hundreds of megabytes."""
    torch.save({"weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(200 * 2**20) if name.endswith("data/0") else content)


class Memory:
    def __reduce__(self) -> Any:
        return bytearray, (10**12,)


class Command:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "TorchScript": ("script.pt", scripted, r"script\.pt is a TorchScript program.*torch\.jit\.load"),
    "torch.export": ("program.pt2", exported, r"program\.pt2 does not fit .*models\.load\('program\.pt2'\)"),
    "no checkpoint": ("many.pt", archive_of_text, r"many\.pt is an archive without a checkpoint"),
    "damaged program": ("torn.pt2", torn, r"torn\.pt2 is not a checkpoint"),
    "expanded": ("small.pt", expanded, r"'weight' in the checkpoint small\.pt has shape \(100000, 100000\).*fewer"),
    "sparse": ("sp.pt", lambda path: torch.save({"w": torch.eye(3).to_sparse()}, path), r"sp\.pt is not strided"),
    "quantised": ("q.pt", lambda path: torch.save({"w": torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)},
                                                  path), r"q\.pt is quantised"),
    "bomb": ("bomb.pt", bomb, r"bomb\.pt unpacks to 200 MB"),
    "memory": ("memory.pt", lambda path: torch.save({"w": Memory()}, path), r"memory\.pt asks for memory"),
    "no tensors": ("empty.pt", lambda path: torch.save({"epoch": 1}, path), r"empty\.pt holds no state dict"),
    "integer keys": ("opt.pt", lambda path: torch.save({0: torch.ones(1)}, path), r"opt\.pt holds no state dict"),
    "text": ("notes.pt", lambda path: path.write_text("hello"), r"notes\.pt is not a checkpoint"),
    "cut off": ("cut.pt", lambda path: (torch.save(network().state_dict(), path), os.truncate(path, 10_000)),
                r"cut\.pt is not a checkpoint"),
    "plain pickle": ("p.pt", lambda path: path.write_bytes(pickle.dumps({"w": [1.0]})), r"p\.pt is not a checkpoint"),
    "not finite": ("nan.pt", lambda path: torch.save({key: value * float("nan") for key, value in
                                                      network().state_dict().items()}, path), r"nan\.pt holds weights"),
    "another network": ("mine.pt", lambda path: torch.save(nn.Linear(2, 2).state_dict(), path),
                        rf"mine\.pt does not fit {NETWORK}"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated", "ignore:torch.jit", "ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_opened_gets_a_sentence(kind: str, tmp_path: Path) -> None:
    name, write, message = REFUSED[kind]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        models.load(NETWORK, checkpoint=tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save(
        {"state_dict": network().state_dict(), "callbacks": Command(trace)}, tmp_path / "evil.pt",
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"evil\.pt is not a checkpoint that can be read safely"):
        models.load(NETWORK, checkpoint=tmp_path / "evil.pt")
    assert not trace.exists()


def test_expression_in_a_program_is_not_evaluated(tmp_path: Path) -> None:
    """`torch.export.load` would run it."""
    trace, path = tmp_path / "trace", tmp_path / "evil.pt2"
    batch = {0: torch.export.Dim("batch", min=1)}
    linear = nn.Sequential(nn.Linear(2, 2))
    torch.export.save(torch.export.export(linear, (torch.zeros(3, 2),), dynamic_shapes={"input": batch}), path)
    command = f"__import__('os').system('touch {trace}')"
    rewritten(path, "model.json", lambda text: re.sub('"expr_str": "[^"]*"', f'"expr_str": "{command}"', text))
    loaded = models.load(nn.Sequential(nn.Linear(2, 2)), checkpoint=path)
    assert torch.equal(loaded.network.state_dict()["0.weight"], linear[0].weight)
    assert not trace.exists()


def test_a_program_opens_and_is_explained_as_its_network(tmp_path: Path) -> None:
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.export.save(torch.export.export(own.eval(), (images,)), tmp_path / "own.pt2")
    loaded = models.load(tmp_path / "own.pt2", classes="abcde")
    assert (loaded.name, loaded.classes) == ("own.pt2", tuple("abcde"))
    expected = LRPTranspose(own).attribute(images, target=1)
    torch.testing.assert_close(LRPTranspose(models.load(str(tmp_path / "own.pt2")).network).attribute(images, target=1),
                               expected)  # fmt: skip


def test_a_program_of_training_and_a_damaged_one_get_a_sentence(tmp_path: Path) -> None:
    images = (torch.randn(2, 4),)
    training = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    torch.export.save(torch.export.export(training, images), tmp_path / "training.pt2")
    with pytest.raises(ValueError, match=r"training\.pt2 was exported while training.*model\.eval"):
        models.load(tmp_path / "training.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt2 is not a program"):
        models.load(tmp_path / "text.pt2")
    with pytest.raises(FileNotFoundError, match=r"none\.pt2"):
        models.load(tmp_path / "none.pt2")


def test_of_several_state_dicts_the_usual_one_comes_first() -> None:
    first, second = {"weight": torch.zeros(2)}, {"weight": torch.ones(2), "bias": torch.ones(2)}
    content = {"teacher": second, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "model": first}
    assert [len(found) for found in state_dicts(content)] == [1, 2]


def test_classes_taken_for_safe_are_forgotten(tmp_path: Path) -> None:
    before = list(torch.serialization.get_safe_globals())
    lightning(tmp_path / "a.ckpt")
    read_tensors(tmp_path / "a.ckpt")
    assert torch.serialization.get_safe_globals() == before


def test_nested_containers_are_no_bomb(tmp_path: Path) -> None:
    """Lists of lists of the same lists take no memory, but a walk through all of them takes for ever."""
    content: Any = [torch.zeros(1)]
    for _ in range(60):
        content = [content, content]
    torch.save({"nested": content, "weights": collections.OrderedDict(weight=torch.ones(2))}, tmp_path / "nested.pt")
    assert torch.equal(state_dicts(read_tensors(tmp_path / "nested.pt"))[0]["weight"], torch.ones(2))
