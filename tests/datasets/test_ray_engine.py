"""Maps by a Ray cluster on this machine: the same as by one process, whichever worker dies."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import numpy as np
import pytest
from support.kills import Kills, Run, actors_of, differences
from support.picture_folders import arrays, assert_alike, assert_columns_alike, fill, rows_of

from plugin.datasets import Record, Report, attribute, attribute_dataset
from plugin.datasets.local_engine import TooManyErrors
from plugin.datasets.source_files import FolderSource
from plugin.datasets.summaries import Summary

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytest.importorskip("pyarrow")
# Ray sets options that it has deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray.data.context")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Any:
    """A cluster with room for two actors, which ends with the tests."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    # Ray's own messages would fill the report of a failure.
    logging.getLogger("ray").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which four are bad."""
    return fill(tmp_path / "pictures", 8)


def explain(folder: Path, out: Path, engine: str = "ray", **options: Any) -> Report:
    """Explain a folder in blocks of two, by two actors."""
    given = {"method": "guided-backprop", "block_rows": 2, "batch_size": 2, "actors": 2, "progress": False} | options
    return attribute_dataset("all-cnn-c", source=folder, out=out, engine=engine, **given)


@pytest.mark.parametrize("suffix", ["zarr", "parquet"])
def test_engine_gives_the_same(suffix: str, folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    report = explain(folder, tmp_path / f"ray.{suffix}", progress=lambda done, total: told.append((done, total)))
    assert (report.maps, len(report.skipped), report.left, report.found) == (8, 4, 0, 0)
    # The blocks of a Parquet output are not known beforehand.
    assert told == [(done, 12 if suffix == "zarr" else None) for done in range(0, 14, 2)]
    assert report.seconds.keys() == {"read", "decode", "forward", "backward", "write"}
    explain(folder, tmp_path / f"alone.{suffix}", "local")
    assert_same(tmp_path / f"ray.{suffix}", tmp_path / f"alone.{suffix}")
    assert explain(folder, tmp_path / f"ray.{suffix}").found == 12


def assert_same(first: Path, second: Path) -> None:
    """The same rows but for rounding: a worker has other threads than this process."""
    if first.suffix == ".zarr":
        assert_alike(first, second)
    else:
        assert_columns_alike(rows_of(first), rows_of(second))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds actors in /proc")
def test_killed_actor_is_replaced(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "pictures", 56), tmp_path / "maps.parquet"
    killed: list[int] = []

    def kill() -> None:
        while len(list(out.glob("block-*"))) < 2:
            sleep(0.01)
        killed.extend(actors_of(os.getpid())[:1])
        for process in killed:
            os.kill(process, signal.SIGKILL)

    thread = Thread(target=kill)
    thread.start()
    report = explain(folder, out)
    thread.join()
    assert killed
    assert (report.maps, len(report.skipped), report.left) == (56, 4, 0)
    names = rows_of(out)["id"].tolist()
    assert len(names) == len(set(names)) == 60
    explain(folder, tmp_path / "alone.parquet", "local")
    assert_same(out, tmp_path / "alone.parquet")


class Deadly:
    """A sink whose first process is killed when it has written a block, before Ray hears of it."""

    def __init__(self, sink: Any, marker: Path, written: Callable[[], dict[str, int]]) -> None:
        self.sink, self.marker, self.written = sink, marker, written

    def begin(self, *given: Any) -> Any:
        return self.sink.begin(*given)

    def finish(self) -> Report:
        return self.sink.finish()

    def errors_of(self, block: Any) -> int | None:
        return self.sink.errors_of(block)

    def write(self, block: Any, rows: Any) -> None:
        self.sink.write(block, rows)
        if not self.marker.exists():
            self.marker.write_text(json.dumps(self.written()))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("suffix", ["zarr", "parquet"])
def test_a_block_is_not_explained_again_when_its_actor_is_killed(
    suffix: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, marker, plain = tmp_path / f"maps.{suffix}", tmp_path / "killed.json", attribute._open_sink
    written = Run(folder, out, "ray").blocks
    # The workers cannot import the tests.
    for module in (sys.modules[__name__], sys.modules[Run.__module__], sys.modules[fill.__module__]):
        ray.cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(attribute, "_open_sink", lambda *given: Deadly(plain(*given), marker, written))
    report = explain(folder, out, actors=1)
    assert (report.maps, len(report.skipped), report.left) == (8, 4, 0)
    before = json.loads(marker.read_text())
    assert before
    assert before == {name: at for name, at in written().items() if name in before}


def test_labels_and_the_limit_of_errors(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    (folder / "cat").rename(folder / "3")
    (folder / "truck").rename(folder / "9")
    report = explain(folder, tmp_path / "maps.zarr", target="label")
    stored = arrays(tmp_path / "maps.zarr")
    assert (report.maps, len(report.skipped)) == (8, 5)
    assert set(stored["target"].tolist()) == {-1, 3, 9}
    with pytest.raises(TooManyErrors, match="have no map, more than max_errors = 1 allows"):
        explain(folder, tmp_path / "stopped.zarr", max_errors=1)


def test_stopped_summary_goes_on_to_that_of_the_full_output(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(folder, tmp_path / "summary", keep="per-class", progress=stop)
    report = explain(folder, tmp_path / "summary", keep="per-class")
    assert report.found >= 4
    assert (report.maps, report.left) == (8, 0)
    explain(folder, tmp_path / "full.parquet", "local")
    expected = Summary("per-class").merge([Summary("per-class").of_block(rows_of(tmp_path / "full.parquet"))])
    with np.load(tmp_path / "summary" / "_summary.npz") as found:
        assert set(found) == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_failing_source_is_raised_as_it_is(folder: Path, tmp_path: Path) -> None:
    class Failing(FolderSource):
        def read(self, record: Record) -> bytes:
            if record.id.endswith("004.png"):
                raise OSError(5, "Input/output error", record.id)
            return super().read(record)

    with pytest.raises(OSError, match="Input/output error"):
        explain(Failing(folder), tmp_path / "maps.zarr")  # type: ignore[arg-type]
    report = explain(folder, tmp_path / "maps.zarr")
    assert (report.maps, report.left) == (8, 0)


def test_ray_is_not_started_by_torchrun(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="shares the work itself"):
        explain(folder, tmp_path / "maps.zarr")


def test_unknown_engine_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown engine 'spark': choose local or ray"):
        explain(folder, tmp_path / "maps.zarr", "spark")


def test_killed_driver_is_followed_by_another(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "pictures", 56), tmp_path / "maps.parquet"
    command = [sys.executable, "-m", "plugin", "attribute", "--model", "all-cnn-c", "--data", str(folder)]
    command += ["--method", "guided-backprop", "--block-rows", "2", "--batch-size", "2", "--actors", "2"]
    # A cluster of its own, which ends with it.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"OMP_NUM_THREADS": "1"}
    command += ["--engine", "ray", "--out", str(out)]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(out.glob("block-*"))) < 2:
        assert driver.poll() is None
        sleep(0.01)
    driver.kill()
    driver.wait()
    sleep(1)  # the files that its actors were writing
    finished = {path: path.stat().st_mtime_ns for path in out.glob("block-*")}
    report = explain(folder, out)
    assert (report.found, report.left) == (2 * len(finished), 0)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished block was computed again"
    explain(folder, tmp_path / "alone.parquet", "local")
    assert_same(out, tmp_path / "alone.parquet")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_killed_cluster_is_followed_by_another(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", 56)
    run = Run(folder, tmp_path / "maps.zarr", "ray", ("--actors", "2"))
    killed = Kills(run, "cluster")
    killed.strike(1, most_blocks=4)
    assert killed.count == 1
    alone = Run(folder, tmp_path / "alone.zarr")
    alone.finish()
    assert not differences(run.values(), alone.values())
