"""The extensions in CONTRIBUTING.md are carried out as written, in a copy, and nothing else is changed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import ROOT

_HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"```python\n# (\S+?)(?:: (\w+))?\n(.*?)```", re.DOTALL)


def extensions() -> dict[str, list[tuple[str, str, str]]]:
    """By heading, the blocks: file, place in it (empty: the end), text."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Extensions")[2]
    parts = _HEADING.split(text)[1:]
    return {heading: _BLOCK.findall(body) for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def extended(copy: Path, heading: str) -> None:
    """Carry out the instructions under a heading."""
    for file, place, text in extensions()[heading]:
        path = copy / file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(_inserted(before, place, text) if place else f"{before}\n\n{text}".lstrip(), encoding="utf-8")


def _inserted(content: str, place: str, text: str) -> str:
    """At the end of a function, or of a tuple."""
    lines = content.split("\n")
    start = next(i for i, line in enumerate(lines) if re.match(rf"(def )?{place}\b", line))
    end = next(i for i, line in enumerate(lines[start + 1 :], start + 1) if line and not line.startswith(" "))
    while not lines[end - 1]:
        end -= 1
    return "\n".join([*lines[:end], *(f"    {line}" for line in text.rstrip().split("\n")), *lines[end:]])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with all five extensions, which do not disturb one another."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("plugin", "gan"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "streamlit_app.py", folder)
    for heading in extensions():
        extended(folder, heading)
    return folder


# Each program in a namespace of its own; all in one process, which imports PyTorch and the copy once.
_ALL = """
import json, sys, traceback
failures = {}
for heading, program in json.loads(sys.argv[1]).items():
    try:
        exec(program, {"__name__": "__main__"})
    except Exception:
        failures[heading] = traceback.format_exc()
print(json.dumps(failures))
"""


@pytest.fixture(scope="module")
def failures(copy: Path) -> dict[str, str]:
    """The errors of the programs below that do not find the text they expect in the copy."""
    ran = subprocess.run(
        [sys.executable, "-c", _ALL, json.dumps(PROGRAMS)], cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_there_are_five() -> None:
    assert list(extensions()) == ["A rule", "An operation", "A method", "A network", "A page"]
    assert all(extensions().values())


PROGRAMS = {
    "A rule": """
import torch
from plugin.attr import LRPTranspose
from plugin.explorer.choices.offered_rules import RULES as offered
from plugin.rules import Composite
from plugin.rules.lrp import RULES
layer = torch.nn.Linear(4, 3).double()
x = torch.randn(2, 4, dtype=torch.float64)
ours = LRPTranspose(layer, Composite(default=RULES["magnitude"]())).attribute(x, 1)
products = (x * layer.weight[1]).abs()
expected = products / products.sum(1, keepdim=True) * layer(x)[:, 1:2]
assert torch.allclose(ours, expected, rtol=1e-5), (ours, expected)
assert "magnitude" in offered
""",
    "An operation": """
import torch
from plugin.attr import LRPTranspose
from plugin.operations import as_markdown
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)
    def forward(self, x):
        return self.b(torch.sinc(self.a(x)))
LRPTranspose(Net()).attribute(torch.randn(2, 4), 1)
assert "`sinc`" in as_markdown()
""",
    "A method": """
import torch
from plugin.attr.methods import METHODS
from plugin.explorer.choices.offered_methods import OF_PICTURES
method = METHODS["linear-adjoint"]
net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
found = method.attribution_class(neuron=False)(net, **method.construct).attribute(torch.randn(1, 4), 1)
assert torch.allclose(found, net[2].weight[1] @ net[0].weight)
assert "linear-adjoint" in OF_PICTURES
""",
    "A network": """
from plugin import models
from plugin.explorer.inputs import offered_networks
from plugin.models.checkpoints import save_checkpoint
from plugin.models.networks import NETWORKS
save_checkpoint("small.safetensors", NETWORKS["small-cnn"].build(), {"network": "small-cnn"})
assert models.load("small-cnn", checkpoint="small.safetensors").classes[3] == "cat"
assert "small-cnn" not in models.names() and "small-cnn" in offered_networks.architectures()
""",
    "A page": """
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
at = AppTest.from_file("streamlit_app.py", default_timeout=120)
at._page_hash = calc_hash("about")
at.run()
assert not at.exception and at.title[0].value == "About this program"
""",
}


@pytest.mark.parametrize("heading", PROGRAMS)
def test_an_extension_takes_one_place(failures: dict[str, str], heading: str) -> None:
    assert heading not in failures, failures[heading]
