"""Files are there wholly or not at all: interruptions, full disks, several writers."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import run, start
from torch import nn

from plugin.accelerate import export
from plugin.attr import GuidedBackprop
from plugin.files import replacing, save_torch, write_bytes, write_json, write_text
from plugin.models.checkpoints import load_weights, read_metadata, save_checkpoint

Write = Callable[[Path], object]


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None], "b": {"c": "ü"}}, [], "text", 3])
def test_json_round_trip(value: Any, tmp_path: Path) -> None:
    path = write_json(tmp_path / "new" / "folder" / "value.json", value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_text_bytes_and_tensors_round_trip(tmp_path: Path) -> None:
    assert write_text(tmp_path / "text", "ü\n").read_bytes() == "ü\n".encode()
    assert write_bytes(tmp_path / "text", b"\0\1").read_bytes() == b"\0\1"
    state = {"weight": torch.arange(5.0), "step": 3}
    read = torch.load(save_torch(state, tmp_path / "state.pt"), weights_only=True)
    assert torch.equal(read["weight"], state["weight"])
    assert read["step"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.pt", "text"]


def test_the_same_tensors_give_the_same_file(tmp_path: Path) -> None:
    first, second = (save_torch({"weight": torch.arange(5.0)}, tmp_path / name) for name in ("first.pt", "second.pt"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = write_text(tmp_path / "picture.png", "old")

    def interrupted() -> None:
        with replacing(path) as partial:
            assert (partial.parent, partial.suffix) == (tmp_path, ".png")
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "results.json", "old")
    program = (
        "import os, signal, sys\nfrom plugin.files import replacing\nwith replacing(sys.argv[1]) as partial:\n"
        "    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = start(program, path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    """Whenever it is read, the file is one that a process wrote."""
    path, length = tmp_path / "shared.txt", 200_000
    program = (
        "import sys\nfrom plugin.files import write_text\nfor _ in range(40):\n"
        f"    write_text(sys.argv[1], {length} * sys.argv[2])\n"
    )
    processes, seen = [start(program, path, letter) for letter in "ab"], set()
    while any(process.is_alive() for process in processes):
        if path.exists():
            seen.add(path.read_text())
    assert [process.exitcode for process in processes] == [0, 0]
    assert seen <= {length * "a", length * "b"}
    assert list(tmp_path.iterdir()) == [path]


# A full disk: no file may grow beyond a few thousand bytes.
LIMITED = """
import resource, sys
import torch
from torch import nn
from plugin.attr import GuidedBackprop
from plugin.accelerate import export
from plugin.files import save_torch, write_bytes
from plugin.models.checkpoints import save_checkpoint
path, network = sys.argv[1], nn.Linear(100, 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    {write}
except OSError as error:
    print(error)
"""
WRITES = {
    "checkpoint.safetensors": "save_checkpoint(path, network, {})",
    "training.pt": "save_torch(network.state_dict(), path)",
    "picture.png": "write_bytes(path, bytes(10_000))",
    "program.pt2": "export(GuidedBackprop(network), torch.ones(1, 100), path)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_is_named_and_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / name, "old")
    process = run(LIMITED.replace("{write}", WRITES[name]), path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"{path} cannot be written (File too large): any previous content is kept"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_a_training_ends_with_a_sentence_when_the_disk_is_full(tmp_path: Path) -> None:
    program = (
        "import resource, sys\nfrom gan.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))\n"
        "raise SystemExit(main([*'train --data digits --network mlp --steps 1 --out'.split(), sys.argv[1]]))"
    )
    process = run(program, tmp_path / "run")
    assert process.returncode == 2
    said = process.stderr.strip().splitlines()[-1]
    assert said.startswith(f"error: {tmp_path / 'run' / 'training.pt'} cannot be written")


@pytest.mark.slow
def test_a_large_onnx_model_finds_its_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("plugin.accelerate.exporting._LARGEST_FILE", 0)
    network, inputs = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 1)), torch.ones(1, 100)
    (path,) = export(GuidedBackprop(network), inputs, tmp_path / "map.onnx")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.onnx", "map.onnx.data"]
    target = torch.zeros(1, dtype=torch.int64)
    (found,) = runtime.InferenceSession(path).run(None, {"inputs": inputs.numpy(), "target": target.numpy()})
    expected = GuidedBackprop(network).attribute(inputs, 0)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-6)


def test_a_folder_that_cannot_be_made_is_an_error_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "results.json"
    with pytest.raises(OSError, match=r"results\.json cannot be written \((File exists|Not a directory)\)"):
        write_text(path, "new")


def test_a_checkpoint_replaces_the_old_one(tmp_path: Path) -> None:
    path, network = tmp_path / "weights" / "network.safetensors", nn.Linear(3, 2)
    for seed in (1, 2):
        save_checkpoint(path, network, {"seed": seed})
    assert read_metadata(path) == {"seed": 2}
    assert torch.equal(load_weights(path)["bias"], network.bias.detach().half().float())
    assert list(path.parent.iterdir()) == [path]
