"""Rows in Parquet files: the same as in a zarr store, resumable, readable by others; summaries instead of maps."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.picture_folders import arrays, content, draw, fill, network, rows_of

from plugin.datasets import Record, Report, attribute_dataset, paths
from plugin.datasets.explain import Rows
from plugin.datasets.parquet_sink import ParquetSink
from plugin.datasets.records import Block, Plan
from plugin.datasets.summaries import KINDS, Part, Summary
from plugin.datasets.summary_parts import SummaryParts

pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which four are bad."""
    return fill(tmp_path / "pictures", 8)


def explain(folder: Path, out: str | Path, **options: Any) -> Report:
    """Explain a folder in blocks of five."""
    given = {"method": "gradient", "block_rows": 5, "progress": False} | options
    return attribute_dataset(network(), source=folder, out=out, **given)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_those_of_a_zarr_store(dtype: str, folder: Path, tmp_path: Path) -> None:
    report = explain(folder, tmp_path / "maps.parquet", dtype=dtype)
    assert (report.maps, len(report.skipped), report.left, report.found) == (8, 4, 0, 0)
    explain(folder, tmp_path / "maps.zarr", batch_size=5, dtype=dtype)
    found, expected = rows_of(tmp_path / "maps.parquet"), arrays(tmp_path / "maps.zarr")
    assert len(list((tmp_path / "maps.parquet").glob("block-*.parquet"))) == 3
    renamed = {"map": "maps", "id": "file"}
    assert {renamed.get(name, name) for name in found} == expected.keys() - {"finished"}
    for name, values in found.items():
        assert (name != "map") or values.dtype == dtype
        np.testing.assert_array_equal(values, expected[renamed.get(name, name)], err_msg=name)


def test_killed_runs_go_on(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "unbroken.parquet")
    out = tmp_path / "maps.parquet"
    explain(folder, out)
    blocks = sorted(out.glob("block-*"))
    (out / "_finished.json").unlink()
    blocks[0].unlink()
    blocks[2].write_bytes(b"")  # as a power cut may leave it
    (out / ".block-00000001.0123.partial.parquet").write_bytes(b"half")
    before = blocks[1].stat().st_mtime_ns
    report = explain(folder, out)
    assert (report.found, report.left) == (5, 0)
    assert blocks[1].stat().st_mtime_ns == before
    assert content(out) == content(tmp_path / "unbroken.parquet")
    assert explain(folder, out).found == 12


def test_run_that_was_killed_over_its_first_file_goes_on(folder: Path, tmp_path: Path) -> None:
    """Or that begins while another process writes this file."""
    (tmp_path / "maps.parquet").mkdir()
    (tmp_path / "maps.parquet" / "._attribution.0123456789ab.partial.json").write_bytes(b"{")
    assert explain(folder, tmp_path / "maps.parquet").left == 0


def test_ranks_share_the_blocks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain(folder, tmp_path / "alone.parquet")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, left in (("1", 7), ("0", 0)):
        monkeypatch.setenv("RANK", rank)
        assert explain(folder, tmp_path / "shared.parquet").left == left
    assert content(tmp_path / "shared.parquet") == content(tmp_path / "alone.parquet")


def test_each_rank_tells_its_own_progress(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, rows in (("1", [0, 5]), ("0", [0, 5, 7])):
        monkeypatch.setenv("RANK", rank)
        for out, total in (("maps.parquet", None), ("maps.zarr", rows[-1])):
            told: list[tuple[int, int | None]] = []
            explain(folder, tmp_path / out, progress=lambda done, left: told.append((done, left)))  # noqa: B023
            assert told == [(done, total) for done in rows]


def test_other_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps.parquet")
    before = content(tmp_path / "maps.parquet")
    for changed, message in (
        ({"method": "lrp-0"}, "method was 'gradient' and is now 'lrp-0'"),
        ({"keep": "mean"}, "keep was 'maps' and is now 'mean'"),
        ({"resume": False}, "exists: choose resume=True"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(folder, tmp_path / "maps.parquet", **changed)
    assert content(tmp_path / "maps.parquet") == before


@pytest.mark.parametrize(("name", "what"), [("cat/001.png", "changed"), ("bird/1.png", "new"), ("zebra/1.png", "new")])
def test_other_pictures_are_refused(name: str, what: str, folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps.parquet")
    before = content(tmp_path / "maps.parquet")
    draw(folder / name, 7)
    with pytest.raises(ValueError, match=f"{name} is {what}"):
        explain(folder, tmp_path / "maps.parquet")
    assert content(tmp_path / "maps.parquet") == before


def test_pictures_at_the_end_that_are_gone_are_noticed(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps.parquet")
    for path in (folder / "truck").glob("*"):
        path.unlink()
    with pytest.raises(ValueError, match="is gone"):
        explain(folder, tmp_path / "maps.parquet")


def test_other_content_of_the_same_size_is_refused(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "maps.parquet")
    path = folder / "cat" / "003.png"
    os.utime(path, ns=(1, 1))
    assert explain(folder, tmp_path / "maps.parquet").found == 12
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"cat/003\.png is changed"):
        explain(folder, tmp_path / "maps.parquet")


def test_other_folders_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.parquet").mkdir()
    (tmp_path / "thesis.parquet" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds no rows of this package"):
        explain(folder, tmp_path / "thesis.parquet")
    assert content(tmp_path / "thesis.parquet") == {"thesis.txt": b"precious"}


def test_output_in_the_folder_is_none_of_its_pictures(folder: Path) -> None:
    for found in (0, 12):
        report = explain(folder, folder / "maps.parquet")
        assert (report.maps, report.found) == (8, found)


def test_output_in_object_storage(folder: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    url, system = "memory://rows/maps.parquet", fsspec.filesystem("memory")
    for found in (0, 12):
        report = explain(folder, url)
        assert (report.maps, report.left, report.found) == (8, 0, found)
    explain(folder, tmp_path / "maps.parquet")
    here = content(tmp_path / "maps.parquet")
    assert {name.rpartition("/")[2]: system.cat_file(name) for name in system.find("/rows/maps.parquet")} == here
    system.rm("/rows", recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_summary_is_that_of_the_full_output(kind: str, folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "full.parquet")
    rows = rows_of(tmp_path / "full.parquet")
    expected = Summary(kind).merge([Summary(kind).of_block(rows)])
    explain(folder, tmp_path / "summary", keep=kind)
    with np.load(tmp_path / "summary" / "_summary.npz") as found:
        assert set(found) == expected.keys()
        for name, values in expected.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert "map" not in rows_of(tmp_path / "summary")
    assert not (tmp_path / "summary" / "_parts").exists()
    before = content(tmp_path / "summary")
    assert explain(folder, tmp_path / "summary", keep=kind).found == 12
    assert content(tmp_path / "summary") == before


def test_what_summaries_are(folder: Path, tmp_path: Path) -> None:
    explain(folder, tmp_path / "full.parquet")
    rows = rows_of(tmp_path / "full.parquet")
    good = rows["error"] == ""
    mean = Summary("mean").merge([Summary("mean").of_block(rows)])
    np.testing.assert_allclose(mean["mean"][0], rows["map"][good].mean(0), rtol=1e-5, atol=1e-8)
    classes = Summary("per-class").merge([Summary("per-class").of_block(rows)])
    for target, count, values in zip(classes["target"], classes["count"], classes["mean_of_absolutes"], strict=True):
        of_class = rows["map"][good & (rows["target"] == target)]
        assert len(of_class) == count
        np.testing.assert_allclose(values, np.abs(of_class).mean(0), rtol=1e-5, atol=1e-8)
    summary = Summary("top-k", 2)
    halves = [{name: values[half] for name, values in rows.items()} for half in (slice(0, 6), slice(6, 12))]
    top = summary.merge(summary.of_block(half) for half in halves)
    for target in set(rows["target"][good].tolist()):
        expected = np.sort(rows["probability"][good & (rows["target"] == target)])[::-1][:2]
        np.testing.assert_array_equal(top["probability"][top["target"] == target], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_a_summary(kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain(folder, tmp_path / "unbroken", keep=kind)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        explain(folder, tmp_path / "shared", keep=kind)
    assert content(tmp_path / "shared") == content(tmp_path / "unbroken")


def test_parts_of_a_summary_are_joined_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "pictures", 56)
    explain(folder, tmp_path / "full.parquet")
    rows = rows_of(tmp_path / "full.parquet")
    most: list[int] = []
    count = SummaryParts.count

    def note(parts: SummaryParts, block: int) -> None:
        count(parts, block)
        most.append(len(list((tmp_path / "summary" / "_parts").iterdir())))

    monkeypatch.setattr(SummaryParts, "count", note)
    explain(folder, tmp_path / "summary", keep="per-class", block_rows=1)
    assert max(most) <= 17
    expected = Summary("per-class").merge([Summary("per-class").of_block(rows)])
    found = np.load(tmp_path / "summary" / "_summary.npz")
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-4, atol=1e-8)


def test_what_a_killed_process_did_not_remove_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = Summary("mean")
    rows = {"error": np.array([""]), "target": np.array([0]), "map": np.ones((1, 1, 2, 2), np.float32)}
    parts = SummaryParts(str(tmp_path), summary)
    with monkeypatch.context() as patch:
        patch.setattr(paths, "remove_file", lambda path: None)  # as if killed before
        for block in range(17):  # the last one's part is written when the others are joined
            parts.write(block, summary.of_block(rows))
            parts.count(block)
    assert len(list((tmp_path / "_parts").iterdir())) == 18
    after = SummaryParts(str(tmp_path), summary)
    after.write(17, summary.of_block(rows))
    after.write(18, summary.of_block(rows))  # of a block that was never written
    assert after.finish(range(18))["count"].tolist() == [18]
    with pytest.raises(ValueError, match="lacks the part of block 19"):
        after.finish(range(20))


# Two runs that summarise at once


def two_sinks(out: Path, count: int) -> tuple[ParquetSink, ParquetSink, list[Block], Rows]:
    """Two processes that began an output of so many blocks of a row, the blocks, and the row of each."""
    shapes = {"map": (1, 2, 2), "logits": (3,)}
    plan = Plan({}, {}, shapes, 1)
    first, second = (ParquetSink(str(out), Summary("mean")) for _ in range(2))
    blocks = list(first.begin(plan, Numbered(count)))
    assert list(second.begin(plan, Numbered(count))) == blocks
    rows = {name: np.ones((1, *shape), np.float32) for name, shape in (shapes | {"probability": ()}).items()}
    rows |= {name: np.zeros(1, np.int64) for name in ("target", "predicted")}
    return first, second, blocks, rows | {name: np.array([""], object) for name in ("id", "sha256", "error")}


class Numbered:
    """Pictures without content."""

    def __init__(self, count: int) -> None:
        self.count = count

    def records(self) -> Iterator[Record]:
        """The pictures."""
        return (Record(str(number), number) for number in range(self.count))

    def read(self, record: Record) -> bytes:
        """Nobody asks for it."""
        raise NotImplementedError


def assert_summarised(out: Path, count: int) -> None:
    """Each row counts once, and nothing else is left."""
    with np.load(out / "_summary.npz") as found:
        assert found["count"].tolist() == [count]
    assert not (out / "_parts").exists()


def test_block_that_two_runs_write_at_once_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, blocks, rows = two_sinks(tmp_path, 25)
    exists = paths.exists
    # Both look before either has written.
    monkeypatch.setattr(paths, "exists", lambda path: "block-" not in path and exists(path))
    for block in blocks[:18]:
        first.write(block, rows)
    for block in blocks[7:]:
        second.write(block, rows)
    assert second.finish().left == 0
    assert_summarised(tmp_path, 25)


def test_summary_that_another_process_has_just_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, blocks, rows = two_sinks(tmp_path, 3)
    for block in blocks:
        first.write(block, rows)
    finish = SummaryParts.finish

    def be_overtaken(parts: SummaryParts, numbers: Iterable[int]) -> Part:
        monkeypatch.setattr(SummaryParts, "finish", finish)
        second.finish()
        return finish(parts, numbers)

    monkeypatch.setattr(SummaryParts, "finish", be_overtaken)
    assert first.finish().left == 0
    assert_summarised(tmp_path, 3)


def test_summary_that_is_made_as_soon_as_the_last_block_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, blocks, rows = two_sinks(tmp_path, 17)
    for block in blocks[:-1]:
        first.write(block, rows)
    create = paths.create

    def be_overtaken(path: str, content: bytes) -> bool:
        is_first = create(path, content)
        assert second.finish().left == 0
        return is_first

    monkeypatch.setattr(paths, "create", be_overtaken)
    first.write(blocks[-1], rows)
    assert first.finish().left == 0
    assert_summarised(tmp_path, 17)


def test_store_is_read_by_xarray(folder: Path, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    explain(folder, tmp_path / "maps.zarr", batch_size=5)
    with xarray.open_zarr(tmp_path / "maps.zarr", consolidated=False) as data:
        assert data["maps"].dims == ("file", "channel", "row", "column")
        assert data["maps"].isel(file=0).values.shape == (3, 9, 9)
        assert data.attrs["settings"]["method"] == "gradient"
