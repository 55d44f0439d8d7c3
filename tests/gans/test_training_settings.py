"""Impossible settings of a training, other runs in a folder, and the state that a training leaves unchanged."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gan import DCGAN, MLPGAN, CodeSpaceAM, Recipe, load, load_classifier, train, train_classifier
from gan.__main__ import main
from gan.data import ImageSet
from gan.judging.generator_quality import sample
from gan.training import Trainer

TINY = Recipe("mlp", {"hidden": (8,), "code_size": 3}, steps=2, batch_size=4)


def noise(seed: int = 0, classes: tuple[str, ...] = ("left", "right"), side: int = 8) -> ImageSet:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (40, 1, side, side), dtype=torch.uint8, generator=random)
    return ImageSet("noise", images, torch.randint(len(classes), (40,), generator=random), classes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: it must be at least 1"),
        ({"batch_size": 1}, "batch_size=1: it must be at least 2"),
        ({"penalty_every": 0}, "penalty_every=0"),
        ({"learning_rate": math.nan}, "learning_rate=nan: give a finite number above 0"),
        ({"penalty": -1.0}, "penalty=-1.0: give a finite number, 0 for none"),
        ({"average_decay": 1.0}, "average_decay=1.0"),
        ({"precision": "float64"}, "precision='float64': choose one of bfloat16, float32"),
        ({"architecture": "vae"}, "architecture='vae': choose one of mlp, dcgan"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


@pytest.mark.parametrize("network", [MLPGAN, DCGAN])
def test_codes_that_cannot_be_are_refused(network: type) -> None:
    with pytest.raises(ValueError, match="code_size=0: a code has at least one number"):
        network((1, 8, 8), code_size=0)
    with pytest.raises(ValueError, match="code_size=4: 10 classes are chosen by as many numbers"):
        network((1, 8, 8), code_size=4, classes=10)


def test_a_seed_that_no_generator_takes_is_named(tmp_path: Path) -> None:
    pair, classifier = load("gan-mnist"), load_classifier("mnist-classifier")
    for work in (
        lambda: sample(pair.generator, 1, seed=2**64),
        lambda: CodeSpaceAM(classifier, pair.generator).maximize(0, runs=2, seed=2**64 - 1),
        lambda: train(replace(TINY, seed=-(2**63) - 1), noise(), noise(), tmp_path / "run"),
    ):
        with pytest.raises(ValueError, match=r"seed=-?\d+: give a whole number from -2\^63 to 2\^64 - 1"):
            work()
    assert not [*tmp_path.iterdir()]


def test_training_and_loading_leave_the_global_random_state(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(TINY, noise(), noise(), tmp_path)
    train_classifier(tmp_path / "c.safetensors", noise(), noise(), epochs=1)
    load_classifier(tmp_path / "c.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_a_run_with_other_pictures_of_the_same_count_is_refused(tmp_path: Path) -> None:
    train(TINY, noise(), noise(), tmp_path)
    with pytest.raises(ValueError, match="is of a training with other images: give these, or another folder"):
        train(TINY, noise(seed=1), noise(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_checkpoint_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        torch.save({"step": 3}, tmp_path / "training.pt")
    else:
        (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.pt is damaged, or no file of a training .*remove it"):
        train(TINY, noise(), noise(), tmp_path)


def test_of_two_runs_in_one_folder_the_first_to_save_stays(tmp_path: Path) -> None:
    """Both began before either had written anything."""
    first, second = (Trainer(replace(TINY, seed=seed), noise(), tmp_path) for seed in (0, 1))
    for trainer in (first, second):
        trainer.resume()
        trainer.train_step()
    first.save()
    with pytest.raises(ValueError, match="is of another training"):
        second.save()
    first.save()


def test_a_folder_that_cannot_be_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(Trainer, "run", None)
    with pytest.raises(OSError, match=r"training\.pt cannot be written \(Not a directory\): give another name"):
        train(TINY, noise(), noise(), tmp_path / "file" / "run")
    monkeypatch.setattr("gan.training.supervised.ClassifierTrainer", None)
    with pytest.raises(OSError, match=r"cannot be written \(Is a directory\)"):
        train_classifier(tmp_path, noise(), noise())
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
        train(TINY, noise(), noise(), tmp_path / "run")


@pytest.mark.parametrize(
    "command",
    [["maximize", "--target", "0", "--out"], ["maximize", "--target", "0", "--gif"], ["sample", "--out"]],
    ids=["grid", "film", "sample"],
)
def test_a_file_that_cannot_be_is_refused_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.maximising.CodeSpaceAM.maximize", None)
    monkeypatch.setattr("gan.commands.sample.sample", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gif").mkdir()
    (tmp_path / "m.png").mkdir()
    for name in ("m.gif",) if command[-1] == "--gif" else ("m.png", "/"):
        assert main([*command, name]) == 2
        assert "cannot be written (Is a directory): give another name" in capsys.readouterr().err


def test_the_classifier_of_another_training_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    train_classifier(path, noise(), noise(), "judge", epochs=1)
    content = path.read_bytes()
    others: list[tuple[dict[str, Any], str]] = [
        ({"epochs": 2}, "with epochs=1 instead of 2: give its settings, or another folder"),
        ({"seed": 3}, "with seed=0 instead of 3"),
        ({"mirror": True}, "with mirror=False instead of True"),
        ({"kind": "classifier"}, "with architecture='judge' instead of 'classifier'"),
        ({"train": noise(side=12), "test": noise(side=12)}, r"with image_shape=\[1, 8, 8\] instead of \[1, 12, 12\]"),
        ({"train": noise(seed=1)}, "is of a training with other images"),
    ]
    for settings, message in others:
        with pytest.raises(ValueError, match=message):
            train_classifier(path, **{"train": noise(), "test": noise(), "kind": "judge", "epochs": 1, **settings})
    (tmp_path / "notes.safetensors").write_text("remember the milk")
    with pytest.raises(ValueError, match="exists and is no classifier"):
        train_classifier(tmp_path / "notes.safetensors", noise(), noise())
    assert path.read_bytes() == content
    train_classifier(path, noise(), noise(), "judge", epochs=1)
    assert path.read_bytes() == content


def test_few_images_are_learnt_in_any_number_of_steps(tmp_path: Path) -> None:
    for epochs in range(1, 8):  # of one step each
        train_classifier(tmp_path / f"{epochs}.safetensors", noise(), noise(), "judge", epochs=epochs)


def test_a_classifier_measures_on_the_classes_that_it_learns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of 2 classes, those to measure on .* of 3: give two splits"):
        train_classifier(tmp_path / "c.safetensors", noise(), noise(classes=("a", "b", "c")))
    with pytest.raises(ValueError, match="epochs=0: at least one is needed"):
        train_classifier(tmp_path / "c.safetensors", noise(), noise(), epochs=0)
    with pytest.raises(ValueError, match="unknown classifier 'tree': choose one of classifier, judge"):
        train_classifier(tmp_path / "c.safetensors", noise(), noise(), "tree")


def test_a_judge_of_other_images_or_classes_is_refused(tmp_path: Path) -> None:
    judge = load_classifier("mnist-judge")  # it averages over positions, and would take any size
    with pytest.raises(ValueError, match=r"does not take images \(1, 8, 8\), but \(1, 28, 28\)"):
        train(TINY, noise(), noise(), tmp_path, judge)
    with pytest.raises(ValueError, match=r"knows the classes 0, 1, 2 \.\.\. \(10\), noise has left, right"):
        train(TINY, noise(side=28), noise(side=28), tmp_path, judge)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--weights w.pt", "--weights needs --space fourier"),
        ("--space fourier --network all-cnn-c --gan gan-mnist", "--gan is of --space codes"),
        ("--space maco --network all-cnn-c --prior box", "--prior is of --space codes"),
    ],
)
def test_an_option_that_would_not_be_heeded_is_refused(
    options: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["maximize", "--target", "0", *options.split()]) == 2
    assert message in capsys.readouterr().err
