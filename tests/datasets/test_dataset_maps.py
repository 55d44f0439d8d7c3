"""Maps of whole folders: the content of a store, which is the same however often the run was killed."""

import hashlib
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from support import processes
from support.helpers import run_and_be_killed
from support.picture_folders import BAD, CLASSES, PREPROCESSING, arrays, assert_alike, content, draw, fill, network
from support.processes import CONTEXT

from plugin.__main__ import main
from plugin.attr import GuidedBackprop, GuidedGradCam, LRPTranspose
from plugin.attr.methods import METHODS
from plugin.datasets import attribute_folder
from plugin.datasets.labels import labels_of
from plugin.rules.presets import epsilon_gamma_box

NETWORK = "support.picture_folders:network"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which four are bad."""
    return fill(tmp_path / "pictures", 8)


def not_a_network() -> int:
    """A value that a factory must not return."""
    return 3


# The content of a store


def test_store_holds_the_map_of_every_picture_and_says_what_it_is(folder, tmp_path):
    model = network()
    report = attribute_folder(model, folder, tmp_path / "maps.zarr", "guided-backprop", batch_size=5, progress=False)
    group, stored = zarr.open_group(tmp_path / "maps.zarr", mode="r"), arrays(tmp_path / "maps.zarr")
    assert (report.maps, report.left, report.found) == (8, 0, 0)
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    assert stored["file"].tolist() == sorted(names)
    assert stored["maps"].shape == (12, 3, 9, 9)
    assert stored["maps"].dtype == np.float32
    for row, name in enumerate(sorted(names)):
        if name in BAD:
            assert BAD[name] in stored["error"][row]
            assert np.isnan(stored["maps"][row]).all()
            continue
        inputs = model.preprocess(Image.open(folder / name))
        logits = model.network(inputs)[0].detach()
        expected = GuidedBackprop(model.network).attribute(inputs, target=int(logits.argmax()))[0]
        np.testing.assert_allclose(stored["maps"][row], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(stored["logits"][row], logits, rtol=1e-5)
        np.testing.assert_allclose(stored["probability"][row], logits.softmax(0).max(), rtol=1e-5)
        assert stored["target"][row] == stored["predicted"][row] == logits.argmax()
        assert stored["error"][row] == ""
        assert stored["bytes"][row] == (folder / name).stat().st_size
    settings = group.attrs["settings"]
    assert settings["model"] == "tiny"  # type: ignore[call-overload]
    assert settings["method"] == "guided-backprop"  # type: ignore[call-overload]
    assert settings["versions"]["torch"] == torch.__version__.split("+")[0]  # type: ignore[call-overload]
    assert group.attrs["classes"] == list(CLASSES)
    assert group.attrs["finished"] is True


def test_bad_pictures_are_listed_with_reasons(folder, tmp_path):
    report = attribute_folder(network(), folder, tmp_path / "maps.zarr", "gradient", batch_size=3, progress=False)
    assert report.skipped.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in report.skipped[name]


def test_hash_is_that_of_the_weights(folder, tmp_path):
    model = network()

    def stored_hash(out: str) -> str:
        attribute_folder(model, folder, tmp_path / out, "gradient", progress=False)
        return zarr.open_group(tmp_path / out, mode="r").attrs["settings"]["weights_sha256"]  # type: ignore[call-overload]

    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert stored_hash("first") == digest.hexdigest()
    with torch.no_grad():
        model.network.head.bias[0] += 1
    assert stored_hash("second") != digest.hexdigest()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_writes_maps(method, folder, tmp_path):
    layer = "conv2" if METHODS[method].needs_layer else None
    attribute_folder(
        network(), folder, tmp_path / "maps.zarr", method, target=1, layer=layer, batch_size=20, progress=False
    )
    stored = arrays(tmp_path / "maps.zarr")
    maps = stored["maps"][stored["error"] == ""]
    assert np.isfinite(maps).all()
    assert maps.any()
    assert (stored["target"][stored["error"] == ""] == 1).all()


def test_methods_get_the_layer_and_the_range_of_the_input(folder, tmp_path):
    model, inputs = network(), PREPROCESSING(Image.open(folder / "cat" / "001.png"))
    attribute_folder(model, folder, tmp_path / "cam", "guided-grad-cam", 2, layer="conv2", progress=False)
    expected = GuidedGradCam(model.network, "conv2").attribute(inputs, target=2)[0]
    np.testing.assert_allclose(arrays(tmp_path / "cam")["maps"][0], expected, rtol=1e-5, atol=1e-7)
    attribute_folder(model, folder, tmp_path / "box", "lrp-epsilon-gamma-box", 2, progress=False)
    box = epsilon_gamma_box(*PREPROCESSING.input_range)
    expected = LRPTranspose(model.network, box).attribute(inputs, target=2)[0]
    np.testing.assert_allclose(arrays(tmp_path / "box")["maps"][0], expected, rtol=1e-4, atol=1e-6)


def test_half_precision_and_what_it_cannot_hold(folder, tmp_path):
    model = network()
    attribute_folder(model, folder, tmp_path / "full", "gradient", progress=False)
    report = attribute_folder(model, folder, tmp_path / "half", "gradient", dtype="float16", progress=False)
    assert report.maps == 8
    half = arrays(tmp_path / "half")["maps"]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, arrays(tmp_path / "full")["maps"].astype(np.float16))
    with torch.no_grad():
        model.network.head.weight *= 1e8
    report = attribute_folder(model, folder, tmp_path / "over", "gradient", dtype="float16", progress=False)
    assert report.maps == 0
    assert "float16" in report.skipped["cat/001.png"]


def test_network_by_factory_with_a_checkpoint(folder, tmp_path):
    trained = network()
    with torch.no_grad():
        trained.network.head.weight.mul_(2)
    torch.save(trained.network.state_dict(), tmp_path / "trained.pt")
    attribute_folder(trained, folder, tmp_path / "direct", "gradient", progress=False)
    name = NETWORK
    attribute_folder(name, folder, tmp_path / "factory", "gradient", checkpoint=tmp_path / "trained.pt", progress=False)
    np.testing.assert_array_equal(arrays(tmp_path / "factory")["maps"], arrays(tmp_path / "direct")["maps"])
    assert zarr.open_group(tmp_path / "factory", mode="r").attrs["settings"]["model"] == name  # type: ignore[call-overload]


# Labels


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Tabby_cat/a.png", "x/truck/b.png"], [0, 2]),
        (["3/a.png", "0/b.png"], [3, 0]),
        (["n5/a", "n1/b", "n2/c", "n3/d", "n4/e"], [4, 0, 1, 2, 3]),
        (["train/truck/1/a.png", "train/dog/1/b.png", "test/dog/c.png"], [2, 1, 1]),
    ],
    ids=["names", "numbers", "order", "names above"],
)
def test_labels_come_from_folders(names, expected):
    assert labels_of(names, CLASSES, 5) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png"], "a.png lies in no class folder"),
        (["zebra/a.png"], "the folder zebra"),
        # By the order of the folders the bird would be class 0, and it is called like class 4.
        ([f"{name}/a.png" for name in ("bird", "dog", "lorry", "ship", "tabby cat")], "the folder lorry"),
    ],
)
def test_unknown_labels_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        labels_of(names, CLASSES, 5)


@pytest.mark.parametrize(
    ("names", "outputs", "message"),
    [
        ([f"{number}/a.png" for number in range(12)], 12, "10 as 10. torchvision's ImageFolder .* 10 as 2"),
        (["a/1/a.png", "b/1/b.png"], 5, "a/1/a.png and b/1/b.png are taken as class 1"),
        ([f"{split}/{number:02}/a.png" for number in range(12) for split in ("train", "val")], 12, None),
    ],
)
def test_numbers_that_may_mean_something_else_are_told(names, outputs, message):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        labels_of(names, (), outputs)
    assert len(told) == (message is not None)
    assert message is None or re.search(message, str(told[0].message))


def test_labels_are_explained(folder, tmp_path):
    (folder / "cat").rename(folder / "Tabby cat")
    attribute_folder(network(), folder, tmp_path / "maps", "gradient", "label", batch_size=3, progress=False)
    stored = arrays(tmp_path / "maps")
    good = stored["error"] == ""
    for name, target in zip(stored["file"][good], stored["target"][good], strict=True):
        assert CLASSES[target] == ("truck" if name.startswith("truck") else "tabby cat")


# The same store, however it came about


def test_batches_and_workers_do_not_matter(folder, tmp_path):
    model = network()
    for out, batch_size, workers in (("first", 4, 1), ("more workers", 4, 5), ("larger", 7, 2), ("one", 1, 2)):
        attribute_folder(model, folder, tmp_path / out, "lrp-0", batch_size=batch_size, workers=workers, progress=False)
    assert content(tmp_path / "first") == content(tmp_path / "more workers")
    assert_alike(tmp_path / "first", tmp_path / "larger")
    assert_alike(tmp_path / "first", tmp_path / "one")


def test_processes_share_the_work(folder, tmp_path, monkeypatch):
    model = network()
    attribute_folder(model, folder, tmp_path / "alone", "gradient", batch_size=2, progress=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, left in ((1, 6), (0, 0)):
        monkeypatch.setenv("RANK", str(rank))
        report = attribute_folder(model, folder, tmp_path / "shared", "gradient", batch_size=2, progress=False)
        assert report.left == left
    assert content(tmp_path / "shared") == content(tmp_path / "alone")


def test_torchrun(folder, tmp_path):
    """As `torchrun --standalone --nproc-per-node 2 -m plugin`, whose processes each import PyTorch anew."""
    program = """
import sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from plugin.__main__ import main
alone = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "max_restarts": 0}
codes = elastic_launch(LaunchConfig(**alone, nproc_per_node=2, start_method="fork"), main)(sys.argv[1:])
assert codes == {0: 0, 1: 0}, codes
"""
    command = ["attribute", "--model", NETWORK, "--data", folder, "--method", "gradient", "--batch-size", "2"]
    ran = processes.run(program, *command, "--out", tmp_path / "shared")
    assert ran.returncode == 0, ran.stderr
    assert "is finished: 8 maps, 4 files skipped" in ran.stdout
    attribute_folder(network(), folder, tmp_path / "alone", "gradient", batch_size=2, progress=False)
    assert_alike(tmp_path / "shared", tmp_path / "alone")


def test_ten_kills_change_nothing(tmp_path):
    folder = fill(tmp_path / "pictures", 56)

    def run(out: str, write: int) -> int | None:
        arguments = {
            "model": "all-cnn-c",
            "data": folder,
            "out": tmp_path / out,
            "method": "guided-backprop",
            "batch_size": 4,
            "progress": False,
        }
        process = CONTEXT.Process(target=run_and_be_killed, args=(attribute_folder, arguments, write))
        process.start()
        process.join()
        return process.exitcode

    assert run("unbroken", 0) == 0
    random = np.random.default_rng(0)
    kept: dict[Path, int] = {}
    # The first kill is while the store is being created, which takes 41 writes; a batch takes fourteen or more.
    for write in [5, 60, *random.integers(1, 29, 8).tolist()]:
        assert run("killed", write) == -signal.SIGKILL
        finished = {path.name for path in (tmp_path / "killed" / "finished" / "c").glob("*") if not path.suffix}
        for path in (tmp_path / "killed" / "maps" / "c").glob("*/0/0/0"):
            if path.parts[-4] in finished:
                assert kept.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert 0 < len(kept) < 15
    assert run("killed", 0) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished batch was computed again"
    assert content(tmp_path / "killed") == content(tmp_path / "unbroken")
    assert not list(tmp_path.glob(".*"))


# Refusals, and files left alone


def change_a_file(folder: Path) -> None:
    draw(folder / "cat" / "001.png", 7)


def add_a_file(folder: Path) -> None:
    draw(folder / "bird" / "1.png", 0)


def remove_a_file(folder: Path) -> None:
    (folder / "cat" / "001.png").unlink()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "lrp-epsilon"}, "method was 'gradient' and is now 'lrp-epsilon'"),
        ({"target": 1}, "target was 'predicted' and is now 1"),
        ({"dtype": "float16"}, "dtype was 'float32' and is now 'float16'"),
        ({"model": "all-cnn-c"}, "preprocessing.crop was 9 and is now 32"),
    ],
    ids=["method", "target", "dtype", "model"],
)
def test_other_settings_are_refused(changed, message, folder, tmp_path):
    arguments = {"model": network(), "data": folder, "out": tmp_path / "maps", "method": "gradient", "progress": False}
    attribute_folder(**arguments)
    before = content(tmp_path / "maps")
    with pytest.raises(ValueError, match=message):
        attribute_folder(**arguments | changed)
    assert content(tmp_path / "maps") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_a_file, "cat/001.png is changed"),
        (add_a_file, "bird/1.png is new"),
        (remove_a_file, "cat/001.png is gone"),
    ],
)
def test_other_files_are_refused(change: Callable[[Path], None], message, folder, tmp_path):
    attribute_folder(network(), folder, tmp_path / "maps", "gradient", progress=False)
    change(folder)
    with pytest.raises(ValueError, match=message):
        attribute_folder(network(), folder, tmp_path / "maps", "gradient", progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "sorcery"}, "unknown method 'sorcery'"),
        ({"target": "best"}, "unknown target 'best'"),
        ({"target": 5}, "target 5 is out of range|no answer for tiny"),
        ({"target": "label"}, "the folder cat is called like none of the 5 classes"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"block_rows": 0}, "block_rows = 0"),
        ({"method": "guided-grad-cam"}, "needs a layer"),
        ({"layer": "conv2"}, "takes no layer"),
        ({"model": "no-such-network"}, "unknown network"),
        ({"model": "no_such_module:network"}, "there is no no_such_module:network"),
        ({"model": "./nets/own.py:network"}, "names a file: give own:network, in the folder that holds own.py"),
        ({"model": f"{__name__}:not_a_network"}, "returned a int"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(arguments, message, folder, tmp_path):
    given = {"model": network(), "data": folder, "out": tmp_path / "maps", "method": "gradient", "progress": False}
    with pytest.raises(ValueError, match=message):
        attribute_folder(**given | arguments)
    assert not (tmp_path / "maps").exists()


def test_what_is_no_store_is_left_alone(folder, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.txt").write_text("precious")
    zarr.create_group(tmp_path / "other.zarr")
    refused = (
        ("results", "is no store of maps"),
        ("other.zarr", "a zarr store of something else"),
        ("results/thesis.txt/maps.zarr", "cannot be written .Not a directory.: give another name"),
    )
    for out, message in refused:
        with pytest.raises((ValueError, OSError), match=message):
            attribute_folder(network(), folder, tmp_path / out, "gradient", progress=False)
    assert content(tmp_path / "results") == {"thesis.txt": b"precious"}


@pytest.mark.parametrize("empty", [True, False])
def test_folder_without_files_is_refused(empty, tmp_path):
    if empty:
        (tmp_path / "pictures").mkdir()
    with pytest.raises((NotADirectoryError, ValueError), match="holds no files" if empty else "is no folder"):
        attribute_folder(network(), tmp_path / "pictures", tmp_path / "maps", "gradient", progress=False)


def test_failing_disk_loses_nothing(folder, tmp_path, monkeypatch):
    model, out = network(), tmp_path / "maps"
    attribute_folder(model, folder, tmp_path / "unbroken", "gradient", batch_size=2, progress=False)
    with monkeypatch.context() as patch:
        read = Path.read_bytes

        def fail(path: Path) -> bytes:
            if path.name == "004.png":
                raise OSError(5, "Input/output error", str(path))
            return read(path)

        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match="Input/output error"):
            attribute_folder(model, folder, out, "gradient", batch_size=2, progress=False)
    assert 0 < arrays(out)["finished"].sum() < 12
    attribute_folder(model, folder, out, "gradient", batch_size=2, progress=False)
    assert content(out) == content(tmp_path / "unbroken")


def test_store_in_the_folder_is_none_of_its_files(folder):
    for _ in range(2):
        report = attribute_folder(network(), folder, folder / "maps", "gradient", progress=False)
    assert (report.maps, report.found) == (8, 12)


# The command line


def test_factory_in_the_folder_where_the_command_is_given(folder, tmp_path, monkeypatch):
    (tmp_path / "own_factory.py").write_text(f"from {network.__module__} import network as make")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    command = ["attribute", "--model", "own_factory:make", "--data", str(folder), "--method", "gradient"]
    assert main([*command, "--out", "maps"]) == 0


def test_too_little_memory_is_a_sentence(folder, tmp_path, monkeypatch, capsys):
    def fail(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("plugin.datasets.explain.Explain._find_head", fail)
    command = ["attribute", "--model", NETWORK, "--data", str(folder), "--method", "gradient"]
    assert main([*command, "--out", str(tmp_path / "maps")]) == 2
    assert "error: out of memory: lower --batch-size (32) to go on" in capsys.readouterr().err


def test_command_line(folder, tmp_path, capsys):
    command = [
        "attribute",
        "--model",
        NETWORK,
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "maps"),
    ]
    assert main([*command, "--method", "gradient", "--target", "2"]) == 0
    said = capsys.readouterr()
    assert "is finished: 8 maps, 4 files skipped" in said.out
    assert "cat/empty.jpg: The file is empty." in said.out
    assert "12/12" in said.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*")}
    assert main([*command, "--method", "gradient", "--target", "2"]) == 0
    said = capsys.readouterr()
    assert "was finished before: 8 maps, 4 files skipped" in said.out
    assert "file/s" not in said.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*")} == before
    assert main([*command, "--method", "deconvnet", "--target", "2"]) == 2
    assert "method was 'gradient' and is now 'deconvnet'" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main([*command, "--method", "gradient"]) == 2
    assert "is no folder" in capsys.readouterr().err
