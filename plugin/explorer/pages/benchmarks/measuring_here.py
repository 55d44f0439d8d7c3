"""A short measurement of one network on this machine."""

import threading
from importlib.util import find_spec
from typing import Any

from plugin.measuring import cases, results
from plugin.measuring.cases import IMPLEMENTATIONS, LABELS, LRP_METHODS, SIGNAL_METHODS, Row
from plugin.measuring.memory import FreshProcesses
from plugin.measuring.results import Results
from plugin.measuring.timing import rounds_within, take_turns, warm_up

from ...server.jobs import Task

BATCHES = (1, 16)
_ROW_SECONDS = 1.0
# Two measurements at once would measure each other.
_measuring = threading.Lock()


def rows_to_measure(network: str, batch: int) -> list[Row]:
    """What a short measurement measures: ours, and of the peers that are installed what they can do."""
    methods = [*(SIGNAL_METHODS if network != "vit_b_16" else ()), *LRP_METHODS]
    rows = [Row(network, method, name, batch) for method in methods for name in cases.IMPLEMENTED[method]]
    return [row for row in rows if not cases.unsupported(row) and (row.implementation == "ours" or _installed(row))]


def _installed(row: Row) -> bool:
    return find_spec(row.implementation) is not None


def measure(task: Task, network: str, batch: int, small: bool = False) -> Results:
    """Measure a network on this machine's processor, for a `jobs.Job`; what was found so far is what is shown.

    Args:
        task: of the job.
        network: a key of `networks.NAMES`.
        batch: images per call.
        small: a stand-in for the network, to see whether everything runs.
    """
    while not _measuring.acquire(timeout=0.5):
        task.report(0.0, "Waiting for another measurement to end …")
    try:
        found = Results(results.machine_facts("cpu"))
        rows = rows_to_measure(network, batch)
        with FreshProcesses(small) as processes:
            for done, row in enumerate(rows):
                task.report(done / len(rows), f"{LABELS[row.method]}, {IMPLEMENTATIONS[row.implementation]} …", found)
                found = _with(found, row, _measured(task, row, small), _memory(processes, row))
        return found
    finally:
        _measuring.release()


def _measured(task: Task, row: Row, small: bool) -> dict[str, Any]:
    """The times of a row, or why there are none."""
    try:
        with cases.prepared(row, small) as case:
            _, round_seconds = warm_up(case.call, case.floor)
            pairs = list(take_turns(case.call, case.floor, rounds_within(_ROW_SECONDS, round_seconds)))
    except Exception as error:  # one that fails is a result like the others
        return {"error": f"{type(error).__name__}: {error}"}
    return {"floor_seconds": tuple(pair[0] for pair in pairs), "call_seconds": tuple(pair[1] for pair in pairs)}


def _memory(processes: FreshProcesses, row: Row) -> dict[str, Any]:
    try:
        return {"peak_bytes": processes.peak(row), "floor_peak_bytes": processes.floor_peak(row)}
    except RuntimeError as error:
        return {"memory_error": str(error)}


def _with(found: Results, row: Row, *parts: dict[str, Any]) -> Results:
    """A copy with one more row: the page may be drawing the other."""
    more = Results(found.machine, dict(found.measurements))
    more.put(row, results.commit(), **{name: value for part in parts for name, value in part.items()})
    return more
