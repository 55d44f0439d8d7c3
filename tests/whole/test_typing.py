"""What a type checker sees of the package in a user's program."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from torch import nn

from plugin.attr import GuidedBackprop, LRPTranspose, NeuronGuidedBackprop

model, inputs = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.ones(1, 3)
GuidedBackprop(model).attribute(inputs, target=1)
LRPTranspose(model, "epsilon_plus_flat").attribute(inputs, target=1)
GuidedBackprop(model).attribute(inputs, tagret=3)
NeuronGuidedBackprop(model, "0").attribute(inputs)
"""
EXPECTED = {9: 'Unexpected keyword argument "tagret"', 10: 'Missing positional argument "neuron_selector"'}


def test_misspelt_and_missing_arguments_are_found(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM.lstrip("\n"))
    root = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    ran = subprocess.run(
        [*command, "program.py"], cwd=tmp_path, env={"MYPYPATH": str(root)}, capture_output=True, text=True, timeout=240
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("program.py:") and ": error: " in line]
    found = {int(line.split(":")[1]): line for line in lines}
    assert len(lines) == len(found) == len(EXPECTED), ran.stdout + ran.stderr
    for number, message in EXPECTED.items():
        assert message in found[number]
