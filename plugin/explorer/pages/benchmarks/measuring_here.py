"""A short measurement of one network on this machine, on the processor or on another device."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from plugin.measuring import cases, stored_results
from plugin.measuring.cases import IMPLEMENTATIONS, LABELS, LRP_METHODS, SIGNAL_METHODS, Row
from plugin.measuring.peak_memory import FreshProcesses, peak_on_gpu
from plugin.measuring.stored_results import Results
from plugin.measuring.timing import rounds_within, take_turns, warm_up

from ...server.device_memory import guarded
from ...server.jobs import Task
from ...server.turns import PROCESSOR

# A GPU is not busy with a few images.
_ON_PROCESSOR, _ELSEWHERE = (1, 16), (1, 64)
# Generated code would take a minute a row before anything is measured.
_MODE = "graph"
_ROW_SECONDS = 1.0
# Two measurements at once would measure each other.
_measuring = threading.Lock()


def batches(device: str) -> tuple[int, ...]:
    """The numbers of images per call that can be measured on a device."""
    return _ON_PROCESSOR if device == PROCESSOR else _ELSEWHERE


def rows_to_measure(network: str, batch: int, device: str = PROCESSOR) -> list[Row]:
    """The rows of a short measurement: ours and those that installed peers support; then ours compiled, with the
    compiled baseline."""
    methods = [*(SIGNAL_METHODS if network != "vit_b_16" else ()), *LRP_METHODS]
    rows = [Row(network, method, name, batch, device) for method in methods for name in cases.IMPLEMENTED[method]]
    eager = [row for row in rows if not cases.unsupported(row) and (row.implementation == "ours" or _installed(row))]
    return [*eager, *(Row(network, method, "compiled", batch, device) for method in ("lrp-0", *methods))]


def _installed(row: Row) -> bool:
    return find_spec(row.implementation) is not None


def measure(task: Task, network: str, batch: int, device: str, small: bool = False) -> Results:
    """Measure a network on this machine, for a `jobs.Job`; the page shows the results so far.

    Args:
        task: of the job.
        network: a key of `networks.NAMES`.
        batch: images per call.
        device: one of `devices.available`.
        small: whether a stand-in replaces the network, to test that everything runs.
    """
    while not _measuring.acquire(timeout=0.5):
        task.report(0.0, "Waiting for another measurement to end …")
    try:
        found = Results(stored_results.machine_facts(device))
        rows = rows_to_measure(network, batch, device)
        with FreshProcesses(small) as processes, _current(device):
            for done, row in enumerate(rows):
                message = f"{LABELS[row.method]}, {IMPLEMENTATIONS[row.implementation]} …"
                task.report(done / len(rows), message, found)
                times = _measured(row, small)
                task.report((done + 0.5) / len(rows), message, found)  # memory takes as long; a stop takes effect here
                found = _with(found, row, times, _memory(processes, row, small))
        return found
    finally:
        _measuring.release()


@contextmanager
def _current(device: str) -> Iterator[None]:
    """A context in which a GPU is the current one: the clock waits for it, and graphs are captured on it."""
    if not device.startswith("cuda"):
        yield
        return
    with torch.cuda.device(device):
        yield


def _measured(row: Row, small: bool) -> dict[str, Any]:
    """The times of a row, or its error."""
    try:
        with guarded(row.device), cases.prepared(row, small, _MODE) as case:
            _, round_seconds = warm_up(case.call, case.floor)
            pairs = list(take_turns(case.call, case.floor, rounds_within(_ROW_SECONDS, round_seconds)))
    except Exception as error:  # a failure is a result like the others
        return {"error": f"{type(error).__name__}: {error}"}
    remark = f"mode {_MODE!r}" if row.implementation == "compiled" else ""
    return {
        "floor_seconds": tuple(pair[0] for pair in pairs),
        "call_seconds": tuple(pair[1] for pair in pairs),
        "remark": remark,
    }


def _memory(processes: FreshProcesses, row: Row, small: bool) -> dict[str, Any]:
    """The memory of a row where there is a counter; none for compiled calls, which also hold their uncompiled form."""
    try:
        if row.implementation == "compiled":
            return {}
        if row.device == PROCESSOR:
            return {"peak_bytes": processes.peak(row), "floor_peak_bytes": processes.floor_peak(row)}
        if row.device.startswith("cuda"):
            with guarded(row.device):
                peak, floor_peak = peak_on_gpu(row, small)
            return {"peak_bytes": peak, "floor_peak_bytes": floor_peak}
        return {}
    except Exception as error:  # a failure is a result here too
        return {"memory_error": str(error)}


def _with(found: Results, row: Row, *parts: dict[str, Any]) -> Results:
    """A copy with one more row, as the page may be drawing the original."""
    more = Results(found.machine, dict(found.measurements))
    more.put(row, stored_results.commit(), **{name: value for part in parts for name, value in part.items()})
    return more
