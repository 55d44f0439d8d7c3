"""The package as a type checker sees it in a user's program."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugin import attr

PROGRAM = """
import torch
from torch import nn

from plugin import attr

model, inputs = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.ones(1, 3)
attr.GuidedBackprop(model).attribute(inputs, target=1)
attr.LRPTranspose(model, "epsilon_plus_flat").attribute(inputs, target=1)
attr.NeuronGuidedBackprop(model, "0").attribute(inputs)
attr.GuidedBackprop(model).attribute(inputs, tagret=3)
attr.Deconvolution(model).attribute(inputs, tagret=3)
attr.ModifiedBackprop(model, "gradient").attribute(inputs, tagret=3)
attr.GuidedGradCam(model, "0").attribute(inputs, tagret=3)
attr.LRPTranspose(model).attribute(inputs, tagret=3)
attr.LRPTranspose(model).compile().attribute(inputs, tagret=3)
attr.LayerLRPTranspose(model, "0").attribute(inputs, tagret=3)
attr.NeuronLRPTranspose(model, "0").attribute(inputs, 1, tagret=3)
attr.NeuronDeconvolution(model, "0").attribute(inputs, 1, tagret=3)
"""
MISSING, FIRST, LAST = 9, 10, 18
EXPECTED = {MISSING: 'Missing positional argument "neuron_selector"'} | dict.fromkeys(
    range(FIRST, LAST + 1), 'Unexpected keyword argument "tagret"'
)
PUBLIC = [kind for name in attr.__all__ if hasattr(kind := getattr(attr, name), "attribute")]


# PyTorch's own types take mypy half a minute, and no signature below is its.
CONFIGURATION = """
[mypy]
strict = True
follow_imports = skip
[mypy-plugin.*]
follow_imports = normal
"""


def test_misspelt_and_missing_arguments_are_found(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM.lstrip("\n"))
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    root = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    ran = subprocess.run(
        [*command, "program.py"], cwd=tmp_path, env={"MYPYPATH": str(root)}, capture_output=True, text=True, timeout=240
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("program.py:") and ": error: " in line]
    found = {int(line.split(":")[1]): line for line in lines}
    assert len(lines) == len(found) == len(EXPECTED), ran.stdout + ran.stderr
    for number, message in EXPECTED.items():
        assert message in found[number]


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_attribute_documents_its_own_arguments(kind: Any) -> None:
    method = kind.attribute
    arguments = inspect.getdoc(method).partition("Args:")[2].partition("Returns:")[0]
    assert [name for name in inspect.signature(method).parameters if f"    {name}: " not in arguments] == ["self"]
