"""Trainings and runs that are interrupted, killed, or meet a full disk: nothing is lost, and one sentence says so."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from support.helpers import slow
from support.processes import run

from gan import train_classifier
from gan.__main__ import main
from gan.data import read

GAN = "train --data digits --network mlp --steps 24 --batch-size 8"
CLASSIFIER = "train --data digits --network classifier --epochs 2 --size 12"  # it has dropout
COMMANDS = {"gan": GAN, "classifier": CLASSIFIER}
STEPS = {"gan": "gan.training.adversarial.Trainer", "classifier": "gan.training.supervised.ClassifierTrainer"}
FILES = {"gan": "training.pt", "classifier": "classifier.training.pt"}
RESULTS = {"gan": ("mlp.safetensors", "history.json", "samples.png"), "classifier": ("classifier.safetensors",)}
ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals and limits")

# Sends itself a signal in the middle of a step, or while it writes a file, once it has begun so many.
PROGRAM = """
import os, sys, torch
torch.set_num_threads(1)
from pydoc import locate
import plugin.files
from gan.__main__ import main
from plugin.models.training_runs import Checkpoints
number, once, place, command, folder = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
owner, _, name = place.rpartition(".")
owner, begun = locate(owner), 0
work = getattr(owner, name)
def interrupted(*arguments):
    global begun
    begun += 1
    if begun == once:
        os.kill(os.getpid(), number)
    return work(*arguments)
setattr(owner, name, interrupted)
every = Checkpoints.__init__
Checkpoints.__init__ = lambda self, save, seconds=120, steps=None: every(self, save, seconds, 5)
raise SystemExit(main([*command.split(), "--out", folder]))
"""
WRITING = "plugin.files.to_disk"  # called for a file, and for its folder


def train(kind: str, folder: Path, number: int = 0, once: int = 0, place: str = "") -> "CompletedProcess[str]":
    return run(PROGRAM, number, once, place or f"{STEPS[kind]}.train_step", COMMANDS[kind], folder)


def steps_in(file: Path) -> int:
    step: int = torch.load(file, weights_only=True)["state"]["step"]
    return step


@ON_POSIX
@pytest.mark.parametrize("kind", [slow("gan"), "classifier"])
def test_a_training_that_is_interrupted_and_killed_ends_with_the_same_files(kind: str, tmp_path: Path) -> None:
    assert train(kind, tmp_path / "unbroken").returncode == 0
    broken = tmp_path / "broken"
    file = broken / FILES[kind]
    stopped = train(kind, broken, signal.SIGINT, 3)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == f"stopped; the same command goes on from the checkpoint {file}"
    assert steps_in(file) == 3, "the step was finished and saved"
    assert train(kind, broken, signal.SIGKILL, 9).returncode == -signal.SIGKILL
    assert steps_in(file) == 10
    assert train(kind, broken, signal.SIGKILL, 2).returncode == -signal.SIGKILL
    assert train(kind, broken, signal.SIGKILL, 1, WRITING).returncode == -signal.SIGKILL
    assert steps_in(file) == 10, "the checkpoint that was being written does not count"
    assert train(kind, broken).returncode == 0
    for name in RESULTS[kind]:
        assert (broken / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_interruption_before_the_first_step_names_no_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{STEPS[kind]}.train_step", interrupted)
    assert main([*COMMANDS[kind].split(), "--out", str(tmp_path / "run")]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "stopped; no step was finished, so nothing was written"
    assert not (tmp_path / "run").exists()


def test_an_unfinished_training_of_a_classifier_is_kept_from_others_and_removed_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = read("digits", train=True, size=12), read("digits", train=False, size=12)
    path, file = tmp_path / "judge.safetensors", tmp_path / "judge.training.pt"
    with monkeypatch.context() as patch:
        patch.setattr("gan.training.supervised.save_checkpoint", None)  # as if killed at the end
        with pytest.raises(TypeError):
            train_classifier(path, *digits, "judge", epochs=1)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"judge\.training\.pt is of another training, with epochs=1 instead of 2"):
        train_classifier(path, *digits, "judge", epochs=2)
    with pytest.raises(ValueError, match="is of a training with other images"):
        train_classifier(path, replace(digits[0], images=digits[0].images.flip(3)), digits[1], "judge", epochs=1)
    assert file.read_bytes() == before
    assert train_classifier(path, *digits, "judge", epochs=1)["accuracy"] > 0.1
    assert [each.name for each in tmp_path.iterdir()] == ["judge.safetensors"]


@ON_POSIX
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (GAN, "training.pt"),
        (CLASSIFIER, "classifier.training.pt"),
        ("maximize --target 3 --steps 4", "run.png"),
    ],
)
def test_a_full_disk_is_a_sentence(command: str, name: str, tmp_path: Path) -> None:
    limited = (
        "import resource, sys\nfrom gan.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n"
        "raise SystemExit(main([*sys.argv[1].split(), '--out', sys.argv[2]]))"
    )
    out = tmp_path / "run" / "run.png" if name == "run.png" else tmp_path / "run"
    found = run(limited, command, out)
    assert found.returncode == 2, found.stderr
    assert found.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'run' / name} cannot be written (File too large)"
    )
    assert not [path for path in (tmp_path / "run").iterdir() if path.stat().st_size]
