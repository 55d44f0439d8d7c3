"""One run of the benchmarks: its measurements, the file that stores them, and its end in time."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin.measuring import cases, stored_results
from plugin.measuring.cases import Case, Row
from plugin.measuring.stored_results import Measurement, Results
from plugin.measuring.timing import clock

Comparison = Callable[[Any], tuple[float | None, str]]

# The mark of every benchmark: on a GPU its timer waits until the work is done.
synchronising = pytest.mark.benchmark(timer=clock)


class Session:
    """One run of the benchmarks.

    Attributes:
        timed: whether it measures, or only tries whether everything runs.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.timed = bool(config.getoption("benchmark_enable"))
        self._ends = time.monotonic() + 60 * float(os.environ.get("MINUTES", "inf"))
        self._folder = Path(os.environ.get("RESULTS", stored_results.FOLDER))
        self._results: dict[str, Results] = {}
        self._commit = stored_results.commit() if self.timed else ""
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")

    def check_time(self) -> None:
        """Skip the remaining benchmarks when the time is up."""
        if self.timed and time.monotonic() > self._ends:
            pytest.skip("the time is up: MINUTES=60 leaves more")

    def put(self, row: Row, **found: Any) -> Measurement:
        """Store a row's findings, and return its measurement."""
        path = stored_results.result_path(row.device, self._folder)
        if row.device not in self._results:
            self._results[row.device] = Results.read(path) if path.exists() else Results({})
            self._results[row.device].machine = stored_results.machine_facts(row.device)
        measurement = self._results[row.device].put(row, self._commit, **found)
        self._results[row.device].write(path)
        return measurement

    def say(self, row: Row, text: str) -> None:
        """A line of progress."""
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            self._reporter.write_line(f"{row}: {text}")


def compared_with_ours(row: Row, case: Case, small: bool) -> Comparison:
    """How far a peer's map is from ours.

    The function raises an AssertionError where both compute the same thing and do not agree.
    """

    def compare(result: Any) -> tuple[float | None, str]:
        if row.implementation == "ours" or row.method == cases.TEN_TARGETS:
            return None, ""
        if row.device == "cuda" and row.implementation != "compiled":
            with cases.full_precision():
                result = case.call()
        difference, most = cases.difference(row, result, small), cases.tolerance(row, small)
        assert most is None or difference <= most, f"differs from ours by {difference:.1e} of its norm"
        if not math.isfinite(difference):
            return None, "(its map is not finite)"
        return difference, "" if most is not None else "(its map is another one)"

    return compare
