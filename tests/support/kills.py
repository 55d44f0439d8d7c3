"""Runs of `python -m plugin attribute` that are killed at random moments, and whether their output shows it.

It finds processes in /proc, so it needs Linux.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from .picture_folders import arrays, rows_of

ACTOR = b"ExplainBlock"
# The exit code of an error that is one sentence.
BUSY = 2
NETWORK = "support.picture_folders:network"
# The longest that a driver may go on without its cluster, in seconds; Ray ends it with exit code 1.
PATIENCE = 60.0


def descendants(process: int) -> list[int]:
    """The ids of the processes that a process has started, with those that they have started, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(process, ()))
    for child in found:  # grows meanwhile
        found += children.get(child, ())
    return found


def actors_of(process: int) -> list[int]:
    """The ids of the processes that explain, in the Ray cluster that a process has started."""
    return [child for child in descendants(process) if ACTOR in _title(child)]


def _title(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it ended
        return b""


def kill(processes: Sequence[int]) -> None:
    """End processes as the kernel does without memory: at once, and without asking them."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself
            continue


@dataclass
class Run:
    """A command, and the output that it goes on with.

    Attributes:
        folder: the pictures.
        out: the output.
        engine: "local" or "ray".
        options: further words of the command.
    """

    folder: Path
    out: Path
    engine: str = "local"
    options: tuple[str, ...] = ()

    def start(self) -> subprocess.Popen[bytes]:
        """Begin it, or go on with it."""
        command = [sys.executable, "-m", "plugin", "attribute", "--model", NETWORK, "--method", "guided-backprop"]
        command += ["--data", str(self.folder), "--out", str(self.out), "--batch-size", "2", "--block-rows", "2"]
        command += ["--engine", self.engine, "--device", "cpu", *self.options]
        # One thread, since another number of them rounds in another way; and a cluster of its own.
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        root = Path(__file__).parents[2]
        environment |= {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
        with open(self.log, "a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> Path:
        """The output of all starts of the command."""
        return self.out.with_name(f"{self.out.name}.log")

    def finish(self) -> None:
        """Go on until nothing is left.

        Raises:
            AssertionError: the command failed.
        """
        code = self.start().wait()
        while code == BUSY and self.is_too_busy():
            code = self.start().wait()
        assert code == 0, f"exit code {code}\n{self.log.read_text()[-4000:]}"

    def is_too_busy(self) -> bool:
        """Whether Ray has not started in its time, as on a machine with much other work, and said so at last."""
        return "Ray does not start" in self.log.read_text().rstrip().rpartition("\n")[2]

    def blocks(self) -> dict[str, int]:
        """When each finished block was written, in nanoseconds, by the name of its file."""
        if self.out.suffix == ".zarr":
            marks = [path.name for path in (self.out / "finished" / "c").glob("*") if path.name.isdecimal()]
            files = {name: self.out / "logits" / "c" / name / "0" for name in marks}
            return {name: path.stat().st_mtime_ns for name, path in files.items() if path.exists()}
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("block-*.parquet")}

    def values(self) -> dict[str, Any]:
        """Every column of the output in the order of the pictures, and the arrays of a summary."""
        if self.out.suffix == ".zarr":
            return arrays(self.out)
        columns = rows_of(self.out)
        if not (self.out / "_summary.npz").exists():
            return columns
        with np.load(self.out / "_summary.npz") as summary:
            return columns | {f"summary: {name}": values for name, values in summary.items()}


class Kills:
    """Kills a run at random moments, and goes on with it.

    Attributes:
        run: the run to kill.
        victim: "driver", the process that was started; "actor", one that explains for it; "cluster", all that it has
            started, and every second time itself.
        count: how many kills there were before all was finished.
        kept: when each block was written that was finished before a kill.
        alone: how long drivers went on without their cluster, in seconds.
    """

    def __init__(self, run: Run, victim: str, seed: int = 0) -> None:
        self.run, self.victim = run, victim
        self.count = 0
        self.kept: dict[str, int] = {}
        self.alone: list[float] = []
        self._random = random.Random(f"{run.engine} {victim} {run.out.name} {seed}")

    def strike(self, count: int, most_blocks: int) -> None:
        """Kill so many times, and go on until nothing is left.

        Args:
            count: how often.
            most_blocks: a kill comes when so many further blocks are written, or before.

        Raises:
            AssertionError: a run ended otherwise than it should, or a finished block was written again.
        """
        while self.count < count:
            process = self.run.start()
            while self.count < count and self._wait(process, most_blocks):
                self._kill(process)
            code = process.wait()
            if code == 0:
                break
            if code == BUSY and self.run.is_too_busy():
                continue
            assert code == -signal.SIGKILL or (code == 1 and self.victim == "cluster"), (
                f"exit code {code}\n{self.run.log.read_text()[-4000:]}"
            )
        self.run.finish()
        found = self.run.blocks()
        again = [name for name, written in self.kept.items() if found.get(name) != written]
        assert not again, f"finished blocks were written again: {again}"

    def _wait(self, process: subprocess.Popen[bytes], most_blocks: int) -> bool:
        """Wait for a random moment; whether the process is still there then."""
        wanted = len(self.run.blocks()) + self._random.randint(0, most_blocks)
        if self.victim == "driver" and self._random.random() < 0.2:  # while it starts
            return _until(lambda: process.poll() is not None, self._random.uniform(0, 8)) is None
        while len(self.run.blocks()) < wanted or (self.victim != "driver" and not actors_of(process.pid)):
            if process.poll() is not None:
                return False
            sleep(0.01)
        return _until(lambda: process.poll() is not None, self._random.uniform(0, 0.3)) is None

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        actors = actors_of(process.pid)
        if self.victim == "actor" and not actors:  # it has just ended
            return
        self.kept = self.run.blocks() | self.kept
        self.count += 1
        if self.victim == "driver":
            kill([process.pid])
            process.wait()
            sleep(self._random.choice([0, self._random.uniform(0, 4)]))  # its actors may still be there
        elif self.victim == "actor":
            kill(self._random.sample(actors, 1))
        else:
            kill([*descendants(process.pid), *([] if self.count % 2 else [process.pid])])
            seconds = _until(lambda: process.poll() is not None, PATIENCE)
            assert seconds is not None, f"the driver goes on without its cluster\n{self.run.log.read_text()[-4000:]}"
            self.alone.append(seconds)


def _until(is_so: Callable[[], bool], patience: float) -> float | None:
    """After how many seconds something was so; None if it was not within the patience."""
    start = monotonic()
    while not is_so():
        if monotonic() > start + patience:
            return None
        sleep(0.01)
    return monotonic() - start


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The columns that are not the same to the last bit, with the largest difference."""
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    different = []
    for name, values in expected.items():
        if values.shape != found[name].shape:
            different.append(f"{name}: {found[name].shape} instead of {values.shape}")
        elif values.dtype.kind == "f" and not np.array_equal(values, found[name], equal_nan=True):
            different.append(f"{name}: {np.nanmax(np.abs(values - found[name])):.1e}")
        elif values.dtype.kind != "f" and not np.array_equal(values, found[name]):
            different.append(name)
    return different
