"""Peak memory of one call, above the network and its images.

On a CPU it is the peak resident size of a fresh process that makes one call, less that of one that only loads the
network (`fresh_process`). On a GPU it is the peak of PyTorch's allocations.
"""

import gc
import json
import subprocess
import sys
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

import torch

from . import cases, measured_networks
from .cases import Row

# Calls of a fresh process besides an implementation's: only load, or run the floor.
LOAD, FLOOR = "load", "floor"


class FreshProcesses:
    """A context in which rows are measured on the CPU, each in a process of its own.

    Args:
        small: see `cases.prepared`.
    """

    def __init__(self, small: bool = False) -> None:
        self._small = small
        self._known: dict[Row, int] = {}
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> "FreshProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.communicate()  # closes its input, which ends it
            self._server = None

    def peak(self, row: Row) -> int:
        """The most bytes that the row's call needs, above those of the loaded network.

        Raises:
            RuntimeError: the call failed, or the system ended the process; the message tells these apart.
        """
        return max(0, self._ask(row) - self._plain(row, LOAD))

    def floor_peak(self, row: Row) -> int:
        """The same for the floor of the row's network and batch."""
        return max(0, self._plain(row, FLOOR) - self._plain(row, LOAD))

    def _plain(self, row: Row, what: str) -> int:
        """The peak of a process that runs no implementation; measured once for a network and batch."""
        plain = replace(row, method="", implementation=what)
        if plain not in self._known:
            self._known[plain] = self._ask(plain)
        return self._known[plain]

    def _ask(self, row: Row) -> int:
        if self._server is None:
            command = [sys.executable, "-m", f"{__package__}.fresh_process"]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps({"row": asdict(row), "small": self._small}), file=self._server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._server.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return int(answer["bytes"])


def peak_on_gpu(row: Row, small: bool = False) -> tuple[int, int]:
    """The peaks in bytes above network and images: of the row's call with its preparation, and of the floor."""
    with cases.prepared(replace(row, method="lrp-0", implementation="ours"), small) as plain:
        plain.floor()  # the first call allocates the libraries' workspaces, which stay
        before = _restarted(row.device)
        plain.floor()
        floor_peak = torch.cuda.max_memory_allocated(row.device) - before
    # The call's images are part of its preparation.
    before = _restarted(row.device) + measured_networks.images(row.batch, small).nbytes
    with cases.prepared(row, small) as case:
        case.call()
    return torch.cuda.max_memory_allocated(row.device) - before, floor_peak


def _restarted(device: str) -> int:
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
