"""Settings of a training of All-CNN-C that cannot be, and other runs in its folder."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from plugin.models.checkpoints import save_checkpoint
from plugin.models.data import cifar10, normalise
from plugin.models.train import ClassMapTrainer, Recipe, augment, main, train
from plugin.models.training_runs import Checkpoints

RECIPE = Recipe("model-c", epochs=1, batch_size=4, smallest=8)


def cifar(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        images = np.random.default_rng(seed).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(8))
    return folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: give 1 or more"),
        ({"batch_size": 1}, "batch_size=1: give 2 or more"),
        ({"smallest": 64}, "smallest=64: give 4 or more, at most 32"),
        ({"learning_rate": math.inf}, "learning_rate=inf: give a finite number above 0"),
        ({"dropout": (0.0, 1.0)}, "dropout=.*: give shares from 0 on and below 1"),
        ({"seed": 10**18}, "seed=1000000000000000000: give a number of less than 15 digits"),
        ({"precision": "float16"}, "precision='float16': choose one of float32, bfloat16"),
        ({"network": "vgg"}, "network='vgg': choose one of all-cnn-c"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **settings)


def test_another_run_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    data, out = cifar(tmp_path / "data"), tmp_path / "run"
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(RECIPE, data, out)
    assert torch.equal(torch.get_rng_state(), before)
    stored = (out / "training.pt").read_bytes()
    for other in (cifar(tmp_path / "other", seed=1), data):
        limit = 4 if other is data else None
        with pytest.raises(ValueError, match="is of a training with other images: give these"):
            train(RECIPE, other, out, limit)
    late = ClassMapTrainer(
        replace(RECIPE, seed=3), out, *cifar10(data, train=True)
    )  # it had begun before the file was there
    with pytest.raises(ValueError, match="is of another training, with seed=0 instead of 3: give its settings"):
        late.save()
    assert (out / "training.pt").read_bytes() == stored


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    data, out = cifar(tmp_path / "data"), tmp_path / "run"
    out.mkdir()
    (out / "training.pt").write_text("x")
    with pytest.raises(ValueError, match=r"training\.pt is damaged, or no file of a training"):
        train(RECIPE, data, out)
    save_checkpoint(tmp_path / "other.safetensors", torch.nn.Linear(2, 2), {})
    with pytest.raises(ValueError, match=r"other\.safetensors holds no weights of model-c"):
        train(replace(RECIPE, started_from=str(tmp_path / "other.safetensors")), data, tmp_path / "new")
    with pytest.raises(ValueError, match="limit=0: at least one image is needed"):
        train(RECIPE, data, tmp_path / "new", limit=0)
    with pytest.raises(OSError, match=r"cannot be written \(Not a directory\)"):
        train(RECIPE, data, out / "training.pt" / "run")


@pytest.mark.parametrize("device", ["cuda:99", "meta", "abacus"])
def test_a_device_that_is_not_there_is_a_sentence(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model-c", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--device", device]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(
    torch.__version__.startswith("2.8.") and not torch.cuda.is_available(),
    reason="PyTorch 2.8 asks for a driver, also for tensors without values",
)
def test_pictures_are_changed_where_they_are() -> None:
    # No device is needed for tensors without values, and all of them must agree on it.
    with FakeTensorMode():
        images = torch.zeros(6, 3, 32, 32, dtype=torch.uint8, device="cuda")
        changed = augment(normalise(images[torch.arange(4)]), 24, torch.Generator())
    assert (changed.device.type, changed.shape) == ("cuda", (4, 3, 24, 24))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_goes_on_on_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out, run_epoch = cifar(tmp_path / "data"), tmp_path / "run", ClassMapTrainer.run_epoch

    def stopped(trainer: ClassMapTrainer, checkpoints: Checkpoints) -> None:
        if trainer.progress.epoch == 1:
            raise SystemExit
        run_epoch(trainer, checkpoints)

    recipe = replace(RECIPE, epochs=2, dropout=(0.1, 0.2))
    with monkeypatch.context() as patch:
        patch.setattr(ClassMapTrainer, "run_epoch", stopped)
        with pytest.raises(SystemExit):
            train(recipe, data, out, device="cuda")
    metadata = train(recipe, data, out, device="cpu")
    assert [entry["epoch"] for entry in metadata["history"]] == [1, 2]
