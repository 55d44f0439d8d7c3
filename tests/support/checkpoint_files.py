"""Checkpoint files as people have them, by what they are: some that open, and some that cannot."""

import argparse
import io
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import get_model

NETWORK = "squeezenet1_1"


def network(classes: int = 1000, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return get_model(NETWORK, weights=None, num_classes=classes)


class LitModel(nn.Module):
    """A module as Lightning's: the network is one of its parts, beside a loss with weights."""

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


def program(path: Path, side: int = 64, batch: Any = None) -> None:
    images = torch.zeros(2, 3, side, side)
    torch.export.save(torch.export.export(network().eval(), (images,), dynamic_shapes=({0: batch},)), path)


def older_program(name: str, path: Path, **more: Any) -> None:
    """A program as PyTorch wrote it before 2.9: its weights are a file in it. The rest of it is not read."""
    weights = io.BytesIO()
    torch.save({**network().state_dict(), **more}, weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, weights.getvalue())


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
    "program of PyTorch 2.8": ("p28.pt2", lambda path: older_program("p28/data/weights/model.pt", path)),
    "program of PyTorch 2.7": ("p27.pt2", lambda path: older_program("serialized_state_dict.pt", path)),
    "whole pickle": ("whole.pt", lambda path: torch.save(network(), path)),
    "whole pickle in a dictionary": ("whole.ckpt", lambda path: torch.save({"net": network(), "epoch": 1}, path)),
}  # fmt: skip


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def archive_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def rewritten(path: Path, ending: str, change: Callable[[bytes], bytes]) -> None:
    """Write an archive again with other content in the entries of this ending."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith(ending) else content)


def torn(path: Path) -> None:
    """A program whose first weight is said to be larger than its values; one of PyTorch 2.8 lacks most of them."""
    exported(path)
    rewritten(path, "_weights_config.json", lambda text: text.replace(b'"as_int": 2', b'"as_int": 99999', 1))
    rewritten(path, "/data/weights/model.pt", lambda content: content[:500])


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
