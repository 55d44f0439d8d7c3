"""Settings of a training of All-CNN-C that cannot be, and other runs in its folder."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plugin.models.checkpoints import save_checkpoint
from plugin.models.data import cifar10
from plugin.models.train import ClassMapTrainer, Recipe, train

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
