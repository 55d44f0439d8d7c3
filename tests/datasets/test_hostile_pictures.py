"""Bad files among many: listed, skipped and counted, whatever they are; a run stops where they are too many."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.picture_folders import arrays, draw, network

from plugin.__main__ import main
from plugin.datasets import attribute_dataset
from plugin.datasets.local_engine import ErrorLimit, TooManyErrors

GOOD = 120
# By how a name ends: the text of the error.
BAD = {
    "empty.png": "empty",
    "text.jpg": "not a picture",
    "truncated.png": "truncated",
    "huge.png": "too many pixels",
    "thread.png": "longer side",
    "zeros.png": "not a picture",
    "notes.txt": "not a picture",
    "script.py": "not a picture",
}
ODD_NAMES = ("ü ö.png", "a'b\"c.png", "new\nline.png", "%s {x} $(y).png", "😀.png", "-rf.png", "no ending", "x....png")
LIMITS = [(None, False), (17, False), (16, True), (0, True), (0.5, False), (0.01, True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures in two class folders, eight sorts of bad ones in each, animations, odd names, and a stray file."""
    folder = tmp_path_factory.mktemp("many") / "pictures"
    for seed in range(GOOD):
        draw(folder / ("dog" if seed % 2 else "truck") / f"{seed:04}.png", seed)
    data = (folder / "dog" / "0001.png").read_bytes()
    for name in ("dog", "truck"):
        place = folder / name
        contents = {"empty.png": b"", "text.jpg": b"no picture", "truncated.png": data[: len(data) // 2]}
        contents |= {"zeros.png": b"\0" * 1000, "notes.txt": b"remember the milk", "script.py": b"import os"}
        for ending, content in contents.items():
            (place / ending).write_bytes(content)
        Image.new("1", (9000, 9000)).save(place / "huge.png")
        Image.new("1", (3000, 2)).save(place / "thread.png")
        frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
        frames[0].save(place / "animated.gif", save_all=True, append_images=frames[1:])
        for odd in ODD_NAMES:
            (place / odd).write_bytes(data)
        (place / os.fsdecode(b"caf\xe9.png")).write_bytes(data)
    (folder / "README.txt").write_text("a stray file")
    return folder


def explain(folder: Path, out: Path, target: str = "predicted", **options: Any) -> Any:
    """Explain the folder."""
    return attribute_dataset(network(), "gradient", folder, out, target, batch_size=50, progress=False, **options)


def test_bad_files_are_listed_skipped_and_counted(folder: Path, tmp_path: Path) -> None:
    report = explain(folder, tmp_path / "maps")
    good = GOOD + 2 * (1 + len(ODD_NAMES) + 1)
    bad = 2 * len(BAD) + 1
    assert (report.maps, len(report.skipped), report.left) == (good, bad, 0)
    for name, reason in report.skipped.items():
        assert BAD.get(name.rpartition("/")[2], "not a picture") in reason, name
    stored = arrays(tmp_path / "maps")
    assert len(set(stored["file"].tolist())) == len(stored["file"]) == good + bad
    assert "dog/caf\\xe9.png" in stored["file"].tolist()
    maps, errors = stored["maps"], stored["error"]
    assert np.isfinite(maps[errors == ""]).all()
    assert np.isnan(maps[errors != ""]).all()
    assert explain(folder, tmp_path / "maps").found == good + bad


def test_stray_files_need_no_label(folder: Path, tmp_path: Path) -> None:
    report = explain(folder, tmp_path / "maps", "label")
    assert len(report.skipped) == 2 * len(BAD) + 1
    assert "not a picture" in report.skipped["README.txt"]
    stored = arrays(tmp_path / "maps")
    good = stored["error"] == ""
    assert set(stored["target"][good].tolist()) == {1, 2}
    assert set(stored["target"][~good].tolist()) == {-1}


def test_picture_in_disguise_outside_the_class_folders_has_no_label(tmp_path: Path) -> None:
    draw(tmp_path / "pictures" / "dog" / "1.png", 1)
    draw(tmp_path / "pictures" / "2.png", 2)
    (tmp_path / "pictures" / "2.png").rename(tmp_path / "pictures" / "2.dat")
    report = explain(tmp_path / "pictures", tmp_path / "maps", "label")
    assert report.skipped == {"2.dat": "Its label is not known: the source names none, and it lies in no class folder."}


@pytest.mark.parametrize(("limit", "stops"), LIMITS)
def test_too_many_errors_stop_the_run(limit: float | None, stops: bool, folder: Path, tmp_path: Path) -> None:
    if not stops:
        assert explain(folder, tmp_path / "maps", max_errors=limit).left == 0
        return
    with pytest.raises(TooManyErrors, match=f"more than max_errors = {limit} allows"):
        explain(folder, tmp_path / "maps", max_errors=limit)
    # The finished part is kept, and the run goes on with another limit.
    finished = int(arrays(tmp_path / "maps")["finished"].sum())
    assert finished
    report = explain(folder, tmp_path / "maps")
    assert (report.found, report.left) == (finished, 0)


def test_share_of_errors_is_judged_of_many() -> None:
    limit = ErrorLimit(0.1)
    limit.count(10, 5)
    with pytest.raises(TooManyErrors, match="15 of 110 pictures"):
        limit.count(100, 10)
    with pytest.raises(ValueError, match="max_errors = -1"):
        ErrorLimit(-1)


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["attribute", "--model", "support.picture_folders:network", "--data", str(folder), "--method", "gradient"]
    assert main([*command, "--out", str(tmp_path / "maps"), "--max-errors", "3"]) == 2
    assert "more than max_errors = 3 allows" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "maps")]) == 0
    said = capsys.readouterr().out
    assert "17 files skipped" in said
    assert all(step in said for step in ("read ", "decode ", "forward ", "backward ", "write "))
    assert main([*command, "--out", str(tmp_path / "maps"), "--no-resume"]) == 2
    assert "exists: choose resume=True" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "means"), "--summary", "mean"]) == 0
    assert (tmp_path / "means" / "_summary.npz").is_file()
    for name in ("means.zarr", "means.npz"):
        assert main([*command, "--out", str(tmp_path / name), "--summary", "mean"]) == 2
        assert f"{name}: give a name that ends in .parquet, or has no ending" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    assert main([*command, "--out", "nowhere://bucket/maps"]) == 2
    assert "nowhere://bucket/maps cannot be reached" in capsys.readouterr().err
