"""How long a call took and how much memory it needed."""

import ctypes
import time
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """A context that measures what happens inside it.

    Args:
        device: where the work is done.

    Attributes:
        seconds: wall-clock time; on a GPU, until it has finished.
        peak_bytes: on a GPU, what PyTorch allocated at most; on the CPU, by how much the resident memory of the whole
            process grew at most (so nothing else should be running in it). None where the system does not say it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> "Meter":
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before: int | None = torch.cuda.memory_allocated()
        else:
            self._before = _restart_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        self.read()

    def read(self) -> None:
        """Bring `seconds` and `peak_bytes` up to now, while the work goes on."""
        self.seconds = time.perf_counter() - self._start
        after = torch.cuda.max_memory_allocated() if self._cuda else _resident("VmHWM")
        if self._before is not None and after is not None:
            self.peak_bytes = max(0, after - self._before)


def _restart_peak() -> int | None:
    """Make Linux forget the highest resident memory so far; the resident memory now, in bytes, or None elsewhere."""
    try:
        # Memory that the C library keeps for reuse counts as resident: without handing it back, a second call would
        # seem to need nothing.
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
    except (AttributeError, OSError, TypeError):
        return None
    return _resident("VmRSS")


def _resident(key: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
