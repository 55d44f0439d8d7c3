"""Going on with a run: changed pictures and code are noticed, power cuts are survived, nobody's rows are forgotten."""

import errno
import os
import stat
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from support.picture_folders import BAD, arrays, content, draw, fill, network
from torch import nn

from plugin.__main__ import main
from plugin.datasets import attribute_folder, code_version
from plugin.datasets.ranks import Share, share_of_environment
from plugin.datasets.zarr_sink import MapStore

NETWORK = "support.picture_folders:network"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which four are bad."""
    return fill(tmp_path / "pictures", 8)


def explain(folder: Path, out: Path, method: str = "gradient") -> int:
    """Explain a folder in blocks of two; how many rows were there before."""
    return attribute_folder(network(), folder, out, method, batch_size=2, block_rows=2, progress=False).found


def swap(first: Path, second: Path) -> None:
    """Exchange the content of two files of the same length."""
    one, other = first.read_bytes(), second.read_bytes()
    length = max(len(one), len(other))
    first.write_bytes(other.ljust(length, b"\0"))
    second.write_bytes(one.ljust(length, b"\0"))


# Changed pictures and code


def test_other_pictures_of_the_same_size_are_refused(folder: Path, tmp_path: Path) -> None:
    first, second = folder / "cat" / "001.png", folder / "cat" / "003.png"
    swap(first, second)  # now of the same length
    explain(folder, tmp_path / "maps")
    before, size = content(tmp_path / "maps"), first.stat().st_size
    swap(first, second)
    assert first.stat().st_size == size
    with pytest.raises(ValueError, match=r"cat/001\.png is changed"):
        explain(folder, tmp_path / "maps")
    assert content(tmp_path / "maps") == before


def test_pictures_that_were_only_touched_are_the_same(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps")
    before = content(tmp_path / "maps")
    for path in folder.glob("*/*"):
        os.utime(path, ns=(1, 1))
    assert explain(folder, tmp_path / "maps") == 12
    assert content(tmp_path / "maps") == before


def test_other_code_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain(folder, tmp_path / "maps")
    monkeypatch.setattr(code_version, "_package_sha256", lambda: "the code of tomorrow")
    with pytest.raises(ValueError, match=r"code_sha256 was '[0-9a-f]{64}' and is now"):
        explain(folder, tmp_path / "maps")


class Scaled(nn.Sequential):
    """A network with an option that no state dict and no file holds."""

    def __init__(self, scale: float, slope: float = 0.1) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.LeakyReLU(slope), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.scale = scale

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(input)


@pytest.mark.parametrize(
    ("changed", "message"),
    [(Scaled(2), "outputs for a test picture are others"), (Scaled(1, 0.11), "structure_sha256 was")],
)
@pytest.mark.parametrize("out", ["maps.zarr", "maps.parquet"])
def test_other_options_of_the_network_are_refused(
    changed: nn.Module, message: str, out: str, folder: Path, tmp_path: Path
) -> None:
    options = {"batch_size": 12, "progress": False}
    attribute_folder(Scaled(1), folder, tmp_path / out, "gradient", **options)
    assert attribute_folder(Scaled(1.001), folder, tmp_path / out, "gradient", **options).found == 12
    with pytest.raises(ValueError, match=message):
        attribute_folder(changed, folder, tmp_path / out, "gradient", **options)


def test_hash_of_the_code_counts_what_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version, "_PACKAGE", tmp_path)
    hash_now = code_version._package_sha256.__wrapped__
    for name in ("rules/lrp.py", "explorer/app.py", "rules/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    before = hash_now()
    (tmp_path / "explorer/app.py").write_text("second")
    (tmp_path / "rules/notes.txt").write_text("second")
    assert hash_now() == before
    (tmp_path / "rules/lrp.py").write_text("second")
    assert hash_now() != before


def test_code_of_the_network_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\nclass Own(nn.Linear):\n    pass\n"
    (tmp_path / "own_network.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    from own_network import Own  # type: ignore[import-not-found]

    class Derived(Own):  # type: ignore[misc]
        pass

    def hashes() -> list[str]:
        factory = code_version.code_sha256(nn.Linear(2, 2), "own_network:make")
        return [code_version.code_sha256(Own(2, 2)), code_version.code_sha256(Derived(2, 2)), factory]

    before = hashes()
    (tmp_path / "own_network.py").write_text(source + "    # changed\n")
    assert not set(before) & set(hashes())


# Folders


def test_linked_class_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "cats" / "1.png", 1)
    draw(tmp_path / "pictures" / "dog" / "2.png", 2)
    (tmp_path / "pictures" / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "pictures" / "dog" / "above").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "dog" / "itself").symlink_to("itself")
    (tmp_path / "pictures" / "dog" / "nothing.png").symlink_to(tmp_path / "gone.png")
    explain(tmp_path / "pictures", tmp_path / "maps")
    stored = arrays(tmp_path / "maps")
    assert stored["file"].tolist() == ["cat/1.png", "dog/2.png", "dog/itself", "dog/nothing.png"]
    assert stored["error"].tolist() == ["", "", *["The file is a link that leads nowhere."] * 2]


def test_disk_that_fails_behind_a_link_is_no_link_to_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "1.png").symlink_to(folder / "cat" / "001.png")

    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.parent.name == "links":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        explain(tmp_path / "links", tmp_path / "maps")


def test_folder_that_cannot_be_listed_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("truck"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="truck"):
        explain(folder, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_names_stand_in_the_order_of_their_letters(tmp_path: Path) -> None:
    for name in ("a/z.png", "a-b/1.png", "a.png", "B.png", "a/é.png"):
        draw(tmp_path / "pictures" / name, 0)
    explain(tmp_path / "pictures", tmp_path / "maps")
    names = arrays(tmp_path / "maps")["file"].tolist()
    assert names == sorted(names)
    assert len(names) == 5


# Ranks


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set without RANK"),
        ({"RANK": "1"}, "RANK=1 is set without WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0 must be at least 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 must be from 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 must be from 0 to 1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "both must be whole numbers"),
    ],
)
def test_ranks_that_leave_or_repeat_pictures_are_refused(
    variables: dict[str, str], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        explain(folder, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_shares_are_disjoint_and_whole() -> None:
    assert share_of_environment({}) == Share(0, 1)
    with pytest.warns(UserWarning, match="srun has started 4 processes, and each does the whole work"):
        assert share_of_environment({"SLURM_STEP_NUM_TASKS": "4"}) == Share(0, 1)
    shares = [share_of_environment({"RANK": str(rank), "WORLD_SIZE": "3"}) for rank in range(3)]
    assert sorted(block for share in shares for block in range(10) if share.has(block)) == list(range(10))


def test_exit_code_says_that_rows_are_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["attribute", "--model", NETWORK, "--data", str(folder), "--out", str(tmp_path / "maps")]
    command += ["--method", "gradient", "--batch-size", "2"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    codes = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        codes.append(main(command))
    assert codes == [3, 0]
    assert "6 files are left to other processes" in capsys.readouterr().out


# Power cuts


@pytest.mark.parametrize("left_behind", [b"", b"\0" * 30, None], ids=["emptied", "zeros", "torn"])
@pytest.mark.parametrize("name", ["finished", "error", "sha256"])
def test_chunks_that_a_power_cut_emptied_are_computed_again(
    name: str, left_behind: bytes | None, folder: Path, tmp_path: Path
) -> None:
    model = network()

    def run(out: str) -> int:
        return attribute_folder(model, folder, tmp_path / out, "gradient", batch_size=5, progress=False).found

    run("unbroken")
    run("maps")
    # The second is the last, shorter one.
    chunks = [path for path in sorted((tmp_path / "maps" / name / "c").iterdir()) if path.name in ("0", "2")]
    for chunk in chunks:
        chunk.write_bytes(chunk.read_bytes()[:-4] if left_behind is None else left_behind)
    assert run("maps") == 12 - sum({"0": 5, "2": 2}[chunk.name] for chunk in chunks)
    assert content(tmp_path / "maps") == content(tmp_path / "unbroken")


def test_rows_are_on_the_disk_before_they_are_marked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synchronised.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}/maps/"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    explain(folder, tmp_path / "maps")
    for block in range(6):
        mark = synchronised.index(f"finished/c/{block}")
        for before in (f"maps/c/{block}/0/0/0", f"maps/c/{block}", "maps/c", f"logits/c/{block}/0"):
            # A chunk of the values that stand there before, as of bad pictures only, is not written.
            assert before in synchronised[:mark] or not (tmp_path / "maps" / before).exists(), before


def test_folders_that_cannot_be_synchronised_are_no_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of some network file systems."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    for out in ("maps.zarr", "maps.parquet"):
        assert [explain(folder, tmp_path / out) for _ in range(2)] == [0, 12]


@pytest.mark.parametrize("out", ["maps.zarr", "maps.parquet"])
def test_output_behind_a_link(out: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / out).symlink_to(tmp_path / "scratch")
    assert [explain(folder, tmp_path / out) for _ in range(2)] == [0, 12]
    assert (tmp_path / "scratch").is_dir()


# Full disks, and two runs at once


@pytest.mark.parametrize("out", ["maps.zarr", "maps.parquet"])
def test_full_disk_loses_nothing(out: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, room, fsync = 0, 10**6, os.fsync

    def fill_up(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    explain(folder, tmp_path / "unbroken" / out)
    whole, calls, room = calls, 0, 2
    with pytest.raises(OSError, match="No space left on device"):
        explain(folder, tmp_path / "begun" / out)
    assert not [*(tmp_path / "begun").glob(".*")]
    room = whole // 4
    for _ in range(2):
        calls = 0
        with pytest.raises(OSError, match="No space left on device") as raised:
            explain(folder, tmp_path / out)
        assert raised.value.errno == errno.ENOSPC
    room = 10**6
    assert 0 < explain(folder, tmp_path / out) < 12
    assert content(tmp_path / out) == content(tmp_path / "unbroken" / out)
    assert not list(tmp_path.glob(".*"))


def test_two_runs_at_once_lose_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = network(), {"batch_size": 5}
    attribute_folder(model, folder, tmp_path / "unbroken", "gradient", progress=False, **options)

    def be_overtaken(done: int, total: int | None) -> None:
        if done != 5:
            return
        attribute_folder(model, folder, tmp_path / "maps", "gradient", progress=False, **options)

        def fail(*arguments: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(zarr.Array, "__setitem__", fail)

    with pytest.raises(OSError, match="Input/output error"):
        attribute_folder(model, folder, tmp_path / "maps", "gradient", progress=be_overtaken, **options)
    assert content(tmp_path / "maps") == content(tmp_path / "unbroken")


def test_what_another_run_is_writing_is_left_alone(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps")
    chunks = tmp_path / "maps" / "maps" / "c" / "0" / "0" / "0"
    for name in ("old.partial", "new.partial"):
        (chunks / name).touch()
    os.utime(chunks / "old.partial", (0, 0))
    os.utime(chunks / "new.partial", (time() + 60, time() + 60))
    explain(folder, tmp_path / "maps")
    assert {path.name for path in chunks.iterdir()} == {"0", "new.partial"}


# Cost


def test_only_chunks_that_are_there_are_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, read = network(), list[tuple[str, slice]]()
    attribute_folder(model, folder, tmp_path / "maps", "gradient", batch_size=2, progress=False)
    for block in (1, 4):
        (tmp_path / "maps" / "finished" / "c" / str(block)).unlink()
    get = zarr.Array.__getitem__

    def note(array: "zarr.Array[Any]", rows: slice) -> Any:
        read.append((array.basename, rows))
        return get(array, rows)

    monkeypatch.setattr(zarr.Array, "__getitem__", note)
    store = MapStore(str(tmp_path / "maps"))
    assert np.flatnonzero(~store.finished()).tolist() == [2, 3, 8, 9]
    assert [rows for name, rows in read if name == "finished"] == [slice(0, 2), slice(4, 8), slice(10, 12)]


def test_one_forward_pass_per_picture(folder: Path, tmp_path: Path) -> None:
    model, passes = network(), []
    model.network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    attribute_folder(model, folder, tmp_path / "maps", "guided-backprop", batch_size=12, progress=False)
    stored = arrays(tmp_path / "maps")
    # The first two read the kind of outputs, and show that the method has an answer.
    assert passes == [1, 1, 12 - len(BAD)]
    good = stored["error"] == ""
    np.testing.assert_array_equal(stored["target"][good], stored["logits"][good].argmax(1))
