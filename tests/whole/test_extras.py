"""Where an optional package is missing, one sentence names the extra that installs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugin import errors
from plugin.extras import require, require_own

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PREAMBLE = """
import contextlib, io, json, sys
blocked = "sklearn skimage streamlit pandas zarr torchmetrics onnx onnxscript".split()
sys.modules.update(dict.fromkeys(blocked))

import torch
from torch import nn

import gan.__main__, plugin.__main__, plugin.explorer.__main__
from gan.judging.generator_quality import frechet_distance
from plugin import accelerate, models
from plugin.attr import LRPTranspose
from plugin.datasets import attribute_folder
from plugin.explorer.inputs.handwritten_digits import digit

net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU()).eval()
images = torch.ones(1, 3, 2, 2)
attribute = "attribute --model all-cnn-c --data . --method gradient --out maps.zarr"
CALLS = {
    "digits": lambda: gan.__main__.main("train --data digits".split()),
    "score": lambda: gan.__main__.main("score --data digits".split()),
    "attribute": lambda: plugin.__main__.main(attribute.split()),
    "help": lambda: plugin.__main__.main("attribute --help".split()),
    "explore": lambda: plugin.__main__.main(["explore"]),
    "explorer": lambda: plugin.explorer.__main__.main([]),
    "frechet_distance": lambda: frechet_distance(torch.eye(3), torch.eye(3)),
    "attribute_folder": lambda: attribute_folder("all-cnn-c", ".", "maps.zarr", "gradient"),
    "onnx": lambda: accelerate.export(LRPTranspose(net), images, "map.onnx"),
    "ledger": lambda: LRPTranspose(net).ledger(images, 1).to_pandas(),
    "digit": lambda: digit(3),
    "pictures": lambda: len(models.sample_images()),
}
found = {}
for name, call in CALLS.items():
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            result = call()
        except (ImportError, SystemExit) as error:
            result = f"{type(error).__name__}: {error}"
    found[name] = [result, said.getvalue()]
print(json.dumps(found))
"""


def python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program in a folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_every_use_of_an_optional_package_names_its_extra(tmp_path: Path) -> None:
    ran = python(PREAMBLE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    commands = {"digits": "gan", "score": "gan", "attribute": "datasets", "explore": "app", "explorer": "app"}
    for name, extra in commands.items():
        code, said = found.pop(name)
        assert code == 2, name
        assert said.startswith("error: ")
        assert said.endswith(f"pip install 'captum-simplicity[{extra}]'\n")
        assert said.count("\n") == 1
    assert found.pop("help") == ["SystemExit: 0", ""]
    assert found.pop("pictures") == [6, ""]
    calls = {"frechet_distance": "gan", "attribute_folder": "datasets", "onnx": "accelerate"}
    calls |= {"ledger": "tables", "digit": "app"}
    assert found.keys() == calls.keys()
    for name, extra in calls.items():
        assert found[name][0].startswith("MissingExtraError: "), name
        assert found[name][0].endswith(f"pip install 'captum-simplicity[{extra}]'")


def test_the_error_is_an_import_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match="the digits needs the package scikit-learn: pip install") as caught:
        require("sklearn.datasets", extra="gan", purpose="the digits")
    assert isinstance(caught.value, errors.MissingExtraError)
    assert isinstance(caught.value, errors.AttributionError)
    assert caught.value.name == "sklearn"


def test_what_an_installed_package_lacks_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_extra.py").write_text("import what_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_nobody_has") as caught:
        require("broken_extra", extra="gan", purpose="this")
    assert not isinstance(caught.value, errors.MissingExtraError)


@pytest.mark.parametrize(("name", "script"), [("plugin", "import gan"), ("gan", "import plugin.explorer")])
def test_a_file_of_the_same_name_is_named(name: str, script: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").touch()
    ran = python(script, tmp_path)
    assert ran.returncode == 1
    expected = f"ImportError: `import {name}` finds {tmp_path / name}.py instead of the package of captum-simplicity"
    assert expected in ran.stderr.splitlines()[-1]


def test_our_packages_are_our_own() -> None:
    require_own("plugin")
    require_own("gan")
    with pytest.raises(ImportError, match="`import json` finds"):
        require_own("json")
